"""The index: the same bytes as a tar reader gives, and both sets of tars as other libraries read them."""

import io
import json
import tarfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import webdataset
from PIL import Image

from pipeline.common.arrays import parse_npy
from pipeline.common.emotions import EMOTIONS
from pipeline.reader.index import Index
from tests.worlds import indexed_shards


def test_index_gives_the_bytes_that_tarfile_gives(indexed: Path) -> None:
    index = Index.load(indexed / "data" / "shards")
    seen = 0
    for file in ("features", "masks"):
        for path in (indexed / "data" / file).glob("*.tar"):
            with tarfile.open(path) as tar:
                for info in tar:
                    key, _, name = info.name.partition(".")
                    assert index.read(key, f"{file}/{name}") == tar.extractfile(info).read()
                    seen += 1
    assert seen == sum(len(index.members(key)) for key in indexed_shards.keys(6)) == 6 * (3 + 3)


def test_threads_read_at_once(indexed: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Index, "MAX_OPEN", 1)  # so that threads close each other's maps all the time
    index = Index.load(indexed / "data" / "shards")
    asked = [(key, name) for key in indexed_shards.keys(6) for name in index.members(key)] * 40
    expected = [index.read(*member) for member in asked]
    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(lambda member: index.read(*member), asked)) == expected


def test_views_outlive_the_maps_that_are_let_go(indexed: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Index, "MAX_OPEN", 1)
    index = Index.load(indexed / "data" / "shards")
    views = {key: index.view(key, "clip.npy") for key in indexed_shards.keys(6)}
    for number, key in enumerate(indexed_shards.keys(6)):
        assert bytes(views[key]) == indexed_shards.feature_sample(key, number)["clip.npy"]


def test_rows_by_split(indexed: Path) -> None:
    index = Index.load(indexed / "data" / "shards")
    number = {key: n for n, key in enumerate(indexed_shards.keys(6))}
    assert len(index) == len(index.rows()) == 6
    assert sorted(number[row.key] for row in index.rows("train")) == [0, 1, 4, 5]
    row = index.row(indexed_shards.keys(6)[2])
    assert (row.split, row.shard, row.emotions, row.utterance_counts) == (
        "val",
        0,
        ("amusement", "disgust"),
        (2, 2),
    )
    assert index.rows("rest") == []


def test_unknown_names_are_explained(indexed: Path) -> None:
    index = Index.load(indexed / "data" / "shards")
    key = indexed_shards.keys(6)[0]
    with pytest.raises(KeyError, match=r"features/json' or 'masks/json"):
        index.read(key, "json")
    with pytest.raises(KeyError, match=r"awe.png"):
        index.read(key, "anger.png")
    with pytest.raises(KeyError, match="nosuchkey"):
        index.read("nosuchkey", "sam.npy")


def test_plain_webdataset_reads_both_sets(indexed: Path) -> None:
    samples = {}
    for file in ("features", "masks"):
        urls = [str(path) for path in sorted((indexed / "data" / file).glob("*.tar"))]
        samples[file] = list(webdataset.WebDataset(urls, shardshuffle=False).decode())
    assert [s["__key__"] for s in samples["features"]] == [s["__key__"] for s in samples["masks"]]
    assert samples["features"][0]["sam.npy"].shape == (8, 4, 4)
    assert "emotions" in samples["masks"][0]["json"]


@pytest.mark.parametrize("streaming", [True, False])
def test_datasets_reads_both_sets_as_they_are(indexed: Path, tmp_path: Path, streaming: bool) -> None:
    datasets = pytest.importorskip("datasets")
    samples = {}
    for file in ("features", "masks"):
        dataset = datasets.load_dataset(
            str(indexed / "data" / "shards"),
            file,
            split="train",
            streaming=streaming,
            cache_dir=str(tmp_path),
        )
        samples[file] = {sample["__key__"]: sample for sample in dataset}
    for number, key in enumerate(indexed_shards.keys(6)):
        grids, masks = samples["features"][key], samples["masks"][key]
        members = indexed_shards.feature_sample(key, number)
        for name in ("sam.npy", "clip.npy"):
            np.testing.assert_array_equal(np.asarray(grids[name], np.float16), parse_npy(members[name]))
        assert grids["json"] == json.loads(members["json"])
        for emotion in EMOTIONS:
            picture = masks[f"{emotion}.png"]
            assert (picture is not None) == (emotion in masks["json"]["emotions"])
            if picture is not None:
                png = indexed_shards.mask_sample(key, number)[f"{emotion}.png"]
                np.testing.assert_array_equal(np.asarray(picture), np.asarray(Image.open(io.BytesIO(png))))


@pytest.mark.parametrize("streaming", [True, False])
def test_datasets_needs_no_card_for_features(indexed: Path, tmp_path: Path, streaming: bool) -> None:
    datasets = pytest.importorskip("datasets")
    tars = [str(path) for path in sorted((indexed / "data" / "features").glob("*.tar"))]
    dataset = datasets.load_dataset(
        "webdataset", data_files=tars, split="train", streaming=streaming, cache_dir=str(tmp_path)
    )
    rows = list(dataset)
    assert {row["__key__"] for row in rows} == set(indexed_shards.keys(6))
    assert np.shape(rows[0]["sam.npy"]) == (8, 4, 4)


def test_datasets_reads_masks_alone_when_told_the_features(indexed: Path, tmp_path: Path) -> None:
    """As for anyone who has the tars without the card. Not every artwork evokes every emotion."""
    datasets = pytest.importorskip("datasets")
    names = {f"{emotion}.png": datasets.Image() for emotion in EMOTIONS}
    text = datasets.Value("string")
    dataset = datasets.load_dataset(
        "webdataset",
        data_files=[str(path) for path in sorted((indexed / "data" / "masks").glob("*.tar"))],
        features=datasets.Features({"__key__": text, "__url__": text, "json": datasets.Json(), **names}),
        split="train",
        cache_dir=str(tmp_path),
    )
    assert len(dataset) == 6
    for row in dataset:
        assert {e for e in EMOTIONS if row[f"{e}.png"] is not None} == set(row["json"]["emotions"])
