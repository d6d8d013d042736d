"""Stage `score`: every method's masks and explanations by the paper's metrics."""

from model.score.params import ScoreParams
from model.score.step import score_methods
from pipeline.backbones.params import BackbonesParams
from stages._run import Stage

STAGE = Stage("score", ScoreParams, score_methods, (("backbones", BackbonesParams),))

if __name__ == "__main__":
    STAGE.main()
