"""What the number of threads decides: on a CPU, the last digits of some results."""

from collections.abc import Mapping, Sequence
from typing import Any

from pipeline.common.digests import read_sidecar
from pipeline.common.machine import cpu_threads
from pipeline.plan.timing import Settings


def threads_of(settings: Settings) -> dict[str, Any]:
    """``here``: torch's threads in this process, None on a GPU; ``regions``: numbers that shards of regions,
    as they stand, were made with."""
    folder = settings.paths.step("regions")
    shards = [int(file.stem) for file in folder.glob("*.json") if file.stem.isdecimal()]
    made = {(read_sidecar(folder, shard) or {}).get("threads") for shard in shards}
    return {
        "here": cpu_threads(settings.backbones.torch_device()),
        "regions": sorted(number for number in made if number is not None),
    }


def threads_text(threads: Mapping[str, Any]) -> Sequence[str]:
    """Lines for people; none where the number decides nothing."""
    here, made = threads["here"], threads["regions"]
    if here is None:
        return []
    lines = [
        f"{here} thread(s): on a CPU their number decides the last digits of a detector's regions and of "
        "trained weights, and no other file of the data steps"
    ]
    if set(made) - {here}:
        numbers = " and ".join(str(number) for number in made)
        lines.append(f"regions stand that were made with {numbers}; OMP_NUM_THREADS goes on with that number")
    return lines
