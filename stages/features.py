"""Stage `features`: SAM and CLIP grids of every artwork."""

from pipeline.backbones.params import BackbonesParams
from pipeline.features.params import FeaturesParams
from pipeline.features.step import build_features
from pipeline.parallel.map_shards import ParallelParams
from stages._run import Stage, tally_artworks

STAGE = Stage(
    "features",
    FeaturesParams,
    build_features,
    (("backbones", BackbonesParams), ("parallel", ParallelParams)),
    tally=tally_artworks("features"),
)

if __name__ == "__main__":
    STAGE.main()
