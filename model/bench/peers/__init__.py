"""What is here beside what a user would take instead: one row of a table each, see `run.py`."""
