"""Stage `predict`: features + runs/VARIANT -> a mask and an explanation per APOLO item."""

from model.predict import PredictParams, predict
from stages._run import Stage

STAGE = Stage("predict", PredictParams, predict, variants=True)

if __name__ == "__main__":
    STAGE.main()
