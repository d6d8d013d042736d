"""Stage `regions`: where the things in each artwork are."""

from pipeline import regions
from pipeline.backbones import BackbonesParams
from pipeline.parallel import ParallelParams
from stages._run import Stage

STAGE = Stage(
    "regions",
    regions.RegionsParams,
    regions.build,
    (("backbones", BackbonesParams), ("parallel", ParallelParams)),
)

if __name__ == "__main__":
    STAGE.main()
