"""`label-card`: pseudo-mask recipes scored on APOLO before any training."""
