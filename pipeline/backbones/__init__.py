"""The frozen encoders: which weights, checked by their hash, and how pictures and words enter them.

`sam` and `clip` hold the loaders. This module imports no torch, so that params can be read without it.
"""
