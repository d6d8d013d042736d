"""Methods that are scored beside EmoSEM and need no training.

entire_artwork   everything is foreground
clip_vinvl       the pseudo-mask recipe, run on the test items with their own utterances
"""
