"""A trained model and its encoders for pictures of your own: ``from model.predictor import Predictor``."""

from model.predict.predictor import Predictor

__all__ = ["Predictor"]
