"""A long training that can be killed: all that going on needs, in a file that is replaced every few minutes.

The learning rate rises, stays, and falls in the last `cooldown` steps (a trapezoid), and every step draws
from its own seed. So a run of N steps and one of M are the same until the first of them cools down: one that
takes too long can be ended early and one that still gains can be prolonged, by changing the number of steps
alone, and the result is what an undisturbed run of that many gives.
"""

import json
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save
from torch import Tensor, nn

from pipeline.common.files import write_bytes

EVERY = 120.0
"""Seconds between two savings; what a killed run loses at most."""


def trapezoid(step: int, steps: int, warmup: int, cooldown: int) -> float:
    """Share of the peak learning rate at step 0 .. steps - 1; above 0 and at most 1."""
    return min(1.0, (step + 1) / (warmup + 1), (steps - step) / (cooldown + 1))


class TrainingState:
    """Saves and restores modules and optimisers whose learning rates are `trapezoid`s.

    Two files: ``steady.safetensors`` from before the cooldown, good for runs of any length, and
    ``cooldown.safetensors``, good for those of the same length. No pickle.
    """

    def __init__(
        self,
        folder: Path,
        identity: str,
        modules: Mapping[str, nn.Module],
        optimizers: Sequence[torch.optim.Optimizer],
        steps: int,
        cooldown: int,
    ) -> None:
        """`identity`: fingerprint of all that decides the result, but for `steps` and `cooldown`."""
        self.folder, self.identity, self.modules, self.optimizers = folder, identity, modules, optimizers
        self.steps, self.cooldown = steps, cooldown
        self.step = 0
        """Steps done."""
        self.seconds = 0.0
        """Processor seconds spent on them, by all processes that took part."""
        self._saved, self._spent = time.monotonic(), time.process_time()

    def done(self) -> None:
        """Count one step; save when it is time to, before the cooldown and at the end."""
        self.step += 1
        now, spent = time.monotonic(), time.process_time()
        self.seconds += spent - self._spent
        self._spent = spent
        if self.step in (self.steps - self.cooldown, self.steps) or now - self._saved >= EVERY:
            self.save()
            self._saved = time.monotonic()

    def save(self) -> None:
        """Write all that going on needs."""
        tensors = {f"{part}.{n}": t for part, m in self.modules.items() for n, t in m.state_dict().items()}
        for number, optimizer in enumerate(self.optimizers):
            for index, values in optimizer.state_dict()["state"].items():
                tensors |= {f"optimizer{number}.{index}.{name}": value for name, value in values.items()}
        about = {
            "identity": self.identity,
            "step": self.step,
            "seconds": self.seconds,
            "length": [self.steps, self.cooldown],
        }
        data = save({name: t.contiguous() for name, t in tensors.items()}, {"about": json.dumps(about)})
        steady = self.step <= self.steps - self.cooldown
        write_bytes(self.folder / f"{'steady' if steady else 'cooldown'}.safetensors", data)

    def resume(self) -> int:
        """Put the furthest usable state back, if there is one; returns the steps that are done.

        One that cannot be read, or is of another recipe, is named and left alone until it is overwritten.
        """
        for name in ("cooldown", "steady"):
            path = self.folder / f"{name}.safetensors"
            if not path.is_file():
                continue
            try:
                with safe_open(path, "pt") as file:
                    about = json.loads(file.metadata()["about"])
                fits = about["identity"] == self.identity and (
                    about["length"] == [self.steps, self.cooldown]
                    or (name == "steady" and about["step"] <= self.steps - self.cooldown)
                )
                if fits:
                    self._put_back(load_file(path))
                    self.step, self.seconds = int(about["step"]), float(about["seconds"])
                    return self.step
                reason = "it is of another recipe, length or version of torch"
            except (OSError, SafetensorError, ValueError, KeyError, TypeError) as error:
                reason = repr(error)
            print(f"{path} is not gone on from: {reason}", file=sys.stderr)
        return 0

    def _put_back(self, tensors: dict[str, Tensor]) -> None:
        for part, module in self.modules.items():
            start = f"{part}."
            module.load_state_dict(
                {n.removeprefix(start): t for n, t in tensors.items() if n.startswith(start)}
            )
        for number, optimizer in enumerate(self.optimizers):
            found: dict[int, dict[str, Tensor]] = {}
            start = f"optimizer{number}."
            for name, tensor in tensors.items():
                if name.startswith(start):
                    index, _, key = name.removeprefix(start).partition(".")
                    found.setdefault(int(index), {})[key] = tensor
            groups = optimizer.state_dict()["param_groups"]
            optimizer.load_state_dict({"state": found, "param_groups": groups})
