"""Step `alignment`: the classifier that reads an explanation's emotion, for EA (Sec. 4.1)."""
