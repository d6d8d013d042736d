"""Stage `score`: every method's masks and explanations by the paper's metrics."""

from model.score.params import ScoreParams
from model.score.step import score_methods
from model.score.tally import tally_items
from pipeline.backbones.params import BackbonesParams
from stages._run import Stage

STAGE = Stage("score", ScoreParams, score_methods, (("backbones", BackbonesParams),), tally_items)

if __name__ == "__main__":
    STAGE.main()
