"""Stage `shards`: index, checksums, statistics and dataset card of the features and masks shards."""

from pipeline import shards
from stages._run import Stage

STAGE = Stage("shards", shards.ShardsParams, shards.build)

if __name__ == "__main__":
    STAGE.main()
