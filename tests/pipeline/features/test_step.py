"""The feature tars: what they hold, and that nothing but their inputs changes them."""

import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
import webdataset
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from pipeline.backbones.clip import load_clip
from pipeline.backbones.params import BackbonesParams, ClipParams, SamParams
from pipeline.backbones.sam import load_sam
from pipeline.common import schema
from pipeline.common.arrays import parse_npy
from pipeline.common.errors import UserError
from pipeline.common.files import write_parquet
from pipeline.common.fingerprint import sha256_file
from pipeline.common.params import Paths, parse_section
from pipeline.common.schema import shard_stem
from pipeline.common.tables import read_artworks
from pipeline.common.tars import read_tar
from pipeline.features import size_estimate
from pipeline.features import step as features
from pipeline.features.encoders import quantise
from pipeline.features.params import FeaturesParams
from pipeline.features.size_estimate import bytes_per_artwork
from pipeline.features.step import build_features
from pipeline.parallel.map_shards import ParallelParams
from pipeline.releases.wikiart import read_image
from tests.worlds.backbones import write_backbones, write_world

SEQUENTIAL = ParallelParams()


@pytest.fixture(scope="module")
def backbones(tmp_path_factory: pytest.TempPathFactory) -> BackbonesParams:
    return write_backbones(tmp_path_factory.mktemp("weights"))


@pytest.fixture
def world(tmp_path: Path) -> Paths:
    return write_world(tmp_path)


@pytest.mark.parametrize("batch", [1, 4])
def test_members_are_the_encoders_outputs(world: Paths, backbones: BackbonesParams, batch: int) -> None:
    counts = build_features(world, FeaturesParams(batch=batch), backbones, SEQUENTIAL)
    assert (counts["kept"], counts["rejected"]) == (5, 0)
    sam = load_sam("tiny", backbones.sam.checkpoint, "cpu")
    clip = load_clip("tiny", backbones.clip.checkpoint, "cpu")
    for shard in (0, 1):
        found = list(read_tar(world.step("features") / f"{shard_stem(shard)}.tar"))
        works = read_artworks(world, shard)
        assert [key for key, _ in found] == [work["key"] for work in works]
        for (_, members), work in zip(found, works, strict=True):
            assert list(members) == ["sam.npy", "clip.npy", "json"]
            image = read_image(world.wikiart / work["path"])
            grid, tokens = parse_npy(members["sam.npy"]), parse_npy(members["clip.npy"])
            assert grid.dtype == tokens.dtype == np.float16
            assert grid.shape == (16, 8, 8) and tokens.shape == (16, 16)
            np.testing.assert_allclose(grid, sam.encode([image])[0].numpy(), atol=5e-3)
            np.testing.assert_allclose(tokens, clip.patch_tokens([image])[0].numpy(), atol=5e-3)
            card = json.loads(members["json"])
            assert (card["width"], card["height"]) == (work["width"], work["height"])
            assert tuple(card["sam"]["input_size"]) == sam.input_size(work["height"], work["width"])
            assert card["sam"]["sha256"] == sha256_file(backbones.sam.checkpoint)
            assert card["clip"]["sha256"] == sha256_file(backbones.clip.checkpoint)


def test_reruns_are_byte_identical_and_cost_nothing(world: Paths, backbones: BackbonesParams) -> None:
    build_features(world, FeaturesParams(), backbones, SEQUENTIAL)
    before = {p.name: p.read_bytes() for p in world.step("features").iterdir()}
    assert build_features(world, FeaturesParams(), backbones, SEQUENTIAL)["skipped"] == 2
    for file in world.step("features").iterdir():
        file.unlink()
    build_features(world, FeaturesParams(), backbones, SEQUENTIAL)
    assert {p.name: p.read_bytes() for p in world.step("features").iterdir()} == before


def test_a_broken_picture_redoes_its_shard_and_is_rejected(world: Paths, backbones: BackbonesParams) -> None:
    build_features(world, FeaturesParams(), backbones, SEQUENTIAL)
    (world.wikiart / "Drawn" / "ada_title-2.png").write_bytes(b"not a picture")
    counts = build_features(world, FeaturesParams(), backbones, SEQUENTIAL)
    assert (counts["done"], counts["skipped"]) == (1, 1)
    assert counts["reasons"] == {"not-an-image": 1} and counts["kept"] == 4
    keys = [key for key, _ in read_tar(world.step("features") / "000000.tar")]
    assert schema.artwork_key("Drawn", "ada_title-2") not in keys and len(keys) == 2


def test_speed_knobs_are_not_part_of_the_fingerprint(world: Paths, backbones: BackbonesParams) -> None:
    build_features(world, FeaturesParams(batch=1), backbones, SEQUENTIAL)
    assert build_features(world, FeaturesParams(batch=2), backbones, SEQUENTIAL)["skipped"] == 2


def test_what_changes_a_result_is(world: Paths, backbones: BackbonesParams) -> None:
    build_features(world, FeaturesParams(), backbones, SEQUENTIAL)
    assert build_features(world, FeaturesParams(compile=True), backbones, SEQUENTIAL)["skipped"] == 2
    changes = ({"sam_dtype": "int8"}, {"precision": "bf16"}, {"clip_normalisation": "imagenet"})
    for changed in (FeaturesParams(**change) for change in changes):
        assert build_features(world, changed, backbones, SEQUENTIAL)["done"] == 2
        assert build_features(world, changed, backbones, SEQUENTIAL)["skipped"] == 2
    rough = dataclasses.replace(backbones, clip=dataclasses.replace(backbones.clip, precision="bf16"))
    assert build_features(world, changed, rough, SEQUENTIAL)["done"] == 2


@pytest.mark.parametrize(
    ("left_out", "idle"),
    [
        ({"sam_dtype": "none"}, {"precision": "bf16"}),
        ({"clip_dtype": "none"}, {"clip_normalisation": "imagenet"}),
    ],
)
def test_settings_of_an_encoder_that_is_left_out_change_nothing(
    world: Paths, backbones: BackbonesParams, left_out: dict[str, Any], idle: dict[str, Any]
) -> None:
    build_features(world, FeaturesParams(**left_out), backbones, SEQUENTIAL)
    before = {p.name: p.read_bytes() for p in world.step("features").iterdir()}
    assert build_features(world, FeaturesParams(**left_out, **idle), backbones, SEQUENTIAL)["skipped"] == 2
    for file in world.step("features").iterdir():
        file.unlink()
    build_features(world, FeaturesParams(**left_out, **idle), backbones, SEQUENTIAL)
    assert {p.name: p.read_bytes() for p in world.step("features").iterdir()} == before


def test_clip_sees_pixels_normalised_as_asked(world: Paths, backbones: BackbonesParams) -> None:
    build_features(world, FeaturesParams(clip_normalisation="imagenet"), backbones, SEQUENTIAL)
    encoder = load_clip("tiny", backbones.clip.checkpoint, "cpu")
    found = list(read_tar(world.step("features") / "000000.tar"))
    for (_, members), work in zip(found, read_artworks(world, 0), strict=True):
        image = read_image(world.wikiart / work["path"])
        tokens = parse_npy(members["clip.npy"])
        by_imagenet = encoder.patch_tokens([image], "imagenet")[0].numpy()
        assert np.abs(by_imagenet - encoder.patch_tokens([image])[0].numpy()).max() > 0.05
        np.testing.assert_allclose(tokens, by_imagenet, atol=5e-3)
        assert json.loads(members["json"])["clip"]["normalisation"] == "imagenet"


def test_features_outlive_a_new_split_and_new_utterances(world: Paths, backbones: BackbonesParams) -> None:
    """Hours of encoding do not depend on what people said; the pictures of a shard do."""
    build_features(world, FeaturesParams(), backbones, SEQUENTIAL)
    folder = world.step("utterances")
    works = pq.read_table(folder / "artworks.parquet").to_pylist()
    for work in works:
        work["split"] = "test"
    write_parquet(folder / "artworks.parquet", pa.Table.from_pylist(works, schema.ARTWORKS))
    said = pq.read_table(folder / "utterances.parquet")
    write_parquet(folder / "utterances.parquet", said.slice(0, 1))
    assert build_features(world, FeaturesParams(), backbones, SEQUENTIAL)["skipped"] == 2


@given(
    arrays(
        np.float32,
        (2, 3, 4, 4),
        elements=st.floats(-(2.0**15), 2.0**15, width=32, allow_subnormal=False),
    )
)
def test_int8_is_off_by_half_a_scale_at_most(grids: np.ndarray) -> None:
    codes, scales = quantise(torch.from_numpy(grids))
    assert codes.dtype == torch.int8 and codes.abs().max() <= 127 and scales.shape == (2, 3)
    back = codes.double().numpy() * scales.double().numpy()[:, :, None, None]
    largest = np.abs(grids.astype(np.float64)).max(axis=(2, 3), keepdims=True)
    assert (np.abs(back - grids) <= 0.5001 * largest / 127).all()
    assert (codes.numpy()[np.abs(grids) == largest] == 127 * np.sign(grids[np.abs(grids) == largest])).all()


def test_int8_members_are_the_grid_to_half_a_scale(world: Paths, backbones: BackbonesParams) -> None:
    """Read as anyone would, with plain webdataset."""
    build_features(world, FeaturesParams(sam_dtype="int8", precision="bf16"), backbones, SEQUENTIAL)
    sam = load_sam("tiny", backbones.sam.checkpoint, "cpu", precision="bf16")
    paths = {work["key"]: work["path"] for shard in (0, 1) for work in read_artworks(world, shard)}
    tars = [str(path) for path in sorted(world.step("features").glob("*.tar"))]
    samples = list(webdataset.WebDataset(tars, shardshuffle=False).decode())
    assert len(samples) == 5
    for sample in samples:
        codes, scale = sample["sam.npy"], sample["sam_scale.npy"]
        assert (codes.dtype, scale.dtype, scale.shape) == (np.int8, np.float32, (16,))
        grid = sam.encode([read_image(world.wikiart / paths[sample["__key__"]])])[0].numpy()
        assert (np.abs(codes * scale[:, None, None] - grid) <= 0.501 * scale[:, None, None]).all()
        assert (sample["json"]["sam"]["dtype"], sample["json"]["sam"]["precision"]) == ("int8", "bf16")


@pytest.mark.parametrize("grid", ["sam", "clip"])
def test_a_grid_can_be_left_out_with_its_encoder(
    world: Paths, backbones: BackbonesParams, grid: str, tmp_path: Path
) -> None:
    params = FeaturesParams(**{f"{grid}_dtype": "none"})
    part = dataclasses.replace(getattr(backbones, grid), checkpoint=tmp_path / "absent.safetensors")
    without = dataclasses.replace(backbones, **{grid: part})
    assert build_features(world, params, without, SEQUENTIAL)["kept"] == 5
    other = {"sam": "clip", "clip": "sam"}[grid]
    for _, members in read_tar(world.step("features") / "000000.tar"):
        assert list(members) == [f"{other}.npy", "json"]
        assert grid not in json.loads(members["json"])


def test_both_grids_left_out_is_a_mistake() -> None:
    values = {"sam_dtype": "none", "clip_dtype": "none"}
    with pytest.raises(UserError, match="nothing to cache"):
        parse_section(values, "features", FeaturesParams, "params.yaml")


@pytest.mark.parametrize(
    "params",
    [
        FeaturesParams(),
        FeaturesParams(sam_dtype="int8"),
        FeaturesParams(sam_dtype="none"),
        FeaturesParams(clip_dtype="none"),
    ],
)
def test_bytes_are_known_before_they_are_written(
    world: Paths, backbones: BackbonesParams, params: FeaturesParams
) -> None:
    build_features(world, params, backbones, SEQUENTIAL)
    for shard in (0, 1):
        data = (world.step("features") / f"{shard_stem(shard)}.tar").read_bytes()
        members = bytes_per_artwork(params, backbones) * len(read_artworks(world, shard))
        assert not any(data[members:]) and any(data[members - 2 * 512 : members])  # then only the end mark
        assert len(data) == -(-(members + 2 * 512) // 10240) * 10240


def test_bytes_at_the_official_sizes() -> None:
    """By hand: blocks of 512 bytes, a header block for each member, 128 bytes before an array."""
    paper = BackbonesParams(sam=SamParams("vit_b", Path("x.pth")), clip=ClipParams("ViT-B-16", Path("x.bin")))
    sam, clip, card = 512 + 4097 * 512, 512 + 589 * 512, 512 + 512
    assert bytes_per_artwork(FeaturesParams(), paper) == sam + clip + card
    codes, scale = 512 + 2049 * 512, 512 + 3 * 512
    assert bytes_per_artwork(FeaturesParams(sam_dtype="int8"), paper) == codes + scale + clip + card
    unknown = dataclasses.replace(paper, clip=ClipParams("vit-of-dreams", Path("x.bin")))
    with pytest.raises(UserError, match="vit-of-dreams"):
        bytes_per_artwork(FeaturesParams(), unknown)


def test_bytes_and_time_are_told_first(
    world: Paths,
    backbones: BackbonesParams,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    each = bytes_per_artwork(FeaturesParams(), backbones)
    monkeypatch.setattr(features, "MEASURE_FROM", 2)
    monkeypatch.setattr(size_estimate, "free_bytes", lambda _: 5 * each - 1)
    with pytest.raises(UserError, match=rf"5 artworks take {each * 5 / 1000:.3g} kB.*int8"):
        build_features(world, FeaturesParams(), backbones, SEQUENTIAL)
    assert not list(world.step("features").glob("*.tar"))
    monkeypatch.setattr(size_estimate, "free_bytes", lambda _: 5 * each)
    build_features(world, FeaturesParams(), backbones, SEQUENTIAL)
    said = capsys.readouterr().err
    assert "features: 5 artworks" in said and "SAM float16 + CLIP float16" in said and "artworks/s" in said
    monkeypatch.setattr(size_estimate, "free_bytes", lambda _: 0)
    build_features(world, FeaturesParams(sam_dtype="int8"), backbones, SEQUENTIAL)  # in the old ones' place
