"""DVC stages as commands run them: the same code on the same folders, imported when it is needed."""

import functools
import importlib
from typing import Any

from pipeline.common.params import Params
from pipeline.common.progress import waiting
from stages.commands.loading import loading_torch

WITH_TORCH = ("features", "similarity", "relabel", "train", "predict")
"""Stages that import torch before they begin."""


def run_stage(name: str, params: Params, variant: str | None = None, **parallel: Any) -> dict[str, Any]:
    """Run the DVC stage `name` on the folders of `params`; `parallel` has the last word on that section."""
    metrics: dict[str, Any] = stage_of(name).run(params, variant, parallel)
    return metrics


@functools.cache
def stage_of(name: str) -> Any:
    """`STAGE` of stages/NAME.py."""
    with loading_torch(name) if name in WITH_TORCH else waiting(name, "starting"):
        return importlib.import_module(f"stages.{name}").STAGE
