"""From paintings and words to training shards. Knows nothing of training.

The steps in order; each has a folder here, a DVC stage, a params section, a data folder and its tests:

    gallery      draws a stand-in for ArtEmis + WikiArt + APOLO, in their released layouts
    utterances   who said what, about which artwork; split; shard map
    regions      boxes that a detector proposes on each artwork
    similarity   CLIP(region crop) x CLIP(utterance), one float per region: the factored pseudo-mask
    masks        the factored masks painted: one pseudo emotion mask per (artwork, emotion)
    features     frozen SAM and CLIP features, once per artwork
    shards       index, checks, statistics and dataset card of features + masks
"""

from pipeline.common.threads import set_threads

set_threads()  # here, because whatever of ours is imported, this runs before torch and numpy are
