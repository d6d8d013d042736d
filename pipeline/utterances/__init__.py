"""Step `utterances`: who said what, about which artwork; split; shard map."""
