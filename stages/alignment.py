"""Stage `alignment`: a text-to-emotion classifier, for EA."""

from model.alignment.step import AlignmentParams, build_alignment
from stages._run import Stage

STAGE = Stage("alignment", AlignmentParams, build_alignment)

if __name__ == "__main__":
    STAGE.main()
