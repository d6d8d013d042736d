"""The first seconds of a command that needs PyTorch: its imports."""

import contextlib
import gc
import sys
from collections.abc import Iterator

from pipeline.common.progress import waiting


@contextlib.contextmanager
def loading_torch(command: str) -> Iterator[None]:
    """Say that PyTorch is being loaded, and keep the garbage collector away from what is imported meanwhile.

    Importing makes hundreds of thousands of objects, which live as long as the process. The collector would
    go through them again and again: about a quarter of the imports' time, and some of every later
    collection's. A process that has PyTorch already is left as it is.
    """
    with waiting(command, "loading PyTorch"):
        if "torch" in sys.modules:
            yield
            return
        gc.disable()
        try:
            yield
        finally:
            gc.freeze()
            gc.enable()
