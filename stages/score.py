"""Stage `score`: every method's masks and explanations by the paper's metrics."""

from model import score
from model.score_params import ScoreParams
from pipeline.backbones import BackbonesParams
from stages._run import Stage

STAGE = Stage("score", ScoreParams, score.build, (("backbones", BackbonesParams),))

if __name__ == "__main__":
    STAGE.main()
