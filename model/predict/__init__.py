"""Step `predict`, and prediction for pictures of your own."""
