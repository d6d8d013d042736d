"""The drawn release: exactly the released layouts, the world's truth, and the same bytes each time."""

import json
import re
import shutil
from collections import defaultdict
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from pipeline.common.emotions import EMOTIONS, SOMETHING_ELSE
from pipeline.common.errors import UserError
from pipeline.common.fingerprint import sha256_file
from pipeline.common.params import Paths
from pipeline.gallery import release
from pipeline.gallery.release import CSV_NAME, _annotate, draw_gallery
from pipeline.gallery.scenes.scene import scene
from pipeline.gallery.world import GalleryParams, Motif, Scene
from pipeline.releases import apolo, apolo_arrays, artemis
from pipeline.releases.artemis import Annotation
from pipeline.utterances.step import UtterancesParams, build_utterances

SEED, COUNT = 7, 12  # of the fixture tiny_gallery


@pytest.fixture(scope="module")
def rows(tiny_gallery: Path) -> list[Annotation]:
    found = list(artemis.read_csv(tiny_gallery / "artemis" / CSV_NAME, 2000))
    assert all(isinstance(row, Annotation) for row in found)
    return [row for row in found if isinstance(row, Annotation)]


@pytest.fixture(scope="module")
def scenes() -> dict[str, Scene]:
    """Painting -> its scene, drawn again from the seed."""
    drawn = [scene(SEED, index) for index in range(COUNT)]
    return {f"{world.artist}_{world.title}": world for world in drawn}


def read_apolo(gallery: Path) -> list[dict[str, Any]]:
    records: list[dict[str, Any]] = json.loads((gallery / "apolo" / "apolo.json").read_text())
    return records


def test_csv_is_artemis_own(tiny_gallery: Path, rows: list[Annotation], scenes: dict[str, Scene]) -> None:
    table = pd.read_csv(tiny_gallery / "artemis" / CSV_NAME)
    assert list(table.columns) == ["art_style", "painting", "emotion", "utterance", "repetition"]
    assert len(table) == len(rows)
    assert set(table["painting"]) == set(scenes)
    for _, group in table.groupby(["art_style", "painting"]):
        assert len(group) >= 5 and (group["repetition"] == len(group)).all()


def test_pictures_lie_where_wikiart_has_them(tiny_gallery: Path, scenes: dict[str, Scene]) -> None:
    files = {path.stem: path for path in (tiny_gallery / "wikiart").rglob("*.jpg")}
    assert set(files) == set(scenes)
    for painting, world in scenes.items():
        assert files[painting].parent.name == world.style
        with Image.open(files[painting]) as image:
            assert image.format == "JPEG"
            picture = np.asarray(image.convert("RGB")).astype(float)
        assert picture.shape == world.image.shape
        assert abs(picture - world.image).mean() < 6


def names(text: str, motif: Motif) -> bool:
    return re.search(rf"\b{motif.kind}\b", text) is not None


def test_annotators_speak_of_what_is_there(rows: list[Annotation], scenes: dict[str, Scene]) -> None:
    for row in rows:
        motifs = scenes[row.painting].motifs
        evoking = [motif for motif in motifs if row.emotion in motif.emotions]
        if row.emotion == SOMETHING_ELSE:
            assert any(names(row.utterance, motif) for motif in motifs)
        elif evoking:
            assert any(names(row.utterance, motif) for motif in evoking)
        else:  # disagrees: nothing evokes it, and no motif is blamed
            assert not any(names(row.utterance, motif) for motif in motifs)


def test_items_have_the_worlds_truth(
    tiny_gallery: Path, rows: list[Annotation], scenes: dict[str, Scene]
) -> None:
    records = read_apolo(tiny_gallery)
    assert {tuple(sorted(record)) for record in records} == {("artemis_id", "painting", "split")}
    assert {record["split"] for record in records} == {"val", "test"}
    paths = set()
    for record in records:
        spoken = [rows[i] for i in record["artemis_id"]]
        (emotion,) = {row.emotion for row in spoken}
        assert {row.painting for row in spoken} == {record["painting"]}
        path = tiny_gallery / "apolo" / "apolo_pixel_map" / f"{record['painting']}_{emotion}.npy"
        paths.add(path)
        mask = np.load(path, allow_pickle=False)
        world = scenes[record["painting"]]
        assert mask.dtype == np.uint8 and mask.shape == world.image.shape[:2]
        expected = np.zeros(mask.shape, int)
        for motif in world.motifs:
            expected += motif.mask * (emotion in motif.emotions)
        assert expected.any() and np.array_equal(mask, np.minimum(expected, 1))
    assert paths == set((tiny_gallery / "apolo" / "apolo_pixel_map").iterdir())


def test_every_evoked_and_named_emotion_of_held_out_artworks_is_an_item(
    tiny_gallery: Path, rows: list[Annotation], scenes: dict[str, Scene]
) -> None:
    records = read_apolo(tiny_gallery)
    held_out = {record["painting"] for record in records}
    wanted = {
        (row.painting, row.emotion)
        for row in rows
        if row.painting in held_out
        and any(row.emotion in motif.emotions for motif in scenes[row.painting].motifs)
    }
    assert {(r["painting"], rows[r["artemis_id"][0]].emotion) for r in records} == wanted
    assert len(held_out) == 3  # of 12: at least one for val, 15 % for test


def test_index_files(tiny_gallery: Path, rows: list[Annotation]) -> None:
    seen: dict[int, str] = {}
    for split in ("train", "val", "test"):
        table = pd.read_json(tiny_gallery / "apolo" / "artemis_index" / f"{split}_index.json")
        for ids in table["artemis_id"]:
            assert len({(rows[i].painting, rows[i].emotion) for i in ids}) == 1
            assert not seen.keys() & set(ids)
            seen |= dict.fromkeys(ids, split)
    assert seen.keys() == {row.artemis_id for row in rows if row.emotion in EMOTIONS}
    by_painting = defaultdict(set)
    for artemis_id, split in seen.items():
        by_painting[rows[artemis_id].painting].add(split)
    assert all(len(splits) == 1 for splits in by_painting.values())
    assert apolo.load_index(tiny_gallery / "apolo") == seen
    assert {r["painting"] for r in read_apolo(tiny_gallery)} <= {
        painting for painting, splits in by_painting.items() if splits != {"train"}
    }


def overlap(a: np.ndarray, b: np.ndarray) -> float:
    """IoU of two xyxy boxes."""
    sides = np.minimum(a[2:], b[2:]) - np.maximum(a[:2], b[:2])
    inter = float(np.prod(np.maximum(sides, 0)))
    return inter / (float(np.prod(a[2:] - a[:2])) + float(np.prod(b[2:] - b[:2])) - inter)


def test_boxes_propose_every_motif_and_more(tiny_gallery: Path, scenes: dict[str, Scene]) -> None:
    for painting, world in scenes.items():
        path = apolo_arrays.boxes_path(tiny_gallery / "apolo", painting)
        assert path is not None
        boxes = np.load(path, allow_pickle=False)
        assert boxes.dtype == np.float32 and boxes.ndim == 2 and boxes.shape[1] == 4
        assert boxes.min() >= 0 and boxes.max() <= 1
        height, width = world.image.shape[:2]
        for motif in world.motifs:
            own = np.array(motif.box) / [width, height, width, height]
            assert max(overlap(own, box) for box in boxes) > 0.6
        assert len(boxes) > len(world.motifs)
        assert len(apolo_arrays.load_boxes(path)) == len(boxes)


def test_the_release_reads_back_without_a_loss(tiny_gallery: Path, tmp_path: Path) -> None:
    paths = Paths(
        artemis=tiny_gallery / "artemis" / CSV_NAME,
        wikiart=tiny_gallery / "wikiart",
        apolo=tiny_gallery / "apolo",
        data=tmp_path,
    )
    metrics = build_utterances(paths, UtterancesParams())
    assert metrics["rows_rejected"] == metrics["artworks_rejected"] == metrics["apolo_items_rejected"] == 0
    assert metrics["artworks_kept"] == COUNT and metrics["apolo_artworks_moved_out_of_train"] == 0
    assert metrics["artwork_splits"] == {"train": 9, "val": 1, "test": 2}
    assert metrics["apolo_items"] == len(read_apolo(tiny_gallery))


def hashes(folder: Path) -> dict[str, str]:
    return {p.relative_to(folder).as_posix(): sha256_file(p) for p in folder.rglob("*") if p.is_file()}


def test_the_same_bytes_from_one_process_and_from_many(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    params = GalleryParams(artworks=4, seed=3)
    draw_gallery(tmp_path / "one", params)
    monkeypatch.setattr(release, "_TOO_FEW_FOR_PROCESSES", 0)
    draw_gallery(tmp_path / "many", params)
    assert hashes(tmp_path / "one") == hashes(tmp_path / "many")


def test_a_smaller_gallery_replaces_an_older_one(tmp_path: Path) -> None:
    draw_gallery(tmp_path, GalleryParams(artworks=2, seed=1))
    draw_gallery(tmp_path, GalleryParams(artworks=1, seed=2))
    draw_gallery(tmp_path / "fresh", GalleryParams(artworks=1, seed=2))
    fresh = hashes(tmp_path / "fresh")
    assert {name: sha for name, sha in hashes(tmp_path).items() if not name.startswith("fresh/")} == fresh


def test_other_peoples_folders_are_left_alone(tmp_path: Path) -> None:
    (tmp_path / "wikiart").mkdir()
    (tmp_path / "wikiart" / "mine.jpg").touch()
    with pytest.raises(UserError, match="not empty"):
        draw_gallery(tmp_path, GalleryParams(artworks=1))
    with pytest.raises(UserError, match="is a file"):
        draw_gallery(tmp_path / "wikiart" / "mine.jpg", GalleryParams(artworks=1))
    assert (tmp_path / "wikiart" / "mine.jpg").exists()


def test_a_real_release_in_a_gallery_is_left_alone(tmp_path: Path) -> None:
    """Somebody put the real APOLO in place of the drawn one."""
    draw_gallery(tmp_path, GalleryParams(artworks=1))
    shutil.rmtree(tmp_path / "apolo")
    (tmp_path / "apolo").mkdir()
    (tmp_path / "apolo" / "apolo.json").write_text("[]")
    with pytest.raises(UserError, match=r"apolo has no gallery\.json of a gallery and may be real"):
        draw_gallery(tmp_path, GalleryParams(artworks=1))
    assert (tmp_path / "apolo" / "apolo.json").read_text() == "[]"
    assert list((tmp_path / "wikiart").rglob("*.jpg"))


def test_a_folder_that_somebody_else_marked_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "gallery.json").write_text('{"rooms": 3}')
    (tmp_path / "wikiart").mkdir()
    (tmp_path / "wikiart" / "mine.jpg").touch()
    with pytest.raises(UserError, match=r"holds no gallery\.json of a gallery"):
        draw_gallery(tmp_path, GalleryParams(artworks=1))
    assert (tmp_path / "wikiart" / "mine.jpg").exists()


def test_a_removal_that_was_killed_can_be_finished(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    draw_gallery(tmp_path, GalleryParams(artworks=1, seed=1))
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(shutil, "rmtree", lambda *_, **__: (_ for _ in ()).throw(KeyboardInterrupt))
        draw_gallery(tmp_path, GalleryParams(artworks=1, seed=2))
    draw_gallery(tmp_path, GalleryParams(artworks=1, seed=2))
    draw_gallery(tmp_path / "fresh", GalleryParams(artworks=1, seed=2))
    fresh = hashes(tmp_path / "fresh")
    assert {name: sha for name, sha in hashes(tmp_path).items() if not name.startswith("fresh/")} == fresh


def test_shares_of_annotators() -> None:
    """Over many artworks: about a tenth something else, a few disagree, never for an item alone."""
    params = GalleryParams()
    world = scene(SEED, 0)
    evoked = {emotion for motif in world.motifs for emotion in motif.emotions}
    said = [pair for seed in range(400) for pair in _annotate(world, np.random.default_rng(seed), params)]
    other = sum(emotion == SOMETHING_ELSE for emotion, _ in said) / len(said)
    strange = sum(emotion in EMOTIONS and emotion not in evoked for emotion, _ in said) / len(said)
    assert abs(other - params.something_else) < 0.03
    assert abs(strange - params.disagreement) < 0.03
