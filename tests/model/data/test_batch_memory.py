"""Memory is used again when nothing refers to it any more, and not before."""

import gc
import threading
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

from model.data.batch_memory import BatchMemory

BYTES = np.dtype(np.uint8)


def test_memory_of_a_batch_that_is_gone_is_taken_up_again() -> None:
    memory = BatchMemory()
    first = memory.empty("sam", (4, 100), BYTES)
    place = first.data_ptr()
    other = memory.empty("sam", (4, 100), BYTES)
    assert other.data_ptr() != place
    del first
    smaller = memory.empty("sam", (10, 10), np.dtype(np.float16))
    assert smaller.data_ptr() == place and smaller.shape == (10, 10) and smaller.dtype == torch.float16
    del smaller
    assert memory.empty("clip", (4, 100), BYTES).data_ptr() != place  # of another use
    larger = memory.empty("sam", (5, 100), BYTES)
    larger[:] = 1
    assert len(memory._free["sam"]) == 0  # what was too small is not kept


HOLD: dict[str, Callable[[torch.Tensor, torch.Tensor], Any]] = {
    "view": lambda tensor, _: tensor[3:],
    "numpy": lambda tensor, _: tensor.numpy(),
    "view of numpy": lambda tensor, _: tensor.numpy()[2:][:, :].reshape(-1, 64),
    "autograd": lambda tensor, weight: (tensor * weight).sum(),
}


@pytest.mark.parametrize("hold", HOLD)
def test_whoever_holds_a_part_of_it_holds_it_all(hold: str) -> None:
    memory = BatchMemory()
    tensor = memory.empty("sam", (8, 64), np.dtype(np.float32))
    tensor[:] = torch.arange(64.0)
    weight = torch.ones(64, requires_grad=True)
    held = HOLD[hold](tensor, weight)
    place = tensor.data_ptr()
    del tensor
    gc.collect()
    fresh = memory.empty("sam", (8, 64), np.dtype(np.float32))
    fresh[:] = -1.0
    assert fresh.data_ptr() != place
    if hold == "autograd":
        held.backward()
        assert weight.grad is not None and torch.equal(weight.grad, 8 * torch.arange(64.0))
    else:
        assert all(np.array_equal(row, np.arange(64.0)) for row in np.asarray(held))
    del held
    weight.grad = None
    gc.collect()
    assert memory.empty("sam", (8, 64), np.dtype(np.float32)).data_ptr() == place


def test_stacked_arrays_are_those_of_numpy() -> None:
    rng = np.random.default_rng(0)
    arrays = [rng.normal(size=(3, 5)).astype(kind) for kind in (np.float16, np.float16, np.float32)]
    for some in (arrays[:2], arrays):
        found = BatchMemory().stack("sam", some)
        expected = np.stack(some)
        assert found.numpy().dtype == expected.dtype
        np.testing.assert_array_equal(found.numpy(), expected)


def test_threads_never_share_memory() -> None:
    memory, wrong = BatchMemory(), []

    def work(number: int) -> None:
        for turn in range(200):
            tensor = memory.empty("sam", (64 + turn % 7,), np.dtype(np.int64))
            tensor[:] = number
            if not bool((tensor == number).all()):
                wrong.append(number)

    threads = [threading.Thread(target=work, args=(n,)) for n in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong and len(memory._free["sam"]) <= 12  # a thread asks before it lets the last one go
