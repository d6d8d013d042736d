"""A finished round: labels by the real recipe, random features, and students that know them."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from model.emosem.pretrained import build_pretrained
from model.emosem.provenance import Provenance, SamProvenance
from model.relabel.params import RelabelParams
from pipeline.common.digests import read_sidecar
from pipeline.common.params import Paths
from pipeline.common.schema import shard_stem
from pipeline.common.tars import npy_bytes, read_tar, write_tar
from tests.worlds import trained_shards
from tests.worlds.indexed_shards import paths_in, vouch
from tests.worlds.labelled_shards import HEIGHT, WIDTH, index_labelled, write_labelled

SHARDS, ARTWORKS, EACH = 2, 10, 2
SHA = "5a" * 32
"""Of the SAM whose features the artworks have, and the students know."""
INPUT = (24, 32)
"""(Height, width) of the pictures, 180 x 240, inside the tiny SAM's input of 32 x 32 pixels."""


def rule(**changes: Any) -> RelabelParams:
    """Params of a round after the paper's labels."""
    first = {"labels": Path("data"), "students": (Path("runs/multi"),)}
    return RelabelParams(**{**first, "label_threshold": 0.65, "student_threshold": 0.35, **changes})


def features_of(key: str, sha256: str = SHA) -> dict[str, bytes]:
    rng = np.random.default_rng(int(key[:8], 16))
    sam = {"arch": "tiny", "sha256": sha256, "input_size": INPUT}
    return {
        "sam.npy": npy_bytes(rng.normal(size=(trained_shards.SAM.out_chans, 8, 8)).astype(np.float16)),
        "clip.npy": npy_bytes(rng.normal(size=(16, trained_shards.WIDTH)).astype(np.float16)),
        "json": json.dumps({"height": HEIGHT, "width": WIDTH, "sam": sam, "clip": {"name": "tiny"}}).encode(),
    }


def write_student(parts: tuple[Path, Path], run: Path, paradigm: str, seed: int, sha256: str = SHA) -> None:
    torch.manual_seed(seed)
    model = build_pretrained(
        *parts,
        paradigm=paradigm,  # type: ignore[arg-type]
        prefix="mask" if paradigm == "multi" else "mask+prompt",
        finetune="mask-head",
        detach_prompt=False,
        max_tokens=25,
        visual_dim=trained_shards.WIDTH,
    ).eval()
    model.provenance = Provenance(sam=SamProvenance("tiny", sha256))
    model.save_pretrained(run)


def write_round(root: Path) -> Paths:
    """The finished round in ROOT/data, its students in ROOT/runs: multi, single, and foreign."""
    paths = paths_in(root)
    write_labelled(paths, ARTWORKS, SHARDS, EACH)
    for shard in range(SHARDS):
        tar = paths.step("features") / f"{shard_stem(shard)}.tar"
        rewrite(tar, lambda samples: [(key, features_of(key)) for key, _ in samples])
    index_labelled(paths)
    parts = trained_shards.backbones(root / "weights")
    write_student(parts, paths.runs / "multi", "multi", 1)
    write_student(parts, paths.runs / "single", "single", 2)
    write_student(parts, paths.runs / "foreign", "multi", 1, "b0" * 32)
    return paths


def rewrite(tar: Path, change: Callable[[list[Any]], list[Any]]) -> None:
    """Put a tar's samples through `change` and write them back, as its step would."""
    sidecar = read_sidecar(tar.parent, int(tar.stem)) or {}
    write_tar(tar, change(list(read_tar(tar))))
    vouch(tar.parent, int(tar.stem), recipe=sidecar["recipe"])


@pytest.fixture(scope="package")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Paths:
    """Read only."""
    return write_round(tmp_path_factory.mktemp("finished"))


def cards(paths: Paths) -> dict[str, dict[str, bytes]]:
    """Key -> members of the masks tars."""
    tars = sorted(paths.step("masks").glob("*.tar"))
    return {key: members for tar in tars for key, members in read_tar(tar)}
