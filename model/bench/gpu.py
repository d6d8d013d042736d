"""Everything that wants a GPU, in one go: is it right there, and how fast? For a card lent for minutes.

Each part is a process with a time limit of its own (`model.bench.gpu_parts`), so that a failure, a full
memory or a hanging kernel costs that part alone and becomes a row with its reason. The file of results is
written after every part. Weights are random and of true size, pictures made up: a checkout is all it reads.
"""

import json
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from model.bench.gpu_parts.runner import Part, Runner
from model.bench.gpu_parts.summary import failures, goals, text
from model.bench.gpu_parts.worker import Job
from pipeline.backbones.params import BackbonesParams
from pipeline.common.errors import UserError
from pipeline.common.files import write_json
from pipeline.common.params import ParamsFile, load_params
from pipeline.common.progress import waiting
from pipeline.common.threads import cores
from pipeline.parallel.map_shards import end_on_sigterm

__all__ = ["NAMES", "PARTS", "failures", "run", "text"]

CORES_EACH = 3
"""Of the machine, for each of the parts that run beside each other."""


def _part(name: str, function: str, limit: float, timed: bool = True) -> Part:
    return Part(name, f"model.bench.gpu_parts.{function}", limit, timed)


PARTS = (
    _part("ceilings", "ceilings:ceilings", 60),
    _part("pictures", "pictures:pictures", 60),
    _part("parity-encoders", "parity_encoders:encoders", 90, timed=False),
    _part("parity-network", "parity_network:network", 90, timed=False),
    _part("parity-compiled-steps", "parity_network:compiled", 150, timed=False),
    _part("parity-compiled-sam", "parity_encoders:encoders_compiled", 90, timed=False),
    _part("tests", "gpu_tests:gpu_tests", 120, timed=False),
    _part("training", "training:training", 90),
    _part("sam-vit_b", "factory:sam_vit_b", 150),
    _part("crops", "factory:crops", 80),
    _part("vinvl", "factory:vinvl", 90),
    _part("answering", "answering:answering", 70),
    _part("training-compiled", "training:training_compiled", 150),
    _part("generation", "answering:generation", 40),
    _part("sam-vit_l", "factory:sam_vit_l", 60),
    _part("sam-vit_h", "factory:sam_vit_h", 70),
    _part("training-compiled-64", "training:training_compiled_64", 150),
)
"""In the order they run: what matters most first, for time may end before they do."""
NAMES = tuple(part.name for part in PARTS)
NEEDS: dict[str, tuple[str, ...]] = {part.name: ("ceilings",) for part in PARTS[2:] if part.timed}
for _name in ("sam-vit_b", "sam-vit_l", "sam-vit_h", "crops", "vinvl"):
    NEEDS[_name] = ("ceilings", "pictures")
"""Parts that read what others wrote."""


def run(
    params_file: ParamsFile,
    tiny: bool = False,
    out: Path = Path("gpu.json"),
    minutes: float = 9.0,
    only: Sequence[str] = (),
) -> dict[str, Any]:
    """Run the parts one after another, those that measure no time side by side.

    Args:
        params_file: as every command takes it; says the device and a tokenizer.
        tiny: sizes that a processor can bear, to see whether every part runs.
        out: file of the results, written after every part.
        minutes: for all parts; what is left over is not begun, with a row that says so.
        only: names of `NAMES`, and those that they need. Other parts that `out` has stay in it.

    Returns:
        ``device``, ``tiny``, ``parts``: name -> ``status`` (done, failed, over its limit, not begun),
        ``reason``, ``seconds``, ``rows``; ``goals``: ``title``, ``at_least``, ``found``, ``reached``.

    Raises:
        UserError: no GPU (and not tiny), no such part, a file that cannot be written, or is of another run.
    """
    wanted = _wanted(only)
    backbones = load_params(params_file, "backbones", BackbonesParams)
    device = backbones.torch_device()
    if not device.startswith("cuda") and not tiny:
        raise UserError(
            "bench gpu measures a GPU, and torch sees none (or backbones.device is cpu); --tiny runs every "
            "part at a small size on the processor, to see whether it works"
        )
    kind = {"device": device, "tiny": tiny}
    parts = _earlier(out, kind) if only else {}
    with tempfile.TemporaryDirectory(prefix="emosem-gpu-", ignore_cleanup_errors=True) as folder:
        job = Job("", device, tiny, Path(folder), Path(), backbones.language_model.absolute(), 0.0)
        runner = Runner(job, time.monotonic() + 60 * minutes)
        found = _summary(kind, parts)
        write_json(out, found)
        with end_on_sigterm(), runner:
            for batch in _batches(wanted):
                with waiting("bench gpu", ", ".join(part.name for part in batch)):
                    for name, result in runner.run(batch):
                        parts[name] = result
                        found = _summary(kind, parts)
                        write_json(out, found)
    return found


def _earlier(out: Path, kind: dict[str, Any]) -> dict[str, Any]:
    """The parts that a file has from before. Raises `UserError` where it is not of such a run."""
    if not out.exists():
        return {}
    try:
        found = json.loads(out.read_text(encoding="utf-8"))
        parts: dict[str, Any] = dict(found["parts"])
        same = {name: found[name] for name in kind} == kind
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(f"{out} is not of bench gpu ({error!r}); name another file by --out") from None
    if not same:
        raise UserError(f"{out} is of another device or size than {kind}; name another file by --out")
    return parts


def _summary(kind: dict[str, Any], parts: dict[str, Any]) -> dict[str, Any]:
    """What is kept: the parts in their order, and the goals by them."""
    ordered = {name: parts[name] for name in NAMES if name in parts}
    return {**kind, "parts": ordered, "goals": goals(ordered)}


def _wanted(only: Sequence[str]) -> list[Part]:
    """The parts of these names and those that they need, in their order; all without names."""
    unknown = [name for name in only if name not in NAMES]
    if unknown:
        raise UserError(f"bench gpu has no part {', '.join(unknown)}; it has {', '.join(NAMES)}")
    names = {*only, *(need for name in only for need in NEEDS.get(name, ()))} or set(NAMES)
    return [part for part in PARTS if part.name in names]


def _batches(parts: Sequence[Part]) -> Iterator[list[Part]]:
    """Parts that run at once: as many of those without clocks as there are cores for, the others alone."""
    at_once, waiting_parts = max(1, cores() // CORES_EACH), list(parts)
    while waiting_parts:
        batch = [waiting_parts.pop(0)]
        while waiting_parts and not batch[0].timed and not waiting_parts[0].timed and len(batch) < at_once:
            batch.append(waiting_parts.pop(0))
        yield batch
