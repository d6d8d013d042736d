"""Command `shard-stats`: what the shards hold, and which labels look wrong."""
