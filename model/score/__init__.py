"""Step `score`: the APOLO protocol and the explanation metrics over every method (Sec. 4.1)."""
