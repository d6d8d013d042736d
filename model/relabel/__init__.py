"""Step `relabel`: the next round's labels, of a finished round's labels and its students' masks."""
