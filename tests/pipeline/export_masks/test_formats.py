"""Every format is opened by the tool that it is for, and holds the pixels and words of the shards."""

import csv
import json
from pathlib import Path

import cv2
import numpy as np
import pytest

from pipeline.common.emotions import EMOTIONS
from pipeline.common.errors import UserError
from pipeline.common.params import Paths
from pipeline.common.tars import read_tar
from pipeline.export_masks.command import Format, export_masks
from pipeline.export_masks.records import ExportOptions
from tests.worlds import indexed_shards
from tests.worlds.labelled_shards import HEIGHT, WIDTH, index_labelled, write_labelled

COUNT, EACH = 8, 4


@pytest.fixture(scope="module")
def paths(tmp_path_factory: pytest.TempPathFactory) -> Paths:
    made = indexed_shards.paths_in(tmp_path_factory.mktemp("labelled"))
    write_labelled(made, count=COUNT)
    index_labelled(made)
    return made


def stored(paths: Paths) -> dict[tuple[str, str], tuple[np.ndarray, dict]]:
    """(key, emotion) -> mask and card, from the tars themselves."""
    found = {}
    for tar in sorted(paths.step("masks").glob("*.tar")):
        for key, members in read_tar(tar):
            card = json.loads(members["json"])
            for emotion in card["emotions"]:
                data = np.frombuffer(members[f"{emotion}.png"], np.uint8)
                found[key, emotion] = cv2.imdecode(data, cv2.IMREAD_GRAYSCALE), card
    return found


def export(paths: Paths, out: Path, format_: Format, **options: object) -> dict:
    return export_masks(paths.step("shards"), out, format_, ExportOptions(**options))


@pytest.mark.parametrize("size", ["stored", "picture"])
def test_coco_is_read_by_its_own_library(paths: Paths, tmp_path: Path, size: str) -> None:
    from pycocotools.coco import COCO

    counts = export(paths, tmp_path / "out", "coco", size=size)
    assert counts["masks"] == COUNT * EACH
    coco, wanted = COCO(str(tmp_path / "out" / "instances.json")), stored(paths)
    assert len(coco.getAnnIds()) == len(wanted)
    names = {number: category["name"] for number, category in coco.cats.items()}
    assert sorted(names.values()) == sorted(EMOTIONS)
    for annotation in coco.loadAnns(coco.getAnnIds()):
        image = coco.imgs[annotation["image_id"]]
        mask, card = wanted[image["key"], names[annotation["category_id"]]]
        if size == "picture":
            mask = cv2.resize(mask, (WIDTH, HEIGHT), interpolation=cv2.INTER_LINEAR)
        assert (image["height"], image["width"]) == mask.shape
        pixels = coco.annToMask(annotation).astype(bool)
        np.testing.assert_array_equal(pixels, mask > int(0.35 * 255))
        assert annotation["area"] == pixels.sum()
        rows, columns = np.flatnonzero(pixels.any(1)), np.flatnonzero(pixels.any(0))
        x, y, width, height = annotation["bbox"]
        assert (x, y, x + width, y + height) == (columns[0], rows[0], columns[-1] + 1, rows[-1] + 1)
        assert annotation["utterances"] == card["emotions"][names[annotation["category_id"]]]["utterances"]
    captions = COCO(str(tmp_path / "out" / "captions.json"))
    said = [
        text for (_, emotion), (_, card) in wanted.items() for text in card["emotions"][emotion]["utterances"]
    ]
    assert sorted(a["caption"] for a in captions.loadAnns(captions.getAnnIds())) == sorted(said)


def test_datasets_opens_the_masks_as_pictures(paths: Paths, tmp_path: Path) -> None:
    import datasets

    export(paths, tmp_path / "out", "hf")
    found = datasets.load_dataset(str(tmp_path / "out"), cache_dir=str(tmp_path / "cache"))
    assert set(found) == {"train", "validation", "test"}
    wanted = stored(paths)
    rows = [row for part in found.values() for row in part]
    assert len(rows) == len(wanted)
    for row in rows:
        mask, card = wanted[row["key"], row["emotion"]]
        np.testing.assert_array_equal(np.asarray(row["mask"]), mask)
        assert row["utterances"] == card["emotions"][row["emotion"]]["utterances"]
        assert json.loads(row["lineage"]) == card["lineage"]


def test_label_studio_reads_the_masks(paths: Paths, tmp_path: Path) -> None:
    brush = pytest.importorskip("label_studio_sdk.converter.brush")
    export(paths, tmp_path / "out", "label-studio", prefix="/data/local-files/?d=")
    tasks, wanted = json.loads((tmp_path / "out" / "tasks.json").read_text()), stored(paths)
    assert len(tasks) == len(wanted)
    for task in tasks:
        (result,) = task["predictions"][0]["result"]
        mask, _ = wanted[task["data"]["key"], task["data"]["emotion"]]
        assert (result["original_height"], result["original_width"]) == mask.shape
        pixels = brush.decode_rle(result["value"]["rle"]).reshape(*mask.shape, 4)[:, :, 3]
        np.testing.assert_array_equal(pixels > 0, mask > int(0.35 * 255))


def test_label_studio_accepts_the_page(paths: Paths, tmp_path: Path) -> None:
    interface = pytest.importorskip("label_studio_sdk.label_interface")
    export(paths, tmp_path / "out", "label-studio")
    page = interface.LabelInterface(config=(tmp_path / "out" / "labels.xml").read_text())
    page.validate()
    for task in json.loads((tmp_path / "out" / "tasks.json").read_text()):
        assert page.validate_prediction(task["predictions"][0])


def test_png_files_are_the_stored_masks(paths: Paths, tmp_path: Path) -> None:
    export(paths, tmp_path / "out", "png", splits=("train",), emotions=("awe", "fear"))
    wanted = {
        pair: mask
        for pair, (mask, card) in stored(paths).items()
        if card["split"] == "train" and pair[1] in ("awe", "fear")
    }
    with (tmp_path / "out" / "masks.csv").open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert {(row["key"], row["emotion"]) for row in rows} == wanted.keys()
    for row in rows:
        mask = cv2.imread(str(tmp_path / "out" / row["file"]), cv2.IMREAD_GRAYSCALE)
        np.testing.assert_array_equal(mask, wanted[row["key"], row["emotion"]])


@pytest.mark.parametrize("format_", ["coco", "label-studio", "fiftyone", "hf", "png"])
def test_the_same_bytes_again_and_counts_that_add_up(paths: Paths, tmp_path: Path, format_: Format) -> None:
    counts = export(paths, tmp_path / "one", format_, emotions=("awe",))
    export(paths, tmp_path / "two", format_, emotions=("awe",))
    assert counts["in"] == COUNT == counts["kept"] + counts["left_out"]
    files = sorted(
        path.relative_to(tmp_path / "one") for path in (tmp_path / "one").rglob("*") if path.is_file()
    )
    assert counts["files"] == len(files)
    for file in files:
        assert (tmp_path / "one" / file).read_bytes() == (tmp_path / "two" / file).read_bytes()


def test_what_cannot_be_exported(paths: Paths, tmp_path: Path) -> None:
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "x").touch()
    with pytest.raises(UserError, match="not empty"):
        export(paths, tmp_path / "full", "png")
    with pytest.raises(UserError, match="no emotion 'joy'"):
        export(paths, tmp_path / "out", "png", emotions=("joy",))
    with pytest.raises(UserError, match="no split 'dev'"):
        export(paths, tmp_path / "out", "png", splits=("dev",))
    with pytest.raises(UserError, match="run the shards step"):
        export_masks(tmp_path / "nowhere", tmp_path / "out", "png", ExportOptions())
    assert not (tmp_path / "out").exists()
