"""Step `shards`: the index points at the same bytes as a tar reader, and damage is found and named."""

import io
import json
import os
import pickle
import random
import shutil
import tarfile
from pathlib import Path

import numpy as np
import pytest
import webdataset
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from pipeline import schema, shard_join, shards, storage
from pipeline.emotions import EMOTIONS
from pipeline.params import Paths, UserError
from pipeline.shards import Index, ShardsParams
from tests import worlds


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Root of a world whose shards are indexed. Read only: damage a copy."""
    root = tmp_path_factory.mktemp("shards")
    worlds.write_shards(worlds.paths_in(root))
    shards.build(worlds.paths_in(root), ShardsParams())
    return root


def copy_of(built: Path, tmp_path: Path) -> Paths:
    shutil.copytree(built / "data", tmp_path / "data", dirs_exist_ok=True)
    return worlds.paths_in(tmp_path)


def verify(paths: Paths) -> list[shards.Problem]:
    return shards.verify(paths.step("shards"))


def rewrite(path: Path, change) -> None:
    """Put a tar's samples through `change` and write them back as a whole, valid tar."""
    storage.write_tar(path, change(list(storage.read_tar(path))))


def test_index_gives_the_bytes_that_tarfile_gives(built: Path) -> None:
    index = Index.load(built / "data" / "shards")
    seen = 0
    for file in ("features", "masks"):
        for path in (built / "data" / file).glob("*.tar"):
            with tarfile.open(path) as tar:
                for info in tar:
                    key, _, name = info.name.partition(".")
                    assert index.read(key, f"{file}/{name}") == tar.extractfile(info).read()
                    seen += 1
    assert seen == sum(len(index.members(key)) for key in worlds.keys(6)) == 6 * (3 + 3)


def test_index_survives_pickling_with_open_maps(built: Path) -> None:
    index = Index.load(built / "data" / "shards")
    key = worlds.keys(6)[0]
    expected = index.read(key, "sam.npy")
    assert pickle.loads(pickle.dumps(index)).read(key, "sam.npy") == expected  # noqa: S301 (its own)


def test_views_outlive_the_maps_that_are_let_go(built: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Index, "MAX_OPEN", 1)
    index = Index.load(built / "data" / "shards")
    views = {key: index.view(key, "clip.npy") for key in worlds.keys(6)}
    for number, key in enumerate(worlds.keys(6)):
        assert bytes(views[key]) == worlds.feature_sample(key, number)["clip.npy"]


def test_rows_by_split(built: Path) -> None:
    index = Index.load(built / "data" / "shards")
    number = {key: n for n, key in enumerate(worlds.keys(6))}
    assert len(index) == len(index.rows()) == 6
    assert sorted(number[row.key] for row in index.rows("train")) == [0, 1, 4, 5]
    row = index.row(worlds.keys(6)[2])
    assert (row.split, row.shard, row.emotions, row.utterance_counts) == (
        "val",
        0,
        ("amusement", "disgust"),
        (2, 2),
    )
    assert index.rows("rest") == []


def test_unknown_names_are_explained(built: Path) -> None:
    index = Index.load(built / "data" / "shards")
    key = worlds.keys(6)[0]
    with pytest.raises(KeyError, match=r"features/json' or 'masks/json"):
        index.read(key, "json")
    with pytest.raises(KeyError, match=r"awe.png"):
        index.read(key, "anger.png")
    with pytest.raises(KeyError, match="nosuchkey"):
        index.read("nosuchkey", "sam.npy")


def test_plain_webdataset_reads_both_sets(built: Path) -> None:
    samples = {}
    for file in ("features", "masks"):
        urls = [str(path) for path in sorted((built / "data" / file).glob("*.tar"))]
        samples[file] = list(webdataset.WebDataset(urls, shardshuffle=False).decode())
    assert [s["__key__"] for s in samples["features"]] == [s["__key__"] for s in samples["masks"]]
    assert samples["features"][0]["sam.npy"].shape == (8, 4, 4)
    assert "emotions" in samples["masks"][0]["json"]


@pytest.mark.parametrize("streaming", [True, False])
def test_datasets_reads_both_sets_as_they_are(built: Path, tmp_path: Path, streaming: bool) -> None:
    datasets = pytest.importorskip("datasets")
    samples = {}
    for file in ("features", "masks"):
        dataset = datasets.load_dataset(
            str(built / "data" / "shards"), file, split="train", streaming=streaming, cache_dir=str(tmp_path)
        )
        samples[file] = {sample["__key__"]: sample for sample in dataset}
    for number, key in enumerate(worlds.keys(6)):
        grids, masks = samples["features"][key], samples["masks"][key]
        members = worlds.feature_sample(key, number)
        for name in ("sam.npy", "clip.npy"):
            np.testing.assert_array_equal(
                np.asarray(grids[name], np.float16), storage.load_npy(members[name])
            )
        assert grids["json"] == json.loads(members["json"])
        for emotion in EMOTIONS:
            picture = masks[f"{emotion}.png"]
            assert (picture is not None) == (emotion in masks["json"]["emotions"])
            if picture is not None:
                png = worlds.mask_sample(key, number)[f"{emotion}.png"]
                np.testing.assert_array_equal(np.asarray(picture), np.asarray(Image.open(io.BytesIO(png))))


@pytest.mark.parametrize("streaming", [True, False])
def test_datasets_needs_no_card_for_features(built: Path, tmp_path: Path, streaming: bool) -> None:
    datasets = pytest.importorskip("datasets")
    tars = [str(path) for path in sorted((built / "data" / "features").glob("*.tar"))]
    dataset = datasets.load_dataset(
        "webdataset", data_files=tars, split="train", streaming=streaming, cache_dir=str(tmp_path)
    )
    rows = list(dataset)
    assert {row["__key__"] for row in rows} == set(worlds.keys(6))
    assert np.shape(rows[0]["sam.npy"]) == (8, 4, 4)


def test_datasets_reads_masks_alone_when_told_the_features(built: Path, tmp_path: Path) -> None:
    """As for anyone who has the tars without the card. Not every artwork evokes every emotion."""
    datasets = pytest.importorskip("datasets")
    names = {f"{emotion}.png": datasets.Image() for emotion in EMOTIONS}
    text = datasets.Value("string")
    dataset = datasets.load_dataset(
        "webdataset",
        data_files=[str(path) for path in sorted((built / "data" / "masks").glob("*.tar"))],
        features=datasets.Features({"__key__": text, "__url__": text, "json": datasets.Json(), **names}),
        split="train",
        cache_dir=str(tmp_path),
    )
    assert len(dataset) == 6
    for row in dataset:
        assert {e for e in EMOTIONS if row[f"{e}.png"] is not None} == set(row["json"]["emotions"])


def test_unchanged_shards_are_not_read_again(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    paths = worlds.paths_in(tmp_path)
    worlds.write_shards(paths)
    shards.build(paths, ShardsParams())
    first = {p.name: p.read_bytes() for p in paths.step("shards").iterdir()}
    tar = paths.step("masks") / "000001.tar"
    samples = list(storage.read_tar(tar))
    shutil.rmtree(paths.step("shards"))  # as DVC does before it runs a stage again
    before = {path: path.stat().st_mtime_ns for path in shard_join.cache(paths).iterdir()}
    assert len(before) == 4  # two shards, each with its sidecar
    capsys.readouterr()
    shards.build(paths, ShardsParams())
    assert "2 shard(s) already done, 0 to do" in capsys.readouterr().err
    assert {p.name: p.read_bytes() for p in paths.step("shards").iterdir()} == first
    assert {path: path.stat().st_mtime_ns for path in shard_join.cache(paths).iterdir()} == before
    members = {name: data[::-1] if name == "awe.png" else data for name, data in samples[0][1].items()}
    storage.write_tar(tar, [(samples[0][0], members), *samples[1:]])
    os.utime(tar, ns=(1, 1))  # another time, whatever the clock's grain
    shards.build(paths, ShardsParams())
    assert "1 shard(s) already done, 1 to do" in capsys.readouterr().err
    assert verify(paths) == []
    shutil.rmtree(shard_join.cache(paths))
    again = {p.name: p.read_bytes() for p in paths.step("shards").iterdir()}
    shards.build(paths, ShardsParams())
    assert {p.name: p.read_bytes() for p in paths.step("shards").iterdir()} == again


def test_statistics_by_hand(built: Path) -> None:
    found = shards.stats(built / "data" / "shards")
    assert (found["artworks"], found["masks"], found["utterances"]) == (6, 12, 24)
    assert found["splits"]["train"] == {"artworks": 4, "masks": 8, "utterances": 16}
    assert found["emotions"]["awe"] == {"masks": 2, "utterances": 4, "train": 2, "mean_area": 0.1}
    assert found["styles"] == {"Drawn": 6}
    assert sum(found["mask_area"]["counts"]) == 12
    assert found["mask_area"]["counts"][2] == 12  # 0.1 opens the third of twenty bins
    assert found["rejects"] == {"utterances": {"unknown-emotion": 1}}
    for file in ("features", "masks"):
        assert found["bytes"][file] == sum(p.stat().st_size for p in (built / "data" / file).glob("*.tar"))


def test_a_rerun_writes_the_same_bytes(built: Path, tmp_path: Path) -> None:
    paths = copy_of(built, tmp_path)
    before = {p.name: p.read_bytes() for p in paths.step("shards").iterdir()}
    shutil.rmtree(paths.step("shards"))
    shards.build(paths, ShardsParams())
    assert before == {p.name: p.read_bytes() for p in paths.step("shards").iterdir()}


def test_the_card_is_valid_croissant_and_its_records_can_be_read(built: Path) -> None:
    mlcroissant = pytest.importorskip("mlcroissant")
    dataset = mlcroissant.Dataset(jsonld=built / "data" / "shards" / "croissant.json")
    assert dataset.metadata.ctx.issues.errors == set()
    assert dataset.metadata.ctx.issues.warnings == set()
    rows = list(dataset.records("artworks"))
    assert {row["artworks/key"].decode() for row in rows} == set(worlds.keys(6))
    masks = list(dataset.records("masks"))
    assert len(masks) == 12
    assert {row["masks/emotion"].decode() for row in masks} == {
        e for pair in worlds.EMOTIONS_OF for e in pair
    }
    assert all(np.asarray(row["masks/image"]).shape == (16, 24) for row in masks)


# What must not be joined


def test_a_key_that_one_tar_lacks_is_named(tmp_path: Path) -> None:
    paths = worlds.paths_in(tmp_path)
    worlds.write_shards(paths)
    tar = paths.step("masks") / "000001.tar"
    gone = next(storage.read_tar(tar))[0]
    rewrite(tar, lambda samples: samples[1:])
    with pytest.raises(UserError, match=rf"shard 000001: key {gone} is in features but not in masks"):
        shards.build(paths, ShardsParams())


def test_a_rejected_artwork_is_left_out_with_its_reason(tmp_path: Path) -> None:
    paths = worlds.paths_in(tmp_path)
    worlds.write_shards(paths)
    tar = paths.step("masks") / "000001.tar"
    gone = next(storage.read_tar(tar))[0]
    rewrite(tar, lambda samples: samples[1:])
    rejects = [{"key": gone, "reason": "truncated"}]
    storage.write_json(
        paths.step("regions") / "000001.json", {"fingerprint": "", "kept": 2, "rejects": rejects}
    )
    metrics = shards.build(paths, ShardsParams())
    assert (metrics["kept"], metrics["rejected"]) == (5, 1)
    assert metrics["rejects"]["shards"] == {"regions: truncated": 1}
    assert gone not in Index.load(paths.step("shards"))
    assert verify(paths) == []


def test_an_artwork_that_both_tars_lack_is_named(tmp_path: Path) -> None:
    paths = worlds.paths_in(tmp_path)
    worlds.write_shards(paths)
    gone = next(storage.read_tar(paths.step("masks") / "000001.tar"))[0]
    for file in ("features", "masks"):
        rewrite(paths.step(file) / "000001.tar", lambda samples: samples[1:])
    with pytest.raises(
        UserError, match=f"shard 000001: key {gone} is in neither tar, and no step rejected it"
    ):
        shards.build(paths, ShardsParams())
    rejects = [{"key": gone, "reason": "truncated"}]
    storage.write_json(
        paths.step("features") / "000001.json", {"fingerprint": "", "kept": 2, "rejects": rejects}
    )
    assert shards.build(paths, ShardsParams())["kept"] == 5


def test_an_artwork_of_another_table_is_named(tmp_path: Path) -> None:
    paths = worlds.paths_in(tmp_path)
    worlds.write_shards(paths)
    for file in ("features", "masks"):
        rewrite(
            paths.step(file) / "000000.tar", lambda samples: [*samples, ("ffffffffffffffff", samples[0][1])]
        )
    with pytest.raises(UserError, match="key ffffffffffffffff is not of this shard"):
        shards.build(paths, ShardsParams())


def test_another_order_is_named(tmp_path: Path) -> None:
    paths = worlds.paths_in(tmp_path)
    worlds.write_shards(paths)
    rewrite(paths.step("masks") / "000000.tar", lambda samples: samples[::-1])
    with pytest.raises(UserError, match=rf"shard 000000: .* order at key {worlds.keys(6)[0]}"):
        shards.build(paths, ShardsParams())


@pytest.mark.parametrize("file", ["features", "masks"])
def test_a_missing_or_cut_tar_is_named(tmp_path: Path, file: str) -> None:
    paths = worlds.paths_in(tmp_path)
    worlds.write_shards(paths)
    tar = paths.step(file) / "000001.tar"
    tar.write_bytes(tar.read_bytes()[:1400])
    with pytest.raises(UserError, match=rf"{file}/000001.tar is damaged"):
        shards.build(paths, ShardsParams())
    tar.unlink()
    with pytest.raises(UserError, match=f"shard 000001 is in .* but not in .*{file}"):
        shards.build(paths, ShardsParams())


def test_no_shards_at_all(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="run the features and masks steps first"):
        shards.build(worlds.paths_in(tmp_path), ShardsParams())


# What verify finds


def test_an_intact_dataset_has_no_problems(built: Path) -> None:
    assert verify(worlds.paths_in(built)) == []


@settings(max_examples=80, deadline=None)
@given(data=st.data())
def test_any_flipped_byte_is_found_and_named(
    built: Path, tmp_path_factory: pytest.TempPathFactory, data
) -> None:
    tar = data.draw(st.sampled_from(sorted((built / "data").glob("*/00000?.tar"))))
    original = tar.read_bytes()
    at = data.draw(st.integers(0, len(original) - 1))
    flip = data.draw(st.integers(1, 255))
    with tarfile.open(tar) as listing:
        owner = [i for i in listing if i.offset_data <= at < i.offset_data + i.size]
    paths = copy_of(built, tmp_path_factory.mktemp("flip"))
    damaged = bytearray(original)
    damaged[at] ^= flip
    (paths.data / tar.relative_to(built / "data")).write_bytes(damaged)
    problems = verify(paths)
    shutil.rmtree(paths.data)
    assert problems
    assert {(p.shard, p.file) for p in problems} == {(int(tar.stem), tar.parent.name)}
    if owner:
        assert [(p.kind, p.key) for p in problems] == [("checksum", owner[0].name.partition(".")[0])]


@settings(max_examples=40, deadline=None)
@given(data=st.data())
def test_any_cut_is_found(built: Path, tmp_path_factory: pytest.TempPathFactory, data) -> None:
    tar = data.draw(st.sampled_from(sorted((built / "data").glob("*/00000?.tar"))))
    original = tar.read_bytes()
    length = data.draw(st.integers(0, len(original) - 1))
    with tarfile.open(tar) as listing:
        cut = [i.name.partition(".")[0] for i in listing if i.size and i.offset_data + i.size > length]
    paths = copy_of(built, tmp_path_factory.mktemp("cut"))
    (paths.data / tar.relative_to(built / "data")).write_bytes(original[:length])
    problems = verify(paths)
    shutil.rmtree(paths.data)
    assert {(p.kind, p.shard, p.file) for p in problems} == {("truncated", int(tar.stem), tar.parent.name)}
    if length:
        assert problems[0].key == (cut[0] if cut else None)


def test_a_missing_member(built: Path, tmp_path: Path) -> None:
    paths = copy_of(built, tmp_path)
    tar = paths.step("features") / "000000.tar"
    key = next(storage.read_tar(tar))[0]
    rewrite(
        tar,
        lambda samples: [
            (k, {n: b for n, b in m.items() if (k, n) != (key, "clip.npy")}) for k, m in samples
        ],
    )
    problems = verify(paths)
    assert [(p.shard, p.key) for p in problems if p.kind == "missing-member"] == [(0, key)]
    assert "clip.npy" in str(problems[0])
    assert {p.kind for p in problems} == {"missing-member", "moved"}


def test_an_unknown_member_and_an_unknown_tar(built: Path, tmp_path: Path) -> None:
    paths = copy_of(built, tmp_path)
    rewrite(paths.step("masks") / "000001.tar", lambda samples: [*samples, ("feed", {"png": b"x"})])
    storage.write_tar(paths.step("masks") / "000007.tar", [])
    problems = verify(paths)
    assert [(p.kind, p.shard, p.key) for p in problems] == [
        ("unknown-member", 1, "feed"),
        ("unknown-tar", 7, None),
    ]


UNSAFE = {
    "../../etc/cron.json": b"0",
    "/etc/passwd.json": b"0",
    "a/b.png": b"0",
    "..": b"0",
    "link.png": tarfile.SYMTYPE,
    "hard.png": tarfile.LNKTYPE,
    "tty.png": tarfile.CHRTYPE,
    "disk.png": tarfile.BLKTYPE,
    "pipe.png": tarfile.FIFOTYPE,
    "folder.png": tarfile.DIRTYPE,
}
"""Member name -> tar type of a special file, or b"0" for a plain one."""


@pytest.mark.parametrize("name", [*UNSAFE, "twice"])
def test_members_that_could_leave_their_folder_are_refused(built: Path, tmp_path: Path, name: str) -> None:
    paths = copy_of(built, tmp_path)
    tar = paths.step("masks") / "000001.tar"
    with tarfile.open(tar, "a") as out:
        info = tarfile.TarInfo(out.getnames()[0] if name == "twice" else name)
        info.type = UNSAFE.get(name, b"0")
        info.linkname = "/etc/passwd"
        out.addfile(info)
    refused = [p for p in verify(paths) if p.kind == "refused-member"]
    assert [(p.file, p.shard) for p in refused] == [("masks", 1)]
    assert info.name in refused[0].detail
    with pytest.raises(UserError, match=r"masks/000001.tar holds the member"):
        shards.build(paths, ShardsParams())
    if name != "twice":
        with pytest.raises(UserError, match="was not written by any step here"):
            list(storage.read_tar(tar))


@pytest.mark.parametrize("key", ["..", "../a", "/a", "a/b", "a.b", "", "é", "a\n"])
def test_no_such_member_is_ever_written(tmp_path: Path, key: str) -> None:
    with pytest.raises(ValueError, match="tar key"):
        storage.write_tar(tmp_path / "a.tar", [(key, {"png": b""})])
    with pytest.raises(ValueError, match="extension"):
        storage.write_tar(tmp_path / "a.tar", [("a", {"/../b": b""})])
    assert list(tmp_path.iterdir()) == []


def test_misaligned_keys(built: Path, tmp_path: Path) -> None:
    paths = copy_of(built, tmp_path)
    rewrite(paths.step("masks") / "000000.tar", lambda samples: [samples[1], samples[0], *samples[2:]])
    problems = {p.kind: p for p in verify(paths)}
    assert problems["misaligned"].shard == 0
    assert problems["misaligned"].key == worlds.keys(6)[0]


def test_a_missing_tar(built: Path, tmp_path: Path) -> None:
    paths = copy_of(built, tmp_path)
    (paths.step("features") / "000001.tar").unlink()
    assert [(p.kind, p.file, p.shard) for p in verify(paths)] == [("missing-tar", "features", 1)]


def test_an_index_that_is_not_the_steps(built: Path, tmp_path: Path) -> None:
    paths = copy_of(built, tmp_path)
    index = paths.step("shards") / "index.parquet"
    whole = index.read_bytes()
    for bytes_ in (whole[:-1], b"", whole + b" "):
        index.write_bytes(bytes_)
        assert [p.kind for p in verify(paths)] == ["index"]
    (paths.step("shards") / "stats.json").write_text(json.dumps({"shards": 3}))
    assert [p.kind for p in verify(paths)] == ["index"]


def test_a_folder_without_shards_is_the_users_mistake(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no shards folder"):
        shards.verify(tmp_path)
    with pytest.raises(UserError, match="run the shards step"):
        shards.stats(tmp_path)


def test_the_description_names_every_split_emotion_and_reject(built: Path) -> None:
    text = shards.describe(shards.stats(built / "data" / "shards"))
    assert "6 artworks, 12 masks, 24 utterances in 2 shards" in text
    assert all(word in text for word in ("train", "sadness", "left out by utterances: unknown-emotion: 1"))


def test_a_tar_of_another_writer_serves_as_well(tmp_path: Path) -> None:
    """Offsets come from the tar itself: PAX headers and other members' order do not confuse the index."""
    paths = worlds.paths_in(tmp_path)
    worlds.write_shards(paths)
    tar = paths.step("features") / "000000.tar"
    samples = list(storage.read_tar(tar))
    with tarfile.open(tar, "w", format=tarfile.PAX_FORMAT) as out:
        for key, members in samples:
            for name, content in members.items():
                info = tarfile.TarInfo(f"{key}.{name}")
                info.size, info.mtime = len(content), random.Random(name).random()
                out.addfile(info, io.BytesIO(content))
    shards.build(paths, ShardsParams())
    index = Index.load(paths.step("shards"))
    assert index.read(samples[1][0], "clip.npy") == samples[1][1]["clip.npy"]
    assert verify(paths) == []
    assert schema.INDEX.equals(index.table.schema)
