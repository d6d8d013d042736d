"""Anyone's maps, by their names: what is scored by hand, and that nothing is silently scored."""

import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from model.maps.map_files import decode_npy, decode_png
from model.score.external_maps import Files, score_external_maps
from model.score.external_text import scores_text
from model.score.named_maps import open_maps
from model.score.params import ScoreParams, StatisticsParams
from pipeline.common.emotions import emotion_index
from pipeline.common.errors import UserError
from pipeline.common.files import write_bytes
from pipeline.common.params import Paths
from pipeline.common.tars import npy_bytes
from pipeline.releases.apolo_arrays import MAPS
from tests.model.score.test_step import ITEMS, label, write_inputs
from tests.worlds.indexed_shards import paths_in, png
from tests.worlds.released import write_release

QUICK = StatisticsParams(resamples=200)
COLUMNS = ("seg_pr25", "seg_pr50", "box_pr25", "box_pr50")


@pytest.fixture(scope="module")
def paths(tmp_path_factory: pytest.TempPathFactory) -> Paths:
    """Four test items with a label of a quarter of the picture, two without, and one val item."""
    paths = paths_in(tmp_path_factory.mktemp("release"))
    write_inputs(paths)
    return paths


@pytest.fixture
def maps(tmp_path: Path) -> Path:
    folder = tmp_path / "mine"
    folder.mkdir()
    return folder


def score(maps: Path, paths: Paths, **options: Any) -> dict[str, Any]:
    return score_external_maps(
        Files(maps), paths.apolo, "test", paths, ScoreParams(statistics=QUICK), **options
    ).report


def save_all(folder: Path) -> None:
    """A perfect map of every test item that has a label."""
    for painting, emotion, _ in ITEMS[:4]:
        np.save(folder / f"{painting}_{emotion}.npy", label(painting, emotion).astype(np.float32))


def test_a_folder_of_maps(paths: Paths, maps: Path) -> None:
    """Any size, range and kind; what is missing, extra, doubled or broken is listed and counts as wrong."""
    np.save(maps / "a.one_awe.npy", 900.0 - 7 * (1.0 - np.kron(label("a.one", "awe"), np.ones((3, 3)))))
    write_bytes(maps / "a#one_fear.png", png((10 + 90 * label("a.one", "fear")).astype(np.uint16)))
    np.save(maps / "b_awe.npy", np.array([{"a": 1}], dtype=object))
    np.save(maps / "b_awe.bak.npy", np.eye(3))
    write_bytes(maps / "b_awe.png", png(label("b", "awe")))
    np.save(maps / "c_sadness.npy", label("c", "sadness"))  # a val item
    (maps / "notes.txt").write_text("not a map")
    found = score(maps, paths)
    half = dict.fromkeys(COLUMNS, 50.0)
    chosen = {f"{c}_val": 50.0 for c in COLUMNS} | {"threshold_val": 0.35, "val_items": 1}
    assert found["rows"] == [{"method": "mine", "items": 4, **half, "missing": 1, **chosen}]
    assert found["items"] == {"apolo": 6, "counted": 4, "rejected": 0}
    assert found["missing"] == ["b_sadness"]
    assert found["extra"] == ["b_awe.bak.npy"]
    assert found["duplicates"] == ["b_awe.png"]
    assert found["flagged"] == []
    empty, pickled_label, pickled = found["problems"]
    assert empty == "c_fear: label: empty: no pixel is foreground"
    assert pickled_label.startswith("d_awe: label: pickled: ")
    assert pickled.startswith("b_awe: unusable map: the file is no plain .npy array")
    assert pickled.endswith("save it as a plain array of numbers")


def test_people_read_all_of_it(paths: Paths, maps: Path) -> None:
    np.save(maps / "a.one_awe.npy", label("a.one", "awe"))
    np.save(maps / "stranger_awe.npy", np.eye(3))
    write_bytes(maps / "a#one_awe.png", png(label("a.one", "awe")))
    (maps / "notes.txt").write_text("not a map")
    text = scores_text(score(maps, paths))
    counts, table, *_, last = [part.splitlines() for part in text.split("\n\n")[1:]]
    assert counts == [
        "7 records in apolo.json = 6 test items + 1 val items + 0 unusable",
        "6 items for mine = 1 scored + 3 without a map + 2 without a usable label",
        "4 files in mine = 1 test items + 1 map of no item + 1 second map + 1 other file",
    ]
    assert table[1].split()[:5] == ["mine", ">", "0.35", "4", "25.00"]
    assert last[0] == "3 items without a map (IoU 0): a.one_fear, b_awe, b_sadness"
    assert last[1] == "1 maps of no usable APOLO item (not scored): stranger_awe.npy"
    assert last[2] == "1 second maps of an item (not scored; the first by name was): a.one_awe.npy"
    assert last[3] == "- c_fear: label: empty: no pixel is foreground"
    assert len(last) == 5


def test_missing_maps_leave_the_denominator_only_when_asked_and_the_row_says_so(
    paths: Paths, maps: Path
) -> None:
    np.save(maps / "a.one_awe.npy", label("a.one", "awe"))
    np.save(maps / "b_awe.npy", np.full((4, 4), np.nan))  # there, but unusable: wrong in any case
    strict, lenient = score(maps, paths), score(maps, paths, allow_missing=True)
    assert (strict["rows"][0]["items"], strict["rows"][0]["seg_pr50"]) == (4, 25.0)
    assert "left_out" not in strict["rows"][0]
    assert "NOT COMPARABLE" not in scores_text(strict)
    assert (lenient["rows"][0]["items"], lenient["rows"][0]["seg_pr50"]) == (2, 50.0)
    assert lenient["rows"][0]["left_out"] == lenient["rows"][0]["missing"] == 2
    assert lenient["missing"] == strict["missing"] == ["a.one_fear", "b_sadness"]
    assert "NOT COMPARABLE with published rows: 2 items without a map or a text are left out" in scores_text(
        lenient
    )
    assert "2 items without a map (left out): " in scores_text(lenient)


@pytest.mark.parametrize(
    ("broken", "message"),
    [
        (np.full((16, 24), np.nan), "map holds 384 of 384 values that are NaN or infinite"),
        (np.where(np.eye(5, dtype=bool), np.inf, 0.0), "map holds 5 of 25 values that are NaN or infinite"),
        (
            np.zeros((8, 16, 24)),
            r"(height, width) and some pixels, not shape (8, 16, 24)",
        ),
        (np.zeros(24), r"not shape (24,)"),
        (np.zeros((0, 24)), r"not shape (0, 24)"),
        (np.zeros((4, 4), np.complex64), "real numbers, not complex64"),
        (np.full((4, 4), "x"), "real numbers, not <U1"),
        (np.ones((2, 4000), "M8[s]"), "real numbers, not datetime64"),
    ],
)
def test_a_broken_map_is_one_line_and_wrong(
    paths: Paths, maps: Path, broken: np.ndarray, message: str
) -> None:
    save_all(maps)
    np.save(maps / "b_awe.npy", broken)
    found = score(maps, paths)
    lines = [line for line in found["problems"] if line.startswith("b_awe: ")]
    assert len(lines) == 1
    assert message in lines[0]
    assert [found["rows"][0][c] for c in COLUMNS] == [75.0] * 4


def test_files_that_are_no_arrays_or_grey_pictures_are_one_line_and_wrong(paths: Paths, maps: Path) -> None:
    save_all(maps)
    for name in ("a.one_awe", "a.one_fear", "b_awe"):
        (maps / f"{name}.npy").unlink()
    (maps / "a.one_awe.npy").mkdir()
    (maps / "a.one_fear.npy").write_bytes(npy_bytes(np.ones((4, 4)))[:-9])
    colours = np.zeros((16, 24, 3), np.uint8)
    colours[..., 0] = 200
    (maps / "b_awe.png").write_bytes(png(colours))
    found = score(maps, paths)
    problems = "\n".join(found["problems"])
    assert "a.one_awe: unusable map: it is a folder, not a file" in problems
    assert "a.one_fear: unusable map: the file is no plain .npy array" in problems
    assert "b_awe: unusable map: the picture has colours" in problems
    assert found["rows"][0]["seg_pr25"] == 25.0


@pytest.mark.timeout(60)
def test_strange_files_among_the_maps_and_labels_are_named_and_the_rest_is_scored(
    tmp_path: Path, maps: Path
) -> None:
    """A header that is not closed, an archive, a pipe, as maps; a pipe-like label is no file at all."""
    paths = paths_in(tmp_path)
    write_inputs(paths)
    save_all(maps)
    whole = (maps / "b_awe.npy").read_bytes()
    (maps / "b_awe.npy").write_bytes(whole.replace(b"(16, 24)", b"(16, 24 "))
    with (maps / "a.one_awe.npy").open("wb") as file:
        np.savez(file, a=np.eye(3))
    (maps / "a.one_fear.npy").unlink()
    os.mkfifo(maps / "a.one_fear.npy")
    truth = next((paths.apolo / MAPS).glob("b_sadness.npy"))
    truth.write_bytes(truth.read_bytes().replace(b"'descr'", b"'descr"))
    found = score(maps, paths)
    problems = {line.split(": ", 1)[0]: line for line in found["problems"]}
    assert "header is not understood" in problems["b_awe"]
    assert "archive" in problems["a.one_awe"]
    assert "pipe" in problems["a.one_fear"]
    assert "label: not-npy" in problems["b_sadness"]
    assert (found["rows"][0]["items"], found["rows"][0]["seg_pr25"]) == (3, 0.0)


def test_pictures_become_grey_only_when_they_are() -> None:
    grey = np.arange(12, dtype=np.uint8).reshape(3, 4)
    opaque = np.dstack([grey, grey, grey, np.full_like(grey, 255)])
    assert decode_png(png(np.dstack([grey, grey, grey]))).tolist() == grey.tolist()
    assert decode_png(png(opaque)).tolist() == grey.tolist()
    opaque[0, 0, 3] = 254
    with pytest.raises(ValueError, match="partly transparent"):
        decode_png(png(opaque))


def test_a_picture_that_promises_too_many_pixels_is_not_decoded() -> None:
    data = png(np.zeros((4, 4), np.uint8))
    with pytest.raises(ValueError, match="100000 x 100000 pixels"):
        decode_png(data[:16] + 2 * (100_000).to_bytes(4, "big") + data[24:])


def test_singleton_axes_of_a_map_are_dropped() -> None:
    assert decode_npy(npy_bytes(np.ones((1, 3, 4)))).shape == (3, 4)
    assert decode_npy(npy_bytes(np.ones((1, 4)))).shape == (1, 4)


@pytest.mark.parametrize("dtype", [np.bool_, np.uint8, np.int64, np.float16, ">f4", np.float64])
def test_a_map_means_the_same_in_every_dtype_and_order(paths: Paths, maps: Path, dtype: Any) -> None:
    for painting, emotion, _ in ITEMS[:4]:
        map_ = label(painting, emotion).astype(dtype)
        np.save(maps / f"{painting}_{emotion}.npy", np.asfortranarray(map_) if painting == "b" else map_)
    found = score(maps, paths)
    assert [found["rows"][0][c] for c in COLUMNS] == [100.0] * 4
    assert len(found["problems"]) == 2  # the two labels


def test_a_transposed_map_is_flagged_and_scored_as_it_is(paths: Paths, maps: Path) -> None:
    save_all(maps)
    np.save(maps / "b_awe.npy", label("b", "awe").T)
    found = score(maps, paths)
    wanted = "b_awe: the map has shape (24, 16) and the label (16, 24): transposed?"
    assert [line[: len(wanted)] for line in found["flagged"]] == [wanted]
    assert found["flagged"][0] in scores_text(found)
    np.save(maps / "b_awe.npy", np.eye(16))  # square: nothing to suspect
    assert score(maps, paths)["flagged"] == []


def test_the_threshold_of_the_val_maps_by_hand(paths: Paths, maps: Path) -> None:
    """Val says that 0.6 is background; at 0.6 the test maps lose the half of the label that is 0.6 there."""
    val = np.where(label("c", "sadness") > 0, 1.0, 0.0)
    val[:8] = 0.6
    np.save(maps / "c_sadness.npy", val)
    for painting, emotion, _ in ITEMS[:4]:
        map_ = label(painting, emotion).astype(float)
        rows = np.flatnonzero(map_.any(axis=1))[4:]
        map_[rows] *= 0.6
        np.save(maps / f"{painting}_{emotion}.npy", map_)
    row = score(maps, paths)["rows"][0]
    assert (row["threshold_val"], row["val_items"]) == (0.6, 1)
    assert [row[c] for c in COLUMNS] == [100.0] * 4
    assert [row[f"{c}_val"] for c in COLUMNS] == [100.0] * 4  # IoU 1/2 exactly
    for path in maps.glob("*.npy"):
        if path.name != "c_sadness.npy":
            map_ = np.load(path)
            map_[np.flatnonzero(map_.any(axis=1))[3]] *= 0.6
            np.save(path, map_)
    assert [score(maps, paths)["rows"][0][f"{c}_val"] for c in COLUMNS] == [100.0, 0.0, 100.0, 0.0]  # 3/8


def test_a_val_map_that_cannot_be_used_is_named(paths: Paths, maps: Path) -> None:
    np.save(maps / "a.one_awe.npy", np.eye(8))
    np.save(maps / "c_sadness.npy", np.full((4, 4), np.nan))
    found = score(maps, paths)
    assert found["problems"][-1] == (
        "c_sadness (val): unusable map: map holds 16 of 16 values that are NaN or infinite"
    )
    assert "threshold_val" not in found["rows"][0]


def test_folders_that_cannot_be_scored(paths: Paths, maps: Path) -> None:
    with pytest.raises(UserError, match="is no folder of maps"):
        open_maps(maps / "absent")
    with pytest.raises(UserError, match="holds no map"):
        open_maps(maps)
    np.save(maps / "stranger_awe.npy", np.eye(3))
    with pytest.raises(
        UserError, match=r"none of the 1 maps .* expected names like a.one_awe, found stranger_awe"
    ):
        score(maps, paths)


def test_names_of_other_archives_are_found(tmp_path: Path) -> None:
    """'#' for '.', mojibake, lost or decomposed accents, another case."""
    quarter = label("b", "awe")
    world = write_release(tmp_path, {("eugène-boudin_st.-valéry", "awe", "test"): quarter})
    for number, name in enumerate(
        (
            "eugène-boudin_st#-valéry",
            "eugã¨ne-boudin_st.-valã©ry",
            "eugene-boudin_st.-valery",
            "euge\u0300ne-boudin_st.-vale\u0301ry",
            "Eugène-Boudin_St.-Valéry",
        )
    ):
        folder = tmp_path / str(number)
        folder.mkdir()
        np.save(folder / f"{name}_awe.npy", quarter)
        found = score(folder, world)
        assert (found["missing"], found["extra"]) == ([], [])
        assert found["rows"][0]["seg_pr50"] == 100.0


# ---- WESD's results ------------------------------------------------------------------------------------


def wesd_record(painting: str, emotion: str) -> dict[str, Any]:
    """Logits whose column of the emotion, on the 7x7 grid, is the label's quarter; other columns mislead."""
    logits = np.zeros((49, 8))
    logits[:, (emotion_index(emotion) + 1) % 8] = np.arange(49)
    cells = np.zeros((7, 7))
    y, x = {"awe": (0, 0), "fear": (0, 4), "sadness": (4, 0)}[emotion]
    cells[y : y + 3, x : x + 3] = 1
    logits[:, emotion_index(emotion)] = 12 * cells.ravel() - 6
    return {"id": f"{painting}_{emotion}", "prediction_matrix": logits.tolist(), "label": emotion}


def test_wesd_results_are_scored_by_the_items_emotion(paths: Paths, tmp_path: Path) -> None:
    records = [wesd_record(painting, emotion) for painting, emotion, _ in ITEMS[:4]]
    records[0]["id"] = "a#one_awe"
    path = tmp_path / "test_result.json"
    path.write_text(json.dumps(records))
    found = score(path, paths)
    assert [found["rows"][0][c] for c in COLUMNS] == [100.0] * 4
    assert found["rows"][0]["method"] == "test_result"
    assert (found["missing"], found["extra"], found["duplicates"]) == ([], [], [])

    records[1]["prediction_matrix"] = [[0.0] * 8] * 48
    records[2]["prediction_matrix"][5][emotion_index("awe")] = float("nan")
    records[3]["id"] = "a.one_awe"
    path.write_text(json.dumps([*records, {"id": "stranger_awe"}]))
    found = score(path, paths)
    assert found["rows"][0]["seg_pr25"] == 25.0
    assert (found["missing"], found["extra"]) == (["b_sadness"], ["stranger_awe"])
    assert found["duplicates"] == ["a.one_awe"]
    problems = "\n".join(found["problems"])
    assert "a.one_fear: unusable map: prediction_matrix has shape (48, 8), expected (49, 8)" in problems
    assert "b_awe: unusable map: map holds 1 of 49 values that are NaN or infinite" in problems


# ---- the command ---------------------------------------------------------------------------------------


def test_the_command_on_the_real_paintings(
    real_art: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Labels as maps give 100 % in all columns, at half size too; their negatives give 0. No step has run."""
    import cli

    release = real_art / "apolo"
    params = tmp_path / "params.yaml"
    csv = real_art / "artemis" / "artemis_dataset_release_v0.csv"
    params.write_text(f"paths: {{artemis: {csv}, apolo: {release}, data: {tmp_path / 'data'}}}\n")
    for name in ("same", "half", "negative"):
        (tmp_path / name).mkdir()
    for path in sorted((release / "apolo_pixel_map").glob("*.npy")):
        truth = np.load(path).astype(np.float32)
        np.save(tmp_path / "same" / path.name, truth)
        np.save(tmp_path / "half" / path.name, truth[::2, ::2])
        np.save(tmp_path / "negative" / path.name, 1 - truth)
    rows = {}
    for name in ("same", "half", "negative"):
        asked = ["score", "--maps", str(tmp_path / name), "--params", str(params), "--json"]
        cli.app(asked, standalone_mode=False)
        found = json.loads(capsys.readouterr().out)
        assert found["items"] == {"apolo": 14, "counted": 14, "rejected": 0}
        assert (found["missing"], found["extra"], found["flagged"], found["problems"]) == ([], [], [], [])
        rows[name] = found["rows"][0]
        assert rows[name]["val_items"] == 4
    assert [rows["same"][c] for c in COLUMNS] == [100.0] * 4
    assert [rows["half"][c] for c in COLUMNS] == [100.0] * 4
    assert [rows["negative"][c] for c in COLUMNS[:2]] == [0.0, 0.0]
    cli.app(["score", "--maps", str(tmp_path / "same"), "--params", str(params)], standalone_mode=False)
    assert "(best on 4 val items)" in capsys.readouterr().out
