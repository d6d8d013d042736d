"""APOLO's protocol, as far as several steps share it (facts of the release and of its published numbers)."""

THRESHOLD = 0.35
"""Foreground is what lies above this, of a map scaled to [0, 1]."""
