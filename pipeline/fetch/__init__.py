"""`fetch`: official weights by name, to where the params expect them, checked before they get their name."""
