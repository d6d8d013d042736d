"""Step `train`: shards to runs/VARIANT, a trained EmoSEM (Sec. 3.4, 4.1)."""
