"""Stage `similarity`: CLIP(region crop) · CLIP(utterance) for every region of every artwork."""

from pipeline.backbones.params import BackbonesParams
from pipeline.parallel.map_shards import ParallelParams
from pipeline.similarity.params import SimilarityParams
from pipeline.similarity.step import build_similarity
from stages._run import Stage, tally_artworks

STAGE = Stage(
    "similarity",
    SimilarityParams,
    build_similarity,
    (("backbones", BackbonesParams), ("parallel", ParallelParams)),
    tally=tally_artworks("similarity"),
)

if __name__ == "__main__":
    STAGE.main()
