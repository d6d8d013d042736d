"""Stage `masks`: pseudo emotion masks from regions and their similarities."""

from pipeline import masks
from pipeline.parallel import ParallelParams
from stages._run import Stage

STAGE = Stage("masks", masks.MasksParams, masks.build, (("parallel", ParallelParams),))

if __name__ == "__main__":
    STAGE.main()
