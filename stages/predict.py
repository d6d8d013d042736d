"""Stage `predict`: features + runs/VARIANT -> a mask and an explanation per APOLO item."""

from model.predict.params import PredictParams
from model.predict.step import predict_items
from model.predict.tally import tally_predictions
from stages._run import Stage

STAGE = Stage("predict", PredictParams, predict_items, tally=tally_predictions, variants=True)

if __name__ == "__main__":
    STAGE.main()
