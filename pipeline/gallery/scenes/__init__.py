"""Where everything stands in a scene."""
