"""The network of Sec. 3, its configuration, losses and pretrained parts."""

from typing import Any


def __getattr__(name: str) -> Any:  # a lazy door: params are read without importing torch
    if name not in ("EmoSEM", "build_emosem"):
        raise AttributeError(f"module {__name__} has no attribute {name}")
    from model.emosem import network

    return getattr(network, name)
