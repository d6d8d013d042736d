"""Memory for batches, taken up again when a batch is gone.

New memory is given out by the kernel page by page, which costs more than copying a grid into it; and a GPU
takes batches without waiting only from page-locked memory.
"""

import math
import threading
import weakref
from collections import defaultdict
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor


class BatchMemory:
    """Gives out tensors to be filled. Several threads may ask at once.

    Memory is used again only when nothing refers to its tensor any more, views and what autograd keeps
    included; so a batch stays what it is however long it is held. As many pieces are kept as were in use at
    one time.
    """

    def __init__(self, *, page_locked: bool = False) -> None:
        """`page_locked`: for batches that go to a GPU; torch's own allocator then keeps the pieces."""
        self.page_locked = page_locked
        self._free: defaultdict[str, list[np.ndarray]] = defaultdict(list)
        self._taking = threading.Lock()

    def empty(self, use: str, shape: Sequence[int], dtype: np.dtype) -> Tensor:
        """A tensor of any content.

        Args:
            use: memory of one use is not taken for another; their sizes differ too much.
            shape, dtype: of the tensor.
        """
        if self.page_locked:
            kind = torch.from_numpy(np.empty(0, dtype)).dtype
            return torch.empty(tuple(shape), dtype=kind, pin_memory=True)
        block = self._block(use, math.prod(shape) * dtype.itemsize)
        array = np.ndarray(tuple(shape), dtype, block)
        # torch keeps `array` as long as any tensor on its memory lives
        weakref.finalize(array, self._free[use].append, block).atexit = False
        return torch.from_numpy(array)

    def stack(self, use: str, arrays: Sequence[np.ndarray]) -> Tensor:
        """Arrays of one shape (...) as a tensor (N, ...): each copied once."""
        kind = np.result_type(*{array.dtype for array in arrays})
        stacked = self.empty(use, (len(arrays), *arrays[0].shape), kind)
        np.stack(arrays, out=stacked.numpy())
        return stacked

    def _block(self, use: str, size: int) -> np.ndarray:
        with self._taking:
            free = self._free[use]
            large = next((n for n, block in enumerate(free) if block.nbytes >= size), None)
            if large is not None:
                return free.pop(large)
            if free:  # too small for today's batches
                free.pop()
        return np.empty(size, np.uint8)
