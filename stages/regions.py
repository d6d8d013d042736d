"""Stage `regions`: where the things in each artwork are."""

from pipeline.backbones.params import BackbonesParams
from pipeline.parallel.map_shards import ParallelParams
from pipeline.regions.params import RegionsParams
from pipeline.regions.step import build_regions
from pipeline.regions.tally import tally_regions
from stages._run import Stage

STAGE = Stage(
    "regions",
    RegionsParams,
    build_regions,
    (("backbones", BackbonesParams), ("parallel", ParallelParams)),
    tally=tally_regions,
)

if __name__ == "__main__":
    STAGE.main()
