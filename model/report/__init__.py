"""Step `report` and the command `look`: pages that people read."""
