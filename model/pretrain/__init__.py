"""Trains the built-in gallery's small backbones, each from random weights by one fixed recipe.

One file per backbone offers ``train(out, params, device) -> dict``: it writes its weights into `out` and
returns the quality it measured on held-out scenes. Nothing here is reached by the pipeline's stages.
"""
