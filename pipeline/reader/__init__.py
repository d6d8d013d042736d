"""Reads finished shards: by index, from disk or from afar."""
