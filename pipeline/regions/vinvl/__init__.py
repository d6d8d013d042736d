"""The VinVL detector (X152-C4, AttrRCNN), as scene_graph_benchmark has it."""

from typing import Any


def __getattr__(name: str) -> Any:  # a lazy door: settings are read without importing torch
    if name != "load_vinvl":
        raise AttributeError(f"module {__name__} has no attribute {name}")
    from pipeline.regions.vinvl import detector

    return detector.load_vinvl
