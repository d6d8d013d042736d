"""Stage `predict`: features + runs/VARIANT -> a mask and an explanation per APOLO item."""

from model.predict.params import PredictParams
from model.predict.step import predict_items
from stages._run import Stage

STAGE = Stage("predict", PredictParams, predict_items, variants=True)

if __name__ == "__main__":
    STAGE.main()
