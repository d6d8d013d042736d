"""Stage `features`: SAM and CLIP grids of every artwork."""

from pipeline import features
from pipeline.backbones import BackbonesParams
from pipeline.parallel import ParallelParams
from stages._run import Stage

STAGE = Stage(
    "features",
    features.FeaturesParams,
    features.build,
    (("backbones", BackbonesParams), ("parallel", ParallelParams)),
)

if __name__ == "__main__":
    STAGE.main()
