"""What annotators say about a scene."""
