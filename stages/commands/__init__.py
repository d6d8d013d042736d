"""What a person types: one function per command of `cli.py`, which lists them."""
