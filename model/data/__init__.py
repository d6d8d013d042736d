"""Shards to batches: cached features, masks and utterances."""
