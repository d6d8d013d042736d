"""Shards with pictures and hostile utterances, and a review server that runs in a process of its own."""

import contextlib
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import yaml

from pipeline.common import schema
from pipeline.common.files import write_parquet
from pipeline.common.params import Paths
from pipeline.masks.recipe import MasksParams
from pipeline.masks.step import build_masks
from pipeline.parallel.map_shards import ParallelParams
from pipeline.shards.step import ShardsParams, build_shards
from tests.imports import ROOT
from tests.worlds import labelled_shards

HOSTILE = '<img src=x onerror="document.title=\'owned\'"></script><script>document.title="owned"</script>'
COUNT, EACH = 6, 4


def write_reviewed(folder: Path) -> Paths:
    """`COUNT` artworks of `EACH` emotions in ``folder``, with pictures, and params.yaml for commands."""
    paths = Paths(
        data=folder / "data",
        wikiart=folder / "wikiart",
        apolo=folder / "apolo",
        reviews=folder / "reviews",
        metrics=folder / "metrics",
    )
    labelled_shards.write_labelled(paths, count=COUNT, shards=2, each=EACH)
    table = paths.step("utterances") / "utterances.parquet"
    rows = pq.read_table(table).to_pylist()
    for row in rows:
        row["utterance"] = f"{HOSTILE} {row['utterance']}"
    write_parquet(table, pa.Table.from_pylist(rows, schema.UTTERANCES))
    paths.wikiart.mkdir()
    rng = np.random.default_rng(1)
    for work in pq.read_table(paths.step("utterances") / "artworks.parquet").to_pylist():
        image = rng.integers(0, 255, (work["height"], work["width"], 3), np.uint8)
        cv2.imwrite(str(paths.wikiart / work["path"]), image)
    build_masks(paths, MasksParams(), ParallelParams())
    build_shards(paths, ShardsParams(), ParallelParams())
    named = {name: str(getattr(paths, name)) for name in ("data", "wikiart", "apolo", "reviews", "metrics")}
    (folder / "params.yaml").write_text(yaml.safe_dump({"paths": named}))
    return paths


@dataclass
class Running:
    """A server that runs."""

    process: subprocess.Popen
    address: str

    def kill(self) -> None:
        """As the kernel does it when memory is short."""
        self.process.kill()
        self.process.wait()


@contextlib.contextmanager
def serving(folder: Path, *options: str) -> Iterator[Running]:
    """`cli.py review` in a folder, ended with it."""
    command = [sys.executable, str(ROOT / "cli.py"), "review", "--no-open", "--by", "anna", *options]
    process = subprocess.Popen(
        command, cwd=folder, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True, env=os.environ
    )
    try:
        assert process.stderr is not None
        line = process.stderr.readline()
        found = re.search(r"http://127\.0\.0\.1:\d+/\S+/", line)
        assert found, line + process.stderr.read()
        yield Running(process, found[0])
    finally:
        process.kill()
        process.communicate()
