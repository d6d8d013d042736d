"""The feature tars: what they hold, and that nothing but their inputs changes them."""

import json
from pathlib import Path

import numpy as np
import pytest

from pipeline import features, schema, storage, tables
from pipeline.artworks import read_image
from pipeline.backbones import BackbonesParams
from pipeline.backbones.clip import load_clip
from pipeline.backbones.sam import load_sam
from pipeline.features import FeaturesParams
from pipeline.parallel import ParallelParams
from pipeline.params import Paths
from pipeline.schema import shard_stem
from tests.encoders import write_backbones, write_world

SEQUENTIAL = ParallelParams()


@pytest.fixture(scope="module")
def backbones(tmp_path_factory: pytest.TempPathFactory) -> BackbonesParams:
    return write_backbones(tmp_path_factory.mktemp("weights"))


@pytest.fixture
def world(tmp_path: Path) -> Paths:
    return write_world(tmp_path)


@pytest.mark.parametrize("batch", [1, 4])
def test_members_are_the_encoders_outputs(world: Paths, backbones: BackbonesParams, batch: int) -> None:
    counts = features.build(world, FeaturesParams(batch=batch), backbones, SEQUENTIAL)
    assert (counts["kept"], counts["rejected"]) == (5, 0)
    sam = load_sam("tiny", backbones.sam.checkpoint, "cpu")
    clip = load_clip("tiny", backbones.clip.checkpoint, "cpu")
    for shard in (0, 1):
        found = list(storage.read_tar(world.step("features") / f"{shard_stem(shard)}.tar"))
        works = tables.read_artworks(world, shard)
        assert [key for key, _ in found] == [work["key"] for work in works]
        for (_, members), work in zip(found, works, strict=True):
            assert list(members) == ["sam.npy", "clip.npy", "json"]
            image = read_image(world.wikiart / work["path"])
            grid, tokens = storage.load_npy(members["sam.npy"]), storage.load_npy(members["clip.npy"])
            assert grid.dtype == tokens.dtype == np.float16
            assert grid.shape == (16, 8, 8) and tokens.shape == (16, 16)
            np.testing.assert_allclose(grid, sam.encode([image])[0].numpy(), atol=5e-3)
            np.testing.assert_allclose(tokens, clip.patch_tokens([image])[0].numpy(), atol=5e-3)
            card = json.loads(members["json"])
            assert (card["width"], card["height"]) == (work["width"], work["height"])
            assert tuple(card["sam"]["input_size"]) == sam.input_size(work["height"], work["width"])
            assert card["sam"]["sha256"] == storage.sha256_file(backbones.sam.checkpoint)
            assert card["clip"]["sha256"] == storage.sha256_file(backbones.clip.checkpoint)


def test_reruns_are_byte_identical_and_cost_nothing(world: Paths, backbones: BackbonesParams) -> None:
    features.build(world, FeaturesParams(), backbones, SEQUENTIAL)
    before = {p.name: p.read_bytes() for p in world.step("features").iterdir()}
    assert features.build(world, FeaturesParams(), backbones, SEQUENTIAL)["skipped"] == 2
    for file in world.step("features").iterdir():
        file.unlink()
    features.build(world, FeaturesParams(), backbones, SEQUENTIAL)
    assert {p.name: p.read_bytes() for p in world.step("features").iterdir()} == before


def test_a_broken_picture_redoes_its_shard_and_is_rejected(world: Paths, backbones: BackbonesParams) -> None:
    features.build(world, FeaturesParams(), backbones, SEQUENTIAL)
    (world.wikiart / "Drawn" / "ada_title-2.png").write_bytes(b"not a picture")
    counts = features.build(world, FeaturesParams(), backbones, SEQUENTIAL)
    assert (counts["done"], counts["skipped"]) == (1, 1)
    assert counts["reasons"] == {"not-an-image": 1} and counts["kept"] == 4
    keys = [key for key, _ in storage.read_tar(world.step("features") / "000000.tar")]
    assert schema.artwork_key("Drawn", "ada_title-2") not in keys and len(keys) == 2


def test_speed_knobs_are_not_part_of_the_fingerprint(world: Paths, backbones: BackbonesParams) -> None:
    features.build(world, FeaturesParams(batch=1), backbones, SEQUENTIAL)
    assert features.build(world, FeaturesParams(batch=2), backbones, SEQUENTIAL)["skipped"] == 2
