"""What is read of an artwork is what was indexed, and it is numbers: garbage is named, never learnt from."""

import hashlib
import io
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import torch

from model.baselines.wesd_training import read_cells
from model.data.cached_features import is_finite, read_cached_features, read_features
from model.data.frame import Frame
from model.data.resident_features import ResidentFeatures
from model.data.samples import Samples
from model.emosem.pretrained import load_tokenizer
from model.train.params import TrainParams
from model.train.train import initial_model
from pipeline.common.errors import UserError
from pipeline.common.files import write_parquet
from pipeline.common.params import Paths
from pipeline.common.schema import INDEX
from pipeline.common.tars import list_members, npy_bytes, read_tar, write_tar
from pipeline.reader.index import Index
from tests.worlds import trained_shards

KEYS = [f"{number:016x}" for number in range(4)]


@pytest.fixture(scope="module")
def parts(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    return trained_shards.backbones(tmp_path_factory.mktemp("weights"))


@pytest.fixture
def paths(tmp_path: Path) -> Paths:
    return trained_shards.shards(tmp_path, {"train": 4})


def swap(paths: Paths, step: str, name: str) -> None:
    """Exchange a member's bytes of the first two artworks: the tar stays whole and every header right."""
    tar = paths.step(step) / "000000.tar"
    a, b = (next(m for m in list_members(tar) if (m.key, m.name) == (key, name)) for key in KEYS[:2])
    assert a.size == b.size
    data = tar.read_bytes()
    with tar.open("r+b") as file:
        for to, of in ((a, b), (b, a)):
            file.seek(to.offset)
            file.write(data[of.offset : of.offset + of.size])


def change(paths: Paths, name: str, key: str, new: Callable[[np.ndarray], np.ndarray]) -> None:
    """Other features of an artwork, indexed as they are."""
    tar = paths.step("features") / "000000.tar"
    content = list(read_tar(tar))
    for found, files in content:
        if found == key:
            files[name] = npy_bytes(new(np.load(io.BytesIO(files[name]))))
    write_tar(tar, content)
    rows = Index.load(paths.step("shards")).table.to_pylist()
    for row in rows:
        others = [m for m in row["members"] if m["file"] == "masks"]
        mine = [m._asdict() for m in list_members(tar) if m.key == row["key"]]
        row["members"] = [{"file": "features", **m} for m in mine] + others
        digest = hashlib.sha256()
        for member in row["members"]:
            data = (paths.step(member["file"]) / "000000.tar").read_bytes()
            digest.update(data[member["offset"] :][: member["size"]])
        row["sha256"] = digest.hexdigest()
        for member in row["members"]:
            member.pop("key", None)
    write_parquet(paths.step("shards") / "index.parquet", pa.Table.from_pylist(rows, schema=INDEX))


def samples(paths: Paths, parts: tuple[Path, Path]) -> Samples:
    index, tokenizer = Index.load(paths.step("shards")), load_tokenizer(parts[1])
    return Samples(index, "train", tokenizer, Frame(image_size=32, side=32), max_tokens=20)


@pytest.mark.parametrize("name", ["sam.npy", "clip.npy"])
def test_features_of_another_artwork_are_refused(paths: Paths, parts: tuple[Path, Path], name: str) -> None:
    swap(paths, "features", name)
    expected = rf"artwork ({KEYS[0]}|{KEYS[1]}).*features/000000\.tar.*not what was indexed.*--verify"
    found = samples(paths, parts)
    with pytest.raises(UserError, match=expected):
        found[list(range(len(found)))]
    with pytest.raises(UserError, match=expected):
        ResidentFeatures.load(samples(paths, parts), torch.device("cpu"))
    with pytest.raises(UserError, match=expected):
        read_cells(Index.load(paths.step("shards")), KEYS[0])
    read_features(Index.load(paths.step("shards")), KEYS[2])


def test_words_and_masks_that_were_made_anew_are_refused(paths: Paths, parts: tuple[Path, Path]) -> None:
    tar = paths.step("masks") / "000000.tar"
    content = list(read_tar(tar))
    picture = next(name for name in content[0][1] if name.endswith(".png"))
    content[0][1][picture] = content[0][1][picture][:-1] + b"\0"
    write_tar(tar, content)
    found = samples(paths, parts)
    with pytest.raises(UserError, match=rf"artwork {KEYS[0]}.*masks/000000\.tar.*run the shards step"):
        found[[0]]


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("name", ["sam.npy", "clip.npy"])
def test_a_grid_that_is_not_numbers_is_refused(
    paths: Paths, parts: tuple[Path, Path], name: str, value: float
) -> None:
    def spoil(grid: np.ndarray) -> np.ndarray:
        grid.reshape(-1)[7] = value
        return grid

    change(paths, name, KEYS[2], spoil)
    found = samples(paths, parts)
    expected = (
        rf"artwork {KEYS[2]} in .*features/000000\.tar has features with a NaN.*features and shards steps"
    )
    with pytest.raises(UserError, match=expected):
        found[list(range(len(found)))]


def test_a_scale_that_is_not_numbers_is_refused(tmp_path: Path) -> None:
    paths = trained_shards.shards(tmp_path, {"train": 4}, sam_dtype="int8")
    change(paths, "sam_scale.npy", KEYS[1], lambda scale: scale * np.float32("nan"))
    index = Index.load(paths.step("shards"))
    read_features(index, KEYS[0])
    with pytest.raises(UserError, match=rf"artwork {KEYS[1]}.*a NaN"):
        read_features(index, KEYS[1])


def test_finite_is_what_numpy_says_of_every_float16() -> None:
    for pattern in range(2**16):
        value = np.array([pattern], dtype=np.uint16).view(np.float16)
        assert is_finite(value) == np.isfinite(value[0])


def test_grids_of_other_shapes_are_named(paths: Paths, parts: tuple[Path, Path]) -> None:
    change(paths, "clip.npy", KEYS[1], lambda clip: clip[:9])
    index = Index.load(paths.step("shards"))
    with pytest.raises(UserError, match=rf"{KEYS[0]} and {KEYS[1]}.*\(16, 32\) and \(9, 32\) of CLIP"):
        read_cached_features(index, KEYS)
    change(paths, "sam.npy", KEYS[0], lambda sam: sam[None])
    with pytest.raises(UserError, match=rf"{KEYS[0]}.*has features of the shapes"):
        read_features(Index.load(paths.step("shards")), KEYS[0])


def test_features_of_another_sam_do_not_reach_the_model(paths: Paths, parts: tuple[Path, Path]) -> None:
    change(paths, "sam.npy", KEYS[0], lambda sam: sam[:, :4, :4])
    index = Index.load(paths.step("shards"))
    with pytest.raises(UserError, match=r"another SAM's.*\(32, 4, 4\).*gives \(32, 8, 8\)"):
        initial_model(index, TrainParams(max_tokens=20), *parts)
