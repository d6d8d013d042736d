"""Regions read from the files of VinVL's own code: names, layouts, broken rows, files of any size."""

import base64
import dataclasses
import json
import os
import tracemalloc
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pipeline import regions, storage
from pipeline.backbones import BackbonesParams
from pipeline.parallel import ParallelParams
from pipeline.params import Paths, UserError
from pipeline.regions import RegionsParams, features_tsv, predictions_tsv, tsv
from pipeline.regions.table import WHOLE, region_row
from pipeline.schema import ARTWORKS, artwork_key
from tests.worlds import paths_in

WORKS = [  # (style, painting); pictures are 200 wide and 100 high
    ("Realism", "anna_mill"),
    ("Realism", "eugène_le-port.-5"),
    ("Romanticism", "twin_storm"),
    ("Realism", "twin_storm"),
    ("Realism", "zed_last"),
]
BACKBONES = BackbonesParams(device="cpu")


@pytest.fixture
def world(tmp_path: Path) -> Paths:
    """An artworks table in two shards; no picture is needed."""
    paths = paths_in(tmp_path)
    rows = [
        {
            "key": artwork_key(style, painting),
            "art_style": style,
            "painting": painting,
            "path": f"{style}/{painting}.jpg",
            "width": 200,
            "height": 100,
            "split": "train",
            "shard": number % 2,
        }
        for number, (style, painting) in enumerate(WORKS)
    ]
    table = pa.Table.from_pylist(rows, schema=ARTWORKS)
    storage.write_parquet(paths.step("utterances") / "artworks.parquet", table)
    return paths


def thing(rect: Any, name: Any = "tree", conf: Any = 0.9, **more: Any) -> dict[str, Any]:
    feature = base64.b64encode(np.zeros(2048, np.float32)).decode()
    return {"rect": rect, "bbox_id": 0, "class": name, "conf": conf, "feature": feature, **more}


def predictions(path: Path, rows: list[tuple[str, list[Any]]]) -> Path:
    lines = [f"{name}\t{json.dumps({'objects': objects, 'relations': None})}\n" for name, objects in rows]
    path.write_text("".join(lines), encoding="utf-8")
    return path


def params_of(path: Path, source: str = "predictions_tsv", **more: Any) -> RegionsParams:
    return RegionsParams(source=source, tsv=path, **more)  # type: ignore[arg-type]


def build(
    world: Paths, params: RegionsParams
) -> tuple[dict[str, Any], dict[tuple[str, str], dict[str, Any]]]:
    """Counts, and the stored row of each (style, painting)."""
    counts = regions.build(world, params, BACKBONES, ParallelParams())
    by_key = {
        row["key"]: row
        for path in sorted(world.step("regions").glob("*.parquet"))
        for row in pq.read_table(path).to_pylist()
    }
    return counts, {work: by_key[artwork_key(*work)] for work in WORKS if artwork_key(*work) in by_key}


def test_predictions_become_rows(world: Paths, tmp_path: Path) -> None:
    weak = [thing([0, 0, 20 + i, 20], "weak", 0.1) for i in range(3)]
    objects = [
        *weak,
        thing([10.5, 20.25, 60, 80], "house", 0.9, attributes=["red", "old", "x"], attr_scores=[0.7, 0.1, 0]),
        thing([0, 0, 250, 100.5], "sky", 0.8, attributes=[], attr_scores=[]),
        thing([5, 5, 5, 50], "line", 0.95),
    ]
    file = predictions(
        tmp_path / "predictions.tsv", [("anna_mill", objects), ("zed_last", []), ("other", [])]
    )
    counts, rows = build(world, params_of(file, min_detections=1))
    row = rows["Realism", "anna_mill"]
    assert row["boxes"] == [[10.5, 20.25, 60, 80], [0, 0, 200, 100]]
    assert row["labels"] == ["house", "sky"]
    assert row["scores"] == pytest.approx([0.9, 0.8])
    assert row["attributes"] == [["red", "old"], []]
    assert (row["source"], row["masks"]) == ("predictions_tsv", None)
    assert rows["Realism", "zed_last"]["labels"] == [WHOLE]
    assert rows["Realism", "zed_last"]["source"] == "predictions_tsv:whole"
    assert (counts["kept"], counts["rejected"], counts["reasons"]) == (2, 3, {"not-in-source": 3})
    assert (counts["weak_boxes"], counts["dropped_boxes"], counts["cut_boxes"]) == (3, 1, 1)
    assert (counts["regions"], counts["whole_artworks"]) == (3, 1)
    assert (counts["tsv_rows"], counts["tsv_unused"], counts["tsv_malformed"]) == (3, 1, 0)


def test_weak_objects_fill_up_to_the_fewest_and_stop_at_the_most(world: Paths, tmp_path: Path) -> None:
    objects = [thing([0, 0, 10 + i, 10], str(i), conf) for i, conf in enumerate((0.1, 0.05, 0.3, 0.15))]
    file = predictions(tmp_path / "p.tsv", [("anna_mill", objects)])
    for fewest, most, expected in ((1, 9, ["2"]), (3, 9, ["2", "3", "0"]), (9, 9, ["2", "3", "0", "1"])):
        _, rows = build(world, params_of(file, min_detections=fewest, max_detections=most))
        assert rows["Realism", "anna_mill"]["labels"] == expected
    _, rows = build(world, params_of(file, min_detections=1, max_detections=2, score_threshold=0.0))
    assert rows["Realism", "anna_mill"]["labels"] == ["2", "3"]


@pytest.mark.parametrize(
    "name",
    [
        "eugène_le-port.-5",
        "eugène_le-port.-5.jpg",
        "Realism/eugène_le-port.-5.jpg",
        "/data/wikiart/Realism/eugène_le-port.-5.PNG",
        "Realism\\eugène_le-port.-5.jpg",
        "eugã¨ne_le-port.-5",
        "eugÃ¨ne_le-port.-5.jpg",
        "eugene_le-port.-5",
        "eugène_le-port#-5",
        "eugène_le-port#-5#jpg",
        "euge\u0300ne_le-port.-5",
        "b'Realism/eugene_le-port.-5.jpg'",
        repr("eugène_le-port.-5".encode()),
        '"eugène_le-port.-5"',
        artwork_key("Realism", "eugène_le-port.-5"),
        "\ufeffeugène_le-port.-5",
    ],
)
def test_a_painting_is_found_under_any_name(world: Paths, tmp_path: Path, name: str) -> None:
    file = predictions(tmp_path / "p.tsv", [(name, [thing([1, 2, 3, 4])])])
    counts, rows = build(world, params_of(file))
    assert rows["Realism", "eugène_le-port.-5"]["boxes"] == [[1, 2, 3, 4]]
    assert (counts["kept"], counts["tsv_unused"]) == (1, 0)


def test_latin_1_names(world: Paths, tmp_path: Path) -> None:
    file = tmp_path / "p.tsv"
    line = f"eugène_le-port.-5\t{json.dumps([thing([1, 2, 3, 4])])}\n"
    file.write_bytes(line.encode("latin-1"))
    _, rows = build(world, params_of(file))
    assert list(rows) == [("Realism", "eugène_le-port.-5")]


def test_one_painting_in_two_styles(world: Paths, tmp_path: Path) -> None:
    """The folder decides; a name without one serves both; and a file's own repetition changes nothing."""
    storm = [("Romanticism", "twin_storm"), ("Realism", "twin_storm")]
    named = [(f"{style}/twin_storm.jpg", [thing([0, 0, 10 + i, 10])]) for i, (style, _) in enumerate(storm)]
    bare = ("twin_storm", [thing([0, 0, 50, 10])])
    cases = [
        (named, [10, 11]),
        ([bare, *named], [10, 11]),
        ([bare, named[0]], [10, 50]),
        ([bare], [50, 50]),
        ([named[1]], [11, 11]),
        ([named[0], named[1], (named[0][0], [thing([0, 0, 99, 99])])], [10, 11]),
    ]
    for number, (content, widths) in enumerate(cases):
        file = predictions(tmp_path / f"{number}.tsv", content)
        counts, rows = build(world, params_of(file))
        assert [rows[work]["boxes"][0][2] for work in storm] == widths
        assert counts["tsv_unused"] == len(content) - len(set(widths))


def test_the_exact_name_goes_first() -> None:
    index = tsv.Tsv(Path("x"), "", 0, ["rene_etude", "rené_étude"], np.zeros(2), np.zeros(2))
    for name, row in (("rene_etude", 0), ("rené_étude", 1), ("RENE_ETUDE", 0)):
        assert index.find({"key": "k", "art_style": "Realism", "painting": name}) == row


BROKEN = {
    "no-json": "anna_mill\t{'objects': []}",
    "cut": 'anna_mill\t{"objects": [{"rect": [1, 2',
    "number": "anna_mill\t3",
    "objects-no-list": 'anna_mill\t{"objects": {"rect": 3}}',
    "deep": "anna_mill\t" + "[" * 100_000,
    "empty": "anna_mill\t",
}


@pytest.mark.parametrize("kind", BROKEN)
def test_a_broken_row_is_a_reject(world: Paths, tmp_path: Path, kind: str) -> None:
    file = tmp_path / "p.tsv"
    file.write_text(BROKEN[kind] + "\n\nno tab here\n\tno name\nzed_last\t[]", encoding="utf-8")
    counts, rows = build(world, params_of(file))
    assert list(rows) == [("Realism", "zed_last")]
    assert counts["reasons"] == {"malformed-row": 1, "not-in-source": 3}
    assert (counts["tsv_rows"], counts["tsv_malformed"]) == (4, 2)


JSON = st.recursive(
    st.none() | st.booleans() | st.floats() | st.integers() | st.text(st.characters()),
    lambda inner: st.lists(inner, max_size=5) | st.dictionaries(st.text(max_size=5), inner, max_size=4),
    max_leaves=8,
)
NUMBER = st.floats() | st.floats(-50, 300) | st.integers(-50, 10**400) | st.sampled_from(["7", "x", None])
OBJECT = st.fixed_dictionaries(
    {},
    optional={
        "rect": st.lists(NUMBER, min_size=3, max_size=5) | JSON,
        "class": JSON,
        "conf": NUMBER | JSON,
        "attributes": st.lists(JSON, max_size=3) | JSON,
        "attr_scores": st.lists(NUMBER, max_size=3) | JSON,
    },
)


@given(st.lists(OBJECT | JSON, max_size=6), st.floats(1e-3, 1e3))
@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_whatever_the_objects_every_stored_box_is_sound(objects: list[Any], scale: float) -> None:
    """in = kept + weak + dropped, and what is stored lies in the picture."""
    read = predictions_tsv.read_objects([json.dumps(objects)])
    params = RegionsParams(min_detections=1, max_detections=2)
    found = predictions_tsv.select(predictions_tsv.from_objects(read, True), np.full(4, scale), params)
    row, counts = region_row({"key": "k", "width": 200, "height": 100}, found, "x")
    assert counts.kept + counts.weak + counts.dropped == len(objects)
    assert counts.kept <= 2 and counts.whole == (counts.kept == 0)
    for x1, y1, x2, y2 in row["boxes"]:
        assert 0 <= x1 < x2 <= 200 and 0 <= y1 < y2 <= 100
    assert np.isfinite(row["scores"]).all()
    pa.Table.from_pylist([row], schema=regions.REGIONS)


@pytest.mark.parametrize("text", ['[{"height": 50, "width": 400}]', '{"height": 50, "width": 400}', "50 400"])
def test_boxes_of_a_picture_in_another_size(world: Paths, tmp_path: Path, text: str) -> None:
    file = predictions(tmp_path / "p.tsv", [(name, [thing([100, 10, 400, 50])]) for _, name in WORKS])
    sizes = tmp_path / "hw.tsv"
    sizes.write_text(f"anna_mill\t{text}\nzed_last\t[0, 7]\n", encoding="utf-8")
    counts, rows = build(world, params_of(file, tsv_sizes=sizes))
    assert rows["Realism", "anna_mill"]["boxes"] == [[50, 20, 200, 100]]  # half as wide, twice as high
    assert counts["reasons"] == {"no-size": 4}
    assert counts["cut_boxes"] == 0
    counts, _ = build(world, params_of(file))
    assert counts["cut_boxes"] == 5


def test_what_only_the_user_can_mend(world: Paths, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"regions\.tsv must name"):
        build(world, RegionsParams(source="features_tsv"))
    with pytest.raises(UserError, match=r"gone\.tsv does not exist"):
        build(world, params_of(tmp_path / "gone.tsv"))
    file = predictions(tmp_path / "p.tsv", [("000001", []), ("000002", [])])
    with pytest.raises(UserError, match=r"none of the 5 artworks is in .*'000001', '000002'; paintings"):
        build(world, params_of(file))
    (tmp_path / "empty.tsv").touch()
    with pytest.raises(UserError, match="there are none"):
        build(world, params_of(tmp_path / "empty.tsv"))


def test_lineidx_is_not_read_and_rows_may_end_in_any_way(world: Paths, tmp_path: Path) -> None:
    lines = [f"{name}\t{json.dumps([thing([0, 0, 10 + i, 9])])}" for i, (_, name) in enumerate(WORKS)]
    for number, end in enumerate(("\n", "\r\n")):
        file = tmp_path / f"p{number}.tsv"
        file.write_text(end.join(lines), encoding="utf-8", newline="")
        offsets = np.cumsum([0] + [len(line) for line in lines])  # characters, as the original counts
        file.with_suffix(".lineidx").write_text("\n".join(str(o) for o in offsets))
        _, rows = build(world, params_of(file))
        assert [row["boxes"][0][2] for row in rows.values()] == [10, 11, 12, 12, 14]


def test_done_shards_stay_done_until_the_file_changes(world: Paths, tmp_path: Path) -> None:
    file = predictions(tmp_path / "p.tsv", [(name, [thing([0, 0, 10, 9])]) for _, name in WORKS])
    assert build(world, params_of(file))[0]["done"] == 2
    first = {path.name: path.read_bytes() for path in world.step("regions").iterdir()}
    assert build(world, params_of(file))[0]["done"] == 0
    os.utime(file, ns=(1, 1))  # a copy: other times, the same content
    assert build(world, params_of(file))[0]["done"] == 0
    renamed = file.rename(tmp_path / "q.tsv")
    assert build(world, params_of(renamed))[0]["done"] == 0
    renamed.write_bytes(renamed.read_bytes().replace(b"[0, 0, 10, 9]", b"[0, 0, 11, 9]"))
    counts, rows = build(world, params_of(renamed))
    assert counts["done"] == 2
    assert {row["boxes"][0][2] for row in rows.values()} == {11}
    assert {path.name for path in world.step("regions").iterdir()} == set(first)
    assert build(world, params_of(renamed, max_detections=39))[0]["done"] == 2


def test_a_damaged_index_is_made_again(world: Paths, tmp_path: Path) -> None:
    file = predictions(tmp_path / "p.tsv", [(name, [thing([0, 0, 10, 9])]) for _, name in WORKS])
    build(world, params_of(file))
    (cached,) = world.step(tsv.FOLDER).iterdir()
    good = cached.read_bytes()
    for damaged in (b"", good[:-20], b"PAR1" * 10):
        cached.write_bytes(damaged)
        tsv._open_at.cache_clear()
        assert build(world, params_of(file))[0]["kept"] == 5
        assert cached.read_bytes() == good


def test_a_file_that_changes_under_the_run(world: Paths, tmp_path: Path) -> None:
    file = predictions(tmp_path / "p.tsv", [(name, []) for _, name in WORKS])
    index = tsv.open_tsv(file, "tsv", world)
    file.write_text("x\t[]\n" + file.read_text(encoding="utf-8"), encoding="utf-8")
    with file.open("rb") as opened, pytest.raises(UserError, match="was changed while it was read"):
        index.columns_of(opened, {"key": "k", "art_style": "Realism", "painting": "zed_last"})


def test_the_pass_over_a_file_holds_little_of_it(
    world: Paths, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """40 MB in rows of 8 MB, one of them without an end."""
    monkeypatch.setattr(tsv, "PIECE", 1 << 16)
    monkeypatch.setattr(tsv, "MAX_ROW", 9 << 20)
    file = tmp_path / "big.tsv"
    with file.open("wb") as out:
        for _, name in WORKS[:3]:
            out.write(f"{name}\t".encode() + b"A" * (8 << 20) + b"\n")
        out.write(b"zed_last\t" + b"\0" * (16 << 20))
    tracemalloc.start()
    index = tsv.open_tsv(file, "tsv", world)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 8 << 20
    assert (index.names, index.malformed) == ([name for _, name in WORKS[:3]], 1)
    assert index.sha256 == storage.sha256_file(file)
    with file.open("rb") as opened:
        columns = index.columns_of(opened, {"key": "k", "art_style": "x", "painting": "twin_storm"})
    assert columns == ["A" * (8 << 20)]


# ---- features.tsv ------------------------------------------------------------------------------------

BOXES = np.array([[0.1, 0.2, 0.5, 0.6], [0.0, 0.0, 1.0, 1.0], [0.25, 0.5, 0.75, 1.0]])


def features(boxes: np.ndarray = BOXES, order: tuple[int, ...] = (0, 1, 2, 3, 4, 5)) -> np.ndarray:
    """VinVL's features, random, with the six numbers of the box behind them."""
    rng = np.random.default_rng(0)
    six = np.concatenate([boxes, boxes[:, 2:] - boxes[:, :2]], axis=1)[:, order]
    return np.concatenate([rng.normal(size=(len(boxes), 2048)), six], axis=1).astype("<f4")


def coded(array: np.ndarray) -> str:
    return base64.b64encode(array.tobytes()).decode()


LAYOUTS = {
    "positional": lambda a: f"{len(a)}\t{coded(a)}",
    "positional-bytes": lambda a: f"{len(a)}\tb'{coded(a)}'",
    "no-count": coded,
    "float16": lambda a: f"{len(a)}\t{coded(a.astype('<f2'))}",
    "json": lambda a: json.dumps({"num_boxes": len(a), "features": coded(a)}),
    "json-text-count": lambda a: json.dumps({"num_boxes": str(len(a)), "features": coded(a)}),
    "json-bytes-inside": lambda a: json.dumps({"num_boxes": len(a), "features": f"b'{coded(a)}'"}),
    "json-bytes-outside": lambda a: repr(json.dumps({"num_boxes": len(a), "features": coded(a)}).encode()),
    "list": lambda a: json.dumps([{"feature": coded(row)} for row in a]),
    "objects": lambda a: json.dumps({"objects": [{"feature": coded(row)} for row in a]}),
}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_features_in_every_layout(world: Paths, tmp_path: Path, layout: str) -> None:
    file = tmp_path / "features.tsv"
    none = np.zeros((0, 2054), "<f4")
    file.write_text(f"anna_mill\t{LAYOUTS[layout](features())}\nzed_last\t{LAYOUTS[layout](none)}\n")
    counts, rows = build(world, params_of(file, "features_tsv"))
    np.testing.assert_allclose(
        rows["Realism", "anna_mill"]["boxes"],
        [[20, 20, 100, 60], [0, 0, 200, 100], [50, 50, 150, 100]],
        atol=0.1 if layout == "float16" else 1e-4,
    )
    assert rows["Realism", "anna_mill"]["source"] == "features_tsv"
    assert rows["Realism", "anna_mill"]["attributes"] is None
    assert counts["reasons"]["not-in-source"] == 3
    assert counts["kept"] == 2 and counts["whole_artworks"] == 1


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (f"3\t{coded(features()[:, :2048].copy())}", "wrong-width"),
        (f"3\t{coded(features()[:, :2053].copy())}", "wrong-width"),
        (f"3\t{coded(features(order=(0, 2, 1, 3, 4, 5)))}", "wrong-order"),
        (f"3\t{coded(features(order=(0, 1, 4, 5, 2, 3)))}", "wrong-order"),
        (f"3\t{coded(features(order=(2, 3, 0, 1, 4, 5)))}", "wrong-order"),
        (f"3\t{coded(features(BOXES * 100))}", "wrong-values"),
        (f"4\t{coded(features())}", "wrong-width"),
        (f"5\t{coded(features())}", "malformed-row"),
        (f"0\t{coded(features())}", "malformed-row"),
        (f"-3\t{coded(features())}", "malformed-row"),
        (f"three\t{coded(features())}", "malformed-row"),
        (f"3\t{coded(features())[:-3]}", "malformed-row"),
        ("3\t", "malformed-row"),
        ('{"num_boxes": 3}', "malformed-row"),
        ('{"num_boxes": 3, "features": 3}', "malformed-row"),
        ('[{"rect": [1, 2, 3, 4]}]', "malformed-row"),
        ('[{"feature": "AAAAAA=="}, {"feature": "AAAA', "malformed-row"),
    ],
)
def test_features_that_cannot_be_used(world: Paths, tmp_path: Path, content: str, reason: str) -> None:
    """One such row is a reject; a file of nothing else ends the run before it starts."""
    file = tmp_path / "features.tsv"
    good = f"3\t{coded(features())}"
    file.write_text(f"anna_mill\t{content}\nzed_last\t{good}\n")
    counts, rows = build(world, params_of(file, "features_tsv"))
    assert list(rows) == [("Realism", "zed_last")]
    assert counts["reasons"] == {reason: 1, "not-in-source": 3}
    file.write_text(f"anna_mill\t{content}\n")
    with pytest.raises(UserError, match=f"none of the first 1 rows can be used; {reason}"):
        build(world, params_of(file, "features_tsv"))


def test_single_broken_boxes_are_dropped_and_not_the_row() -> None:
    boxes = np.concatenate([BOXES, [[0.6, 0.1, 0.2, 0.5], [np.nan, 0, 1, 1], [0.3, 0.3, 0.3, 0.9]]])
    found = features_tsv.read_boxes([str(len(boxes)), coded(features(boxes))])
    np.testing.assert_allclose(found, boxes, atol=1e-6)


@given(st.binary(max_size=40) | st.binary(min_size=8, max_size=8).map(lambda b: b * 1027), st.integers(-2, 9))
@settings(deadline=None)
def test_any_bytes_as_features(data: bytes, count: int) -> None:
    try:
        boxes = features_tsv.read_boxes([str(count), base64.b64encode(data).decode()])
    except tsv.BadRow as error:
        assert error.reason in ("malformed-row", "wrong-width", "wrong-order", "wrong-values")
    else:
        assert boxes.shape == (count, 4)


def test_settings_that_a_source_does_not_read_redo_nothing(world: Paths, tmp_path: Path) -> None:
    file = tmp_path / "features.tsv"
    file.write_text(f"anna_mill\t3\t{coded(features())}\n")
    params = params_of(file, "features_tsv")
    assert build(world, params)[0]["done"] == 2
    assert build(world, dataclasses.replace(params, nms_mode=2, max_detections=50))[0]["done"] == 0
