"""The similarity table against CLIP used plainly, one region and one sentence at a time."""

import json
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch

from pipeline import schema, similarity, storage, tables
from pipeline.artworks import read_image
from pipeline.backbones import BackbonesParams
from pipeline.backbones.clip import load_clip
from pipeline.parallel import ParallelParams
from pipeline.params import Paths, UserError
from pipeline.schema import SIMILARITY, shard_stem
from pipeline.similarity import SimilarityParams
from tests.encoders import write_backbones, write_world

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
    counts = similarity.build(world, params, backbones, SEQUENTIAL)
    assert (counts["kept"], counts["rejected"]) == (5, 0)
    clip = load_clip("tiny", backbones.clip.checkpoint, "cpu")
    found = rows(world)
    assert {row["emotion"] for row in found} == {"awe", "fear"}
    assert len(found) == 8  # two emotions of four artworks; the fifth has "something else" alone
    for shard in (0, 1):
        works = {work["key"]: work for work in tables.read_artworks(world, shard)}
        regions, groups = tables.read_regions(world, shard), tables.read_groups(world, shard)
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
    similarity.build(world, SimilarityParams(), backbones, SEQUENTIAL)
    table = pq.read_table(world.step("similarity") / "000000.parquet")
    assert table.schema.equals(SIMILARITY)
    lineage = json.loads(table.schema.metadata[b"lineage"])
    assert lineage["clip"] == {"name": "tiny", "sha256": storage.sha256_file(backbones.clip.checkpoint)}
    pairs = list(zip(table["key"].to_pylist(), table["emotion"].to_pylist(), strict=True))
    assert pairs == sorted(pairs)  # "awe" before "fear" is both EMOTIONS' order and the alphabet's


def test_reruns_are_byte_identical_and_cost_nothing(world: Paths, backbones: BackbonesParams) -> None:
    similarity.build(world, SimilarityParams(), backbones, SEQUENTIAL)
    before = {p.name: p.read_bytes() for p in world.step("similarity").iterdir()}
    assert similarity.build(world, SimilarityParams(), backbones, SEQUENTIAL)["skipped"] == 2
    (world.step("similarity") / "000001.json").unlink()
    counts = similarity.build(world, SimilarityParams(), backbones, SEQUENTIAL)
    assert (counts["done"], counts["skipped"]) == (1, 1)
    assert {p.name: p.read_bytes() for p in world.step("similarity").iterdir()} == before


def test_broken_pictures_and_missing_regions_are_rejected(world: Paths, backbones: BackbonesParams) -> None:
    (world.wikiart / "Drawn" / "ada_title-0.png").write_bytes(b"")
    file = world.step("regions") / f"{shard_stem(1)}.parquet"
    gone = schema.artwork_key("Drawn", "ada_title-3")
    table = pq.read_table(file)
    keep = [key != gone for key in table["key"].to_pylist()]
    storage.write_parquet(file, table.filter(keep))
    counts = similarity.build(world, SimilarityParams(), backbones, SEQUENTIAL)
    assert counts["reasons"] == {"empty": 1, "no-regions": 1}
    assert counts["kept"] == 3
    assert len({row["key"] for row in rows(world)}) == 2


def test_long_texts_are_announced(
    world: Paths, backbones: BackbonesParams, capsys: pytest.CaptureFixture[str]
) -> None:
    similarity.build(world, SimilarityParams(utterances="concatenate"), backbones, SEQUENTIAL)
    assert "longer than CLIP's 12 tokens" in capsys.readouterr().err


def test_mistakes_of_the_user(world: Paths, backbones: BackbonesParams, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="run the regions step first"):
        (world.step("regions") / "000000.parquet").unlink()
        similarity.build(world, SimilarityParams(), backbones, SEQUENTIAL)
    with pytest.raises(UserError, match="run the utterances step first"):
        similarity.build(Paths(data=tmp_path / "no"), SimilarityParams(), backbones, SEQUENTIAL)
