"""The similarity table against CLIP used plainly, one region and one sentence at a time."""

import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image

from pipeline.backbones.clip import Clip, load_clip
from pipeline.backbones.params import BackbonesParams
from pipeline.common import schema
from pipeline.common.errors import RunFailed, UserError
from pipeline.common.files import write_parquet
from pipeline.common.fingerprint import sha256_file
from pipeline.common.params import Paths
from pipeline.common.progress import ShardProgress
from pipeline.common.schema import SIMILARITY, shard_stem
from pipeline.common.tables import open_artworks, read_artworks, read_groups, read_regions
from pipeline.parallel.map_shards import ParallelParams
from pipeline.releases.wikiart import read_image
from pipeline.similarity.step import (
    SimilarityParams,
    _sentences,
    build_similarity,
    compare_shard,
    similarity_jobs,
)
from tests.worlds.backbones import write_backbones, write_world

SEQUENTIAL = ParallelParams()


@pytest.fixture(scope="module")
def backbones(tmp_path_factory: pytest.TempPathFactory) -> BackbonesParams:
    return write_backbones(tmp_path_factory.mktemp("weights"))


@pytest.fixture
def world(tmp_path: Path) -> Paths:
    return write_world(tmp_path)


def rows(paths: Paths) -> list[dict]:
    files = sorted(paths.step("similarity").glob("*.parquet"))
    return [row for file in files for row in pq.read_table(file).to_pylist()]


@pytest.mark.parametrize("how", ["average", "concatenate"])
def test_scores_are_cosines(world: Paths, backbones: BackbonesParams, how: str) -> None:
    params = SimilarityParams(utterances=how, batch=3)  # type: ignore[arg-type]
    counts = build_similarity(world, params, backbones, SEQUENTIAL)
    assert (counts["kept"], counts["rejected"]) == (5, 0)
    clip = load_clip("tiny", backbones.clip.checkpoint, "cpu")
    found = rows(world)
    assert {row["emotion"] for row in found} == {"awe", "fear"}
    assert len(found) == 8  # two emotions of four artworks; the fifth has "something else" alone
    for shard in (0, 1):
        works = {work["key"]: work for work in read_artworks(world, shard)}
        regions, groups = read_regions(world, shard), read_groups(world, shard)
        for row in found:
            if row["key"] not in works:
                continue
            image = read_image(world.wikiart / works[row["key"]]["path"])
            said = groups[row["key"], row["emotion"]]
            assert row["artemis_ids"] == said["artemis_id"]
            texts = said["utterance"] if how == "average" else [" ".join(said["utterance"])]
            expected = []
            for box in regions[row["key"]][0]:
                region = clip.encode_crops(image, box[None], "squash")[0]
                cosines = [
                    torch.cosine_similarity(region, clip.encode_text([text])[0], dim=0) for text in texts
                ]
                expected.append(float(torch.stack(cosines).mean()))
            np.testing.assert_allclose(row["scores"], expected, atol=2e-6)


def test_tables_are_sorted_typed_and_say_where_they_come_from(
    world: Paths, backbones: BackbonesParams
) -> None:
    build_similarity(world, SimilarityParams(), backbones, SEQUENTIAL)
    table = pq.read_table(world.step("similarity") / "000000.parquet")
    assert table.schema.equals(SIMILARITY)
    lineage = json.loads(table.schema.metadata[b"lineage"])
    sha256 = sha256_file(backbones.clip.checkpoint)
    assert lineage["clip"] == {"name": "tiny", "sha256": sha256, "precision": "float32"}
    pairs = list(zip(table["key"].to_pylist(), table["emotion"].to_pylist(), strict=True))
    assert pairs == sorted(pairs)  # "awe" before "fear" is both EMOTIONS' order and the alphabet's


def test_reruns_are_byte_identical_and_cost_nothing(world: Paths, backbones: BackbonesParams) -> None:
    build_similarity(world, SimilarityParams(), backbones, SEQUENTIAL)
    before = {p.name: p.read_bytes() for p in world.step("similarity").iterdir()}
    assert build_similarity(world, SimilarityParams(), backbones, SEQUENTIAL)["skipped"] == 2
    (world.step("similarity") / "000001.json").unlink()
    counts = build_similarity(world, SimilarityParams(), backbones, SEQUENTIAL)
    assert (counts["done"], counts["skipped"]) == (1, 1)
    assert {p.name: p.read_bytes() for p in world.step("similarity").iterdir()} == before


def test_broken_pictures_and_missing_regions_are_rejected(world: Paths, backbones: BackbonesParams) -> None:
    (world.wikiart / "Drawn" / "ada_title-0.png").write_bytes(b"")
    file = world.step("regions") / f"{shard_stem(1)}.parquet"
    gone = schema.artwork_key("Drawn", "ada_title-3")
    table = pq.read_table(file)
    keep = [key != gone for key in table["key"].to_pylist()]
    write_parquet(file, table.filter(keep))
    counts = build_similarity(world, SimilarityParams(), backbones, SEQUENTIAL)
    assert counts["reasons"] == {"empty": 1, "no-regions": 1}
    assert counts["kept"] == 3
    assert len({row["key"] for row in rows(world)}) == 2


def test_truncated_texts_are_counted_over_all_runs(world: Paths, backbones: BackbonesParams) -> None:
    """The counts are the shards' own, so a run that had nothing to do tells the same."""
    model = load_clip("tiny", backbones.clip.checkpoint, "cpu")
    distinct, longer, crops = 0, 0, 0
    for shard in (0, 1):
        groups = read_groups(world, shard).values()
        texts = {" ".join(group["utterance"]) for group in groups}
        distinct += len(texts)
        tokens = model.tokenizer(sorted(texts), context_length=99)
        longer += int((tokens.count_nonzero(1) > 12).sum())
        crops += sum(len(boxes) for boxes, _ in read_regions(world, shard).values())
    assert 0 < longer < distinct
    params = SimilarityParams(utterances="concatenate")
    first = build_similarity(world, params, backbones, SEQUENTIAL)
    assert first["counts"] == {"crops": crops, "texts": distinct, "texts_truncated": longer}
    (world.step("similarity") / "000001.json").unlink()
    again = build_similarity(world, params, backbones, SEQUENTIAL)
    assert (again["done"], again["counts"]) == (1, first["counts"])


def test_utterances_are_joined_in_the_order_of_the_csv(world: Paths) -> None:
    file = world.step("utterances") / "utterances.parquet"
    table = pq.read_table(file)
    write_parquet(file, table.take(list(range(table.num_rows))[::-1]))
    said: dict[tuple[str, str], list[str]] = {}
    for row in table.sort_by("artemis_id").to_pylist():
        said.setdefault((row["key"], row["emotion"]), []).append(row["utterance"])
    for shard in (0, 1):
        for pair, group in read_groups(world, shard).items():
            assert group["utterance"] == said[pair]
            assert _sentences({pair: group}, "concatenate") == {pair: [" ".join(said[pair])]}


def test_batches_are_full_and_each_text_is_encoded_once(
    world: Paths, backbones: BackbonesParams, monkeypatch: pytest.MonkeyPatch
) -> None:
    sizes: list[int] = []
    texts: list[str] = []
    encode_pixels, encode_text = Clip.encode_pixels, Clip.encode_text

    def see_pixels(self: Clip, pixels: torch.Tensor) -> torch.Tensor:
        sizes.append(len(pixels))
        return encode_pixels(self, pixels)

    def see_text(self: Clip, some: list[str]) -> torch.Tensor:
        texts.extend(some)
        return encode_text(self, some)

    monkeypatch.setattr(Clip, "encode_pixels", see_pixels)
    monkeypatch.setattr(Clip, "encode_text", see_text)
    params = SimilarityParams(batch=7)
    compare_shard(0, ShardProgress(), world, params, backbones)
    crops = sum(len(boxes) for boxes, _ in read_regions(world, 0).values())
    assert sizes == [7] * (crops // 7) + [crops % 7] * (crops % 7 > 0)
    groups = read_groups(world, 0).values()
    assert sorted(texts) == sorted({text for group in groups for text in group["utterance"]})


def test_batch_size_changes_float_noise_alone(world: Paths, backbones: BackbonesParams) -> None:
    tables_found = []
    for batch in (1, 5, 1000):
        compare_shard(0, ShardProgress(), world, SimilarityParams(batch=batch), backbones)
        tables_found.append(pq.read_table(world.step("similarity") / "000000.parquet").to_pylist())
    for found in tables_found[1:]:
        for row, expected in zip(found, tables_found[0], strict=True):
            np.testing.assert_allclose(row.pop("scores"), expected["scores"], atol=2e-6)
            assert row == {key: value for key, value in expected.items() if key != "scores"}


def test_pooled_regions_are_cosines_too(world: Paths, backbones: BackbonesParams) -> None:
    build_similarity(world, SimilarityParams(regions="pool", batch=2), backbones, SEQUENTIAL)
    model = load_clip("tiny", backbones.clip.checkpoint, "cpu")
    works = {work["key"]: work for shard in (0, 1) for work in read_artworks(world, shard)}
    boxes = read_regions(world, 0) | read_regions(world, 1)
    groups = read_groups(world, 0) | read_groups(world, 1)
    assert len(rows(world)) == 8
    for row in rows(world):
        image = read_image(world.wikiart / works[row["key"]]["path"])
        regions = model.pool_regions([image], [boxes[row["key"]][0]])[0]
        texts = model.encode_text(groups[row["key"], row["emotion"]]["utterance"])
        np.testing.assert_allclose(row["scores"], (regions @ texts.T).mean(1), atol=2e-6)


def test_what_changes_a_score_redoes_the_shards(world: Paths, backbones: BackbonesParams) -> None:
    rough = dataclasses.replace(backbones, clip=dataclasses.replace(backbones.clip, precision="bf16"))
    settings = [
        (SimilarityParams(), backbones),
        (SimilarityParams(fit="center"), backbones),
        (SimilarityParams(regions="pool"), backbones),
        (SimilarityParams(), rough),
    ]
    for params, weights in settings:
        assert build_similarity(world, params, weights, SEQUENTIAL)["done"] == 2
        assert build_similarity(world, params, weights, SEQUENTIAL)["skipped"] == 2
    assert build_similarity(world, SimilarityParams(batch=3), rough, SEQUENTIAL)["skipped"] == 2


def rewrite(file: Path, kind: pa.Schema, **changed: Any) -> None:
    """A table again, with other values in some columns of its first row."""
    found = pq.read_table(file).to_pylist()
    found[0] |= changed
    write_parquet(file, pa.Table.from_pylist(found, kind))


def test_only_what_clip_looks_at_costs_its_time(world: Paths, backbones: BackbonesParams) -> None:
    """SAM's masks of the boxes, names and scores come and go, and so does the split: CLIP sees none of it."""
    params = SimilarityParams()
    build_similarity(world, params, backbones, SEQUENTIAL)
    before = {p.name: p.read_bytes() for p in world.step("similarity").iterdir()}
    file = world.step("regions") / f"{shard_stem(1)}.parquet"
    boxes = pq.read_table(file)["boxes"][0].as_py()
    new = {"masks": ["{}"] * len(boxes), "labels": ["cat"] * len(boxes), "scores": [0.1] * len(boxes)}
    rewrite(file, schema.REGIONS, **new)
    table = pq.read_table(file)
    pq.write_table(table, file, compression="none", row_group_size=1, use_dictionary=False)
    folder = world.step("utterances")
    rewrite(folder / "artworks.parquet", schema.ARTWORKS, split="test")
    rewrite(folder / "utterances.parquet", schema.UTTERANCES, split="test", repetition=9)
    assert build_similarity(world, params, backbones, SEQUENTIAL)["skipped"] == 2
    for shard in (0, 1):
        compare_shard(shard, ShardProgress(), world, params, backbones)
    assert {p.name: p.read_bytes() for p in world.step("similarity").iterdir()} == before

    today = similarity_jobs(open_artworks(world), world, params, backbones)
    assert similarity_jobs(open_artworks(world), world, params, backbones, shards={1}) == {1: today[1]}
    boxes[-1][2] += 1.0
    rewrite(file, schema.REGIONS, boxes=boxes)
    moved = similarity_jobs(open_artworks(world), world, params, backbones)
    assert moved[0] == today[0] and moved[1] != today[1]
    counts = build_similarity(world, params, backbones, SEQUENTIAL)
    assert (counts["done"], counts["skipped"]) == (1, 1)


def test_a_damaged_table_of_regions_fails_its_shard_alone(world: Paths, backbones: BackbonesParams) -> None:
    file = world.step("regions") / f"{shard_stem(0)}.parquet"
    whole = file.read_bytes()
    file.write_bytes(whole[:100] + bytes(len(whole) - 100))
    with pytest.raises(RunFailed):
        build_similarity(world, SimilarityParams(), backbones, SEQUENTIAL)
    file.write_bytes(whole)
    counts = build_similarity(world, SimilarityParams(), backbones, SEQUENTIAL)
    assert (counts["done"], counts["skipped"]) == (1, 1)


def test_hostile_texts_boxes_and_pictures(world: Paths, backbones: BackbonesParams) -> None:
    """10 MB utterances, control characters, emoji, a picture of one pixel, boxes without a pixel."""
    folder = world.step("utterances")
    hostile = ["awe " * 2_500_000, "\x00\x1b\u202e", "\U0001f642" * 9, "", "x" * 10_000_000]
    said = pq.read_table(folder / "utterances.parquet").to_pylist()
    for row, text in zip(said, hostile, strict=False):
        row["utterance"] = text
    write_parquet(folder / "utterances.parquet", pa.Table.from_pylist(said, schema.UTTERANCES))
    works = pq.read_table(folder / "artworks.parquet").to_pylist()
    Image.new("RGB", (1, 1), "red").save(world.wikiart / works[0]["path"])
    works[0] |= {"width": 1, "height": 1}
    write_parquet(folder / "artworks.parquet", pa.Table.from_pylist(works, schema.ARTWORKS))
    for shard in (0, 1):
        file = world.step("regions") / f"{shard_stem(shard)}.parquet"
        regions = pq.read_table(file).to_pylist()
        for row in regions:
            row["boxes"][:3] = [[0.4, 0.4, 0.45, 0.45], [-9.0, -9.0, -8.0, -8.0], [3.0, 0.0, 3.0, 99.0]]
        write_parquet(file, pa.Table.from_pylist(regions, schema.REGIONS))
    counts = build_similarity(world, SimilarityParams(), backbones, SEQUENTIAL)
    assert (counts["kept"], counts["rejected"]) == (5, 0)
    assert counts["counts"]["texts_truncated"] >= 2
    for row in rows(world):
        assert np.isfinite(row["scores"]).all()
        assert np.abs(row["scores"]).max() <= 1.0 + 1e-6


def test_memory_stays_flat_over_many_shards(world: Paths, backbones: BackbonesParams) -> None:
    process = psutil.Process()
    seen = []
    for turn in range(40):
        compare_shard(turn % 2, ShardProgress(), world, SimilarityParams(batch=8), backbones)
        seen.append(process.memory_info().rss)
    assert seen[-1] - seen[10] < 16 * 2**20


def test_mistakes_of_the_user(world: Paths, backbones: BackbonesParams, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="run the regions step first"):
        (world.step("regions") / "000000.parquet").unlink()
        build_similarity(world, SimilarityParams(), backbones, SEQUENTIAL)
    with pytest.raises(UserError, match="run the utterances step first"):
        build_similarity(Paths(data=tmp_path / "no"), SimilarityParams(), backbones, SEQUENTIAL)
