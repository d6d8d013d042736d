"""Stage `shards`: index, checksums, statistics and dataset card of the features and masks shards."""

from pipeline import shards
from pipeline.parallel import ParallelParams
from stages._run import Stage

STAGE = Stage("shards", shards.ShardsParams, shards.build, (("parallel", ParallelParams),))

if __name__ == "__main__":
    STAGE.main()
