"""Step `shards`: what it writes, says and redoes."""

import io
import os
import random
import shutil
import tarfile
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from huggingface_hub import DatasetCard

from pipeline.common import schema
from pipeline.common.files import write_json
from pipeline.common.tars import read_tar, write_tar
from pipeline.reader.index import Index
from pipeline.reader.statistics import read_statistics
from pipeline.shards.join import cache_folder
from pipeline.shards.step import ShardsParams, build_shards
from tests.worlds import indexed_shards


def test_unchanged_shards_are_not_read_again(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    paths = indexed_shards.paths_in(tmp_path)
    indexed_shards.write_shards(paths)
    build_shards(paths, ShardsParams())
    first = {p.name: p.read_bytes() for p in paths.step("shards").iterdir()}
    tar = paths.step("masks") / "000001.tar"
    samples = list(read_tar(tar))
    shutil.rmtree(paths.step("shards"))  # as DVC does before it runs a stage again
    before = {path: path.stat().st_mtime_ns for path in cache_folder(paths).iterdir()}
    assert len(before) == 4  # two shards, each with its sidecar
    capsys.readouterr()
    build_shards(paths, ShardsParams())
    assert "2 shard(s) already done, 0 to do" in capsys.readouterr().err
    assert {p.name: p.read_bytes() for p in paths.step("shards").iterdir()} == first
    assert {path: path.stat().st_mtime_ns for path in cache_folder(paths).iterdir()} == before
    members = {name: data[::-1] if name == "awe.png" else data for name, data in samples[0][1].items()}
    write_tar(tar, [(samples[0][0], members), *samples[1:]])
    indexed_shards.vouch(tar.parent, 1)
    os.utime(tar, ns=(1, 1))  # another time, whatever the clock's grain
    build_shards(paths, ShardsParams())
    assert "1 shard(s) already done, 1 to do" in capsys.readouterr().err
    assert indexed_shards.verify(paths) == []
    shutil.rmtree(cache_folder(paths))
    again = {p.name: p.read_bytes() for p in paths.step("shards").iterdir()}
    build_shards(paths, ShardsParams())
    assert {p.name: p.read_bytes() for p in paths.step("shards").iterdir()} == again


def test_statistics_by_hand(indexed: Path) -> None:
    found = read_statistics(indexed / "data" / "shards")
    assert (found["artworks"], found["masks"], found["utterances"]) == (6, 12, 24)
    assert found["splits"]["train"] == {"artworks": 4, "masks": 8, "utterances": 16}
    assert found["emotions"]["awe"] == {"masks": 2, "utterances": 4, "train": 2, "mean_area": 0.1}
    assert found["styles"] == {"Drawn": 6}
    assert sum(found["mask_area"]["counts"]) == 12
    assert found["mask_area"]["counts"][2] == 12  # 0.1 opens the third of twenty bins
    assert found["rejects"] == {"utterances": {"unknown-emotion": 1}}
    for file in ("features", "masks"):
        assert found["bytes"][file] == sum(p.stat().st_size for p in (indexed / "data" / file).glob("*.tar"))


def test_a_rerun_writes_the_same_bytes(indexed: Path, tmp_path: Path) -> None:
    paths = indexed_shards.copy_of(indexed, tmp_path)
    before = {p.name: p.read_bytes() for p in paths.step("shards").iterdir()}
    shutil.rmtree(paths.step("shards"))
    build_shards(paths, ShardsParams())
    assert before == {p.name: p.read_bytes() for p in paths.step("shards").iterdir()}


def test_the_card_is_valid_croissant_and_its_records_can_be_read(indexed: Path) -> None:
    mlcroissant = pytest.importorskip("mlcroissant")
    dataset = mlcroissant.Dataset(jsonld=indexed / "data" / "shards" / "croissant.json")
    assert dataset.metadata.ctx.issues.errors == set()
    assert dataset.metadata.ctx.issues.warnings == set()
    rows = list(dataset.records("artworks"))
    assert {row["artworks/key"].decode() for row in rows} == set(indexed_shards.keys(6))
    masks = list(dataset.records("masks"))
    assert len(masks) == 12
    assert {row["masks/emotion"].decode() for row in masks} == {
        e for pair in indexed_shards.EMOTIONS_OF for e in pair
    }
    assert all(np.asarray(row["masks/image"]).shape == (16, 24) for row in masks)


def test_the_hub_card_declares_what_the_tars_hold(indexed: Path) -> None:
    card = DatasetCard.load(indexed / "data" / "shards" / "README.md")
    declared = {info["config_name"]: info["features"] for info in card.data.dataset_info}
    assert {c["config_name"]: c["data_files"] for c in card.data.configs} == {
        "features": "../features/*.tar",
        "masks": "../masks/*.tar",
    }
    for file, features in declared.items():
        names = {feature["name"] for feature in features} - {"__key__", "__url__"}
        with tarfile.open(indexed / "data" / file / "000000.tar") as tar:
            assert {info.name.partition(".")[2] for info in tar} <= names
    assert card.text.startswith("\n# emosem-shards\n") and "6 artworks, 12 pseudo emotion masks" in card.text


MARK = {"version": 1, "seed": 7, "artworks": 6}


@pytest.mark.parametrize(
    ("drawn", "name"),
    [((), "emosem-shards"), (("wikiart",), "emosem-shards"), (("artemis", "wikiart"), "emosem-gallery")],
)
def test_the_cards_say_what_is_drawn_and_claim_no_licence(
    indexed: Path, tmp_path: Path, drawn: tuple[str, ...], name: str
) -> None:
    """The gallery's words, its licence above all, are not those of anything else."""
    mlcroissant = pytest.importorskip("mlcroissant")
    paths = indexed_shards.copy_of(indexed, tmp_path)
    write_json(paths.step("utterances") / "drawn.json", dict.fromkeys(drawn, MARK))
    build_shards(paths, ShardsParams(name="emosem-gallery"))  # as in a params file of an older version
    card = mlcroissant.Dataset(jsonld=paths.step("shards") / "croissant.json").metadata
    assert card.ctx.issues.errors == set()
    for text in ((paths.step("shards") / "README.md").read_text(), card.description):
        assert ("drawn by emosem's built-in gallery" in text) == bool(drawn)
    assert card.name == name and ("CC0" in str(card.license)) == (name == "emosem-gallery")
    assert read_statistics(paths.step("shards"))["drawn"].keys() == set(drawn)
    own = ShardsParams(name="mine", license="https://spdx.org/licenses/CC-BY-4.0.html", description="Mine.")
    build_shards(paths, own)
    text = (paths.step("shards") / "README.md").read_text()
    assert "# mine" in text and "CC-BY-4.0" in text and "Mine." in text
    assert ("drawn by emosem's built-in gallery" in text) == bool(drawn)  # whatever the params say


def test_no_path_of_this_disk_is_in_what_is_published(indexed: Path) -> None:
    for file in (indexed / "data" / "shards").iterdir():
        assert str(indexed).encode() not in file.read_bytes(), file
        if file.suffix == ".parquet":
            assert str(indexed) not in str(pq.read_table(file).to_pylist()), file


def test_a_tar_of_another_writer_serves_as_well(tmp_path: Path) -> None:
    """Offsets come from the tar itself: PAX headers and other members' order do not confuse the index."""
    paths = indexed_shards.paths_in(tmp_path)
    indexed_shards.write_shards(paths)
    tar = paths.step("features") / "000000.tar"
    samples = list(read_tar(tar))
    with tarfile.open(tar, "w", format=tarfile.PAX_FORMAT) as out:
        for key, members in samples:
            for name, content in members.items():
                info = tarfile.TarInfo(f"{key}.{name}")
                info.size, info.mtime = len(content), random.Random(name).random()
                out.addfile(info, io.BytesIO(content))
    indexed_shards.vouch(tar.parent, 0)
    build_shards(paths, ShardsParams())
    index = Index.load(paths.step("shards"))
    assert index.read(samples[1][0], "clip.npy") == samples[1][1]["clip.npy"]
    assert indexed_shards.verify(paths) == []
    assert schema.INDEX.equals(index.table.schema)
