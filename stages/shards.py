"""Stage `shards`: index, checksums, statistics and dataset card of the features and masks shards."""

from pipeline.parallel.map_shards import ParallelParams
from pipeline.reader.tally import tally_shards
from pipeline.shards.step import ShardsParams, build_shards
from stages._run import Stage

STAGE = Stage("shards", ShardsParams, build_shards, (("parallel", ParallelParams),), tally_shards)

if __name__ == "__main__":
    STAGE.main()
