"""Verdicts from Label Studio and CVAT: what these tools write, by hand and by Label Studio's own package."""

import json
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any
from xml.sax.saxutils import quoteattr

import cv2
import numpy as np
import pytest

from pipeline.common import rle
from pipeline.common.errors import UserError
from pipeline.common.params import Paths
from pipeline.export_masks.brush_rle import encode_brush
from pipeline.export_masks.command import export_masks
from pipeline.export_masks.records import ExportOptions
from pipeline.masks.reviewed import mask_of_runs
from pipeline.reader.index import Index
from pipeline.review.foreign import verdict_of
from pipeline.review.import_reviews import import_reviews
from pipeline.reviews.verdicts import Verdict, read_reviews
from tests.pipeline.review.world import write_reviewed


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Paths:
    return write_reviewed(tmp_path_factory.mktemp("imported"))


@pytest.fixture
def paths(made: Paths, tmp_path: Path) -> Paths:
    return Paths(**{**vars(made), "reviews": tmp_path / "reviews"})


def stored(paths: Paths, key: str, emotion: str) -> np.ndarray:
    """The mask above the protocol's threshold, bool."""
    data = np.frombuffer(Index.load(paths.step("shards")).read(key, f"{emotion}.png"), np.uint8)
    return np.asarray(cv2.imdecode(data, cv2.IMREAD_GRAYSCALE) > int(0.35 * 255))


def corrected(verdict: Verdict) -> np.ndarray:
    assert verdict.corrected is not None
    height, width = json.loads(verdict.corrected)["size"]
    return mask_of_runs(rle.decode(verdict.corrected, height, width), height, width) > 0


def smaller(mask: np.ndarray) -> np.ndarray:
    """The left half of what is inside."""
    out = mask.copy()
    out[:, int(np.median(np.nonzero(mask)[1])) :] = False
    return out


def label_studio(
    paths: Paths,
    folder: Path,
    change: Callable[[int, np.ndarray], tuple[str | None, np.ndarray | None]],
    encode: Callable[[np.ndarray], list[int]] = encode_brush,
    size: Any = "stored",
) -> tuple[Path, list[dict[str, Any]]]:
    """The tasks of `export-masks` as Label Studio gives them back; `change`: what (number, mask) become."""
    export_masks(paths.step("shards"), folder / "out", "label-studio", ExportOptions(size=size))
    tasks = json.loads((folder / "out" / "tasks.json").read_text())
    for number, task in enumerate(tasks):
        given = task["predictions"][0]["result"][0]
        shape = given["original_height"], given["original_width"]
        before = stored(paths, task["data"]["key"], task["data"]["emotion"])
        if before.shape != shape:
            from pipeline.export_masks.brush_rle import decode_brush

            before = decode_brush(given["value"]["rle"], *shape)
        choice, mask = change(number, before)
        results = []
        if mask is not None:
            value = {**given["value"], "rle": encode(mask)}
            results.append({**given, "id": "x", "value": value})
        if choice:
            results.append({"type": "choices", "from_name": "verdict", "value": {"choices": [choice]}})
        person = {"id": 3, "email": "eva@example.org"} if number % 2 else 7
        when = "2026-11-20T10:00:00.123456Z"
        annotation = {"id": number + 1, "completed_by": person, "created_at": when, "updated_at": when}
        task["annotations"] = [{**annotation, "was_cancelled": number == 5, "result": results}]
    file = folder / "export.json"
    file.write_text(json.dumps(tasks))
    return file, tasks


def of_the_sdk(mask: np.ndarray) -> list[int]:
    """As Label Studio's own package writes it: the bytes of RGBA, with the mask in every channel."""
    brush = pytest.importorskip("label_studio_sdk.converter.brush")
    numbers: list[int] = brush.mask2rle(mask.astype(np.uint8) * 255)
    return numbers


def judged(number: int, mask: np.ndarray) -> tuple[str | None, np.ndarray | None]:
    """One way of judging after another."""
    return [
        ("good", mask),
        ("wrong place", mask),
        ("too big", smaller(mask)),
        ("good", np.roll(mask, mask.shape[1] // 2, 1)),  # good now, because it was changed
        ("not visible", None),
        ("good", mask),  # cancelled
        (None, mask),
        (None, smaller(mask)),
        (None, None),
    ][number if number < 9 else 0]


@pytest.mark.parametrize("size", ["stored", "picture"])
@pytest.mark.parametrize("encode", [encode_brush, of_the_sdk], ids=["ours", "sdk"])
def test_label_studio_says_what_its_people_said(paths: Paths, tmp_path: Path, encode: Any, size: str) -> None:
    file, tasks = label_studio(paths, tmp_path, judged, encode, size)
    found = import_reviews(file, "label-studio", paths, None)
    assert found["annotations"] == len(tasks) == found["imported"] + found["rejected"]
    assert (found["known"], found["reasons"], found["corrected"]) == (0, {"no-verdict": 1}, 3)
    lines = {(one.key, one.emotion): one for one in read_reviews(paths.reviews).verdicts}
    said = [lines.get((task["data"]["key"], task["data"]["emotion"])) for task in tasks]
    names = [one and one.verdict for one in said[:9]]
    derived = names.pop(3)
    assert names == ["good", "wrong-place", "too-big", "not-visible", "skip", "good", "too-big", None]
    assert derived in ("wrong-place", "too-big") and said[3].corrected is not None
    assert {one.by for one in lines.values()} == {"eva@example.org", "label-studio-7"}
    assert said[0].at == "2026-11-20T10:00:00.123Z" and said[1].corrected is None
    given = tasks[2]["annotations"][0]["result"][0]
    from pipeline.export_masks.brush_rle import decode_brush

    wanted = decode_brush(given["value"]["rle"], given["original_height"], given["original_width"])
    np.testing.assert_array_equal(corrected(said[2]), wanted)
    again = import_reviews(file, "label-studio", paths, None)
    assert (again["imported"], again["known"]) == (0, found["imported"])


def test_hostile_and_outdated_tasks_are_rows_with_a_reason(paths: Paths, tmp_path: Path) -> None:
    file, tasks = label_studio(paths, tmp_path, judged)
    good = tasks[0]
    bad = [json.loads(json.dumps(good)) for _ in range(7)]
    bad[0]["data"]["key"] = "../../x"
    bad[1]["data"]["emotion"] = "joy"
    bad[2]["predictions"][0]["model_version"] = "of another recipe"
    bad[3]["annotations"][0]["result"][0]["value"]["rle"] = [0, 0, 1]
    bad[4]["annotations"][0]["updated_at"] = "yesterday"
    bad[5].pop("annotations")
    bad[6]["annotations"] = [5]
    file.write_text(json.dumps([*bad, good]))
    found = import_reviews(file, "label-studio", paths, "bob")
    assert (found["annotations"], found["imported"]) == (8, 1)
    assert found["reasons"] == {
        "another-mask": 1, "at": 1, "no-annotations": 1, "no-such-mask": 2, "not-readable": 2
    }  # fmt: skip
    assert [one.by for one in read_reviews(paths.reviews).verdicts] == ["bob"]


MASK = '<mask label={label} source="manual" occluded="0" {shape} z_order="0">{inner}</mask>'


def cvat(paths: Paths, images: list[tuple[str, int, int, list[str]]]) -> str:
    body = "".join(
        f'<image id="{number}" name={quoteattr(name)} width="{width}" height="{height}">'
        f"{''.join(inner)}</image>"
        for number, (name, width, height, inner) in enumerate(images)
    )
    meta = (
        "<meta><task><owner><username>admin</username></owner><assignee><username>kim</username></assignee>"
        "</task><dumped>2026-11-21 09:30:00.5+00:00</dumped></meta>"
    )
    inside = f"<version>1.1</version>{meta}{body}"
    return f'<?xml version="1.0" encoding="utf-8"?><annotations>{inside}</annotations>'


def shape(mask: np.ndarray, label: str, inner: str = "") -> str:
    """As CVAT writes it: the run lengths of the mask's own rectangle, row by row."""
    rows, columns = np.nonzero(mask)
    top, left = rows.min(), columns.min()
    part = mask[top : rows.max() + 1, left : columns.max() + 1]
    counts, value, length = [], False, 0
    for pixel in part.ravel().tolist():
        if pixel != value:
            counts.append(length)
            value, length = pixel, 0
        length += 1
    text = ", ".join(str(count) for count in [*counts, length])
    place = f'rle="{text}" left="{left}" top="{top}" width="{part.shape[1]}" height="{part.shape[0]}"'
    return MASK.format(label=quoteattr(label), shape=place, inner=inner)


def pairs(paths: Paths) -> list[tuple[str, str]]:
    return [(row.key, emotion) for row in Index.load(paths.step("shards")).rows() for emotion in row.emotions]


def picture_of(paths: Paths, key: str) -> str:
    from pipeline.review.material import Material

    return next(path for path, of in Material(paths).pictures().items() if of == key)


def test_cvat_says_what_its_people_drew(paths: Paths, tmp_path: Path) -> None:
    key = pairs(paths)[0][0]
    emotions = [emotion for of, emotion in pairs(paths) if of == key]
    masks = [stored(paths, key, emotion) for emotion in emotions]
    shapes = [
        shape(masks[0], emotions[0]),
        shape(smaller(masks[1]), emotions[1]),
        shape(~masks[2], emotions[2]),
        shape(masks[3], emotions[3], '<attribute name="verdict">wrong place</attribute>'),
        '<box label="awe" xtl="1" ytl="1" xbr="5" ybr="5"/>',
        shape(masks[0], "joy"),
        MASK.format(label='"awe"', shape='rle="5" left="0" top="0" width="9" height="9"', inner=""),
    ]
    images = [(f"wikiart/{picture_of(paths, key)}", 256, 192, shapes), ("no such.jpg", 2, 2, [])]
    file = tmp_path / "export.zip"
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("annotations.xml", cvat(paths, images))
    found = import_reviews(file, "cvat", paths, None)
    assert (found["annotations"], found["imported"], found["corrected"]) == (8, 4, 2)
    assert found["reasons"] == {
        "no-such-picture": 1, "not-a-mask": 1, "not-an-emotion": 1, "not-readable": 1
    }  # fmt: skip
    said = {one.emotion: one for one in read_reviews(paths.reviews).verdicts}
    assert [said[e].verdict for e in emotions] == ["good", "too-big", "wrong-place", "wrong-place"]
    assert {(one.by, one.at) for one in said.values()} == {("kim", "2026-11-21T09:30:00.500Z")}
    np.testing.assert_array_equal(corrected(said[emotions[1]]), smaller(masks[1]))
    np.testing.assert_array_equal(corrected(said[emotions[2]]), ~masks[2])
    assert import_reviews(file, "cvat", paths, None)["known"] == 4


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("not xml", "syntax error"),
        ("<x/>", "its root is 'x'"),
        ('<!DOCTYPE a [<!ENTITY b "c">]><annotations>&b;</annotations>', "document type"),
        ("<annotations/>", "holds no annotation"),
    ],
)
def test_what_cvat_never_writes_is_refused(paths: Paths, tmp_path: Path, text: str, message: str) -> None:
    file = tmp_path / "export.xml"
    file.write_text(text)
    with pytest.raises(UserError, match=message):
        import_reviews(file, "cvat", paths, None)
    with pytest.raises(UserError, match="no JSON export of Label Studio"):
        import_reviews(file, "label-studio", paths, None)
    with pytest.raises(UserError, match="does not exist"):
        import_reviews(tmp_path / "absent", "cvat", paths, None)


def test_a_changed_mask_says_what_was_wrong() -> None:
    before = np.zeros((10, 10), bool)
    before[2:8, 2:8] = True
    assert verdict_of(before, before) == "good"
    assert verdict_of(before, np.zeros_like(before)) == "not-visible"
    assert verdict_of(before, smaller(before)) == "too-big"
    assert verdict_of(before, np.roll(before, 3, 0)) == "wrong-place"
