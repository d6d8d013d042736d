"""Step `shards`: index, checks, statistics and cards of features and masks."""
