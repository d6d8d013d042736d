"""Stage `baselines`: the rows of Tab. 1 that are computed or trained here and are not EmoSEM's."""

from model.baselines.params import BaselinesParams
from model.baselines.step import build_baselines
from stages._run import Stage

STAGE = Stage("baselines", BaselinesParams, build_baselines)

if __name__ == "__main__":
    STAGE.main()
