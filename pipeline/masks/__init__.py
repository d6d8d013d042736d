"""Step `masks`: the factored pseudo-masks painted (Sec. 4.1)."""

from pipeline.masks.raster import similarity_map

__all__ = ["similarity_map"]
