"""Step `utterances`: who wrote what, about which artwork; split; shard map."""
