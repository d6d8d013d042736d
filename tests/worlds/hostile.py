"""For hostile inputs: a csv and pictures to be spoilt, and the step `utterances` in little memory.

None of them may crash a run, leave the folder it belongs to, or cost memory that its size does not explain.
"""

import csv
import io
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
from PIL import Image

from pipeline.common.params import Paths

HEIGHT, WIDTH = 40, 30
NOISE = np.random.default_rng(0).integers(0, 256, (HEIGHT, WIDTH, 3), dtype=np.uint8)
MIB = 2**20


def encoded(kind: str, picture: Image.Image | None = None, **options: Any) -> bytes:
    buffer = io.BytesIO()
    (picture or Image.fromarray(NOISE)).save(buffer, format=kind, **options)
    return buffer.getvalue()


JPEG, PNG = encoded("JPEG"), encoded("PNG")


def world(root: Path, names: list[str]) -> Paths:
    """A csv that says one thing about every name; no pictures yet."""
    paths = Paths(
        artemis=root / "a.csv", wikiart=root / "wikiart", apolo=root / "no-apolo", data=root / "data"
    )
    (paths.wikiart / "Style").mkdir(parents=True)
    with paths.artemis.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(("art_style", "painting", "emotion", "utterance", "repetition"))
        writer.writerows(("Style", name, "awe", "so grand", 1) for name in names)
    return paths


def read(paths: Paths, name: str) -> list[dict[str, Any]]:
    return pq.read_table(paths.step("utterances") / f"{name}.parquet").to_pylist()


def fates(paths: Paths) -> dict[str, str | tuple[int, int]]:
    """Painting -> its reject's reason, or the size that the step saw."""
    found: dict[str, str | tuple[int, int]] = {
        row["source"].partition("/")[2]: row["reason"] for row in read(paths, "rejects") if row["row"] == -1
    }
    return found | {row["painting"]: (row["width"], row["height"]) for row in read(paths, "artworks")}


CHILD = """
import resource, sys
from pathlib import Path
from pipeline.common.params import Paths
from pipeline.utterances.step import UtterancesParams, build_utterances
root = Path(sys.argv[1])
paths = Paths(artemis=root / "a.csv", wikiart=root / "wikiart", apolo=root / "x", data=root / "data")
held = next(int(line.split()[1]) for line in open("/proc/self/status") if line.startswith("VmSize")) * 1024
resource.setrlimit(resource.RLIMIT_AS, (held + int(sys.argv[2]), held + int(sys.argv[2])))
resource.setrlimit(resource.RLIMIT_CPU, (120, 120))
build_utterances(paths, UtterancesParams(num_shards=1))
"""


def build_within(root: Path, memory: int) -> None:
    """Run the step in a process that may take `memory` bytes more than it starts with."""
    done = subprocess.run(
        [sys.executable, "-c", CHILD, str(root), str(memory)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
