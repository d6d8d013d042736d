"""What can be drawn in a scene."""
