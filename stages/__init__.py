"""Thin: each file takes the paths and one section of params.yaml, makes one library call, writes metrics."""
