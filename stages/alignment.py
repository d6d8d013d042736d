"""Stage `alignment`: a text-to-emotion classifier, for EA."""

from model import alignment
from stages._run import Stage

STAGE = Stage("alignment", alignment.AlignmentParams, alignment.build)

if __name__ == "__main__":
    STAGE.main()
