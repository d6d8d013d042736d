"""Stage `similarity`: CLIP(region crop) · CLIP(utterance) for every region of every artwork."""

from pipeline import similarity
from pipeline.backbones import BackbonesParams
from pipeline.parallel import ParallelParams
from stages._run import Stage

STAGE = Stage(
    "similarity",
    similarity.SimilarityParams,
    similarity.build,
    (("backbones", BackbonesParams), ("parallel", ParallelParams)),
)

if __name__ == "__main__":
    STAGE.main()
