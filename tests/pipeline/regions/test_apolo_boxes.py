"""APOLO's released boxes as a source of regions: the default, names, hostile arrays, real paintings."""

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from pipeline.backbones.params import BackbonesParams, VinvlParams
from pipeline.common.errors import UserError
from pipeline.common.files import write_parquet
from pipeline.common.params import Paths
from pipeline.common.schema import ARTWORKS, artwork_key
from pipeline.parallel.map_shards import ParallelParams
from pipeline.regions.params import RegionsParams
from pipeline.regions.region_row import WHOLE, Found, region_row
from pipeline.regions.sources import apolo_boxes
from pipeline.regions.sources.choose import load_source
from pipeline.regions.sources.source import RegionSource
from pipeline.regions.step import build_regions
from pipeline.releases import apolo_arrays
from pipeline.utterances.step import UtterancesParams, build_utterances
from tests.worlds.indexed_shards import paths_in

BACKBONES = BackbonesParams(vinvl=VinvlParams(checkpoint=Path("no/such/detector.pth")), device="cpu")
NAMES = ["anna_plain", "bert_no.-5", "eugène_port", "zoë_mill-1893"]
GRID = np.array([[0.0, 0.0, 0.5, 0.5], [0.25, 0.25, 1.0, 1.0]])


def work(painting: str) -> dict[str, Any]:
    """An artwork of 80 x 40 pixels."""
    return {
        "key": artwork_key("Realism", painting),
        "art_style": "Realism",
        "painting": painting,
        "path": f"Realism/{painting}.jpg",
        "width": 80,
        "height": 40,
        "split": "train",
        "shard": 0,
    }


@pytest.fixture
def world(tmp_path: Path) -> Paths:
    """Four artworks, no boxes yet."""
    paths = paths_in(tmp_path)
    rows = sorted((work(name) for name in NAMES), key=lambda row: row["key"])
    table = pa.Table.from_pylist(rows, schema=ARTWORKS)
    write_parquet(paths.step("utterances") / "artworks.parquet", table)
    (paths.apolo / apolo_arrays.BOXES).mkdir(parents=True)
    return paths


def save(paths: Paths, name: str, array: Any, **more: Any) -> None:
    np.save(paths.apolo / apolo_arrays.BOXES / f"{name}.npy", array, **more)


def build(world: Paths, source: Any = "apolo") -> tuple[dict[str, Any], dict[str, dict[str, Any]]]:
    counts = build_regions(world, RegionsParams(source=source), BACKBONES, ParallelParams())
    rows = pq.read_table(world.step("regions") / "000000.parquet").to_pylist()
    names = {artwork_key("Realism", name): name for name in NAMES}
    return counts, {names[row["key"]]: row for row in rows}


def test_auto_takes_the_released_boxes_where_there_are_any(
    world: Paths, capsys: pytest.CaptureFixture[str]
) -> None:
    assert RegionsParams().source == "auto"
    with pytest.raises(UserError, match=r"no/such/detector\.pth"):  # no boxes, so the detector is asked
        build(world, "auto")
    assert "source vinvl, because" in capsys.readouterr().err
    save(world, NAMES[0], GRID)
    counts, rows = build(world, "auto")
    assert "source apolo, because" in capsys.readouterr().err
    assert (counts["source"], rows[NAMES[0]]["source"]) == ("apolo", "apolo")
    assert build(world, "apolo")[0]["done"] == 0, "the same source by its name is the same work"


def test_a_file_that_comes_or_changes_redoes_its_shard(world: Paths) -> None:
    save(world, NAMES[0], GRID)
    assert build(world)[0]["kept"] == 1
    save(world, NAMES[1], GRID)
    counts, _ = build(world)
    assert (counts["done"], counts["kept"]) == (1, 2)
    save(world, NAMES[1], GRID[:1])
    assert len(build(world)[1][NAMES[1]]["boxes"]) == 1
    assert build(world)[0]["done"] == 0
    moved = GRID[1:] / 2  # as many boxes, so as many bytes
    save(world, NAMES[1], moved)
    counts, rows = build(world)
    assert counts["done"] == 1
    np.testing.assert_allclose(rows[NAMES[1]]["boxes"][0], moved[0] * [80, 40, 80, 40])


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64, ">f4"])
@pytest.mark.parametrize("columns", [4, 6, 2054])
def test_types_and_widths(world: Paths, dtype: Any, columns: int) -> None:
    save(world, NAMES[0], np.pad(GRID, ((0, 0), (0, columns - 4)), constant_values=7).astype(dtype))
    _, rows = build(world)
    assert rows[NAMES[0]]["boxes"] == [[0, 0, 40, 20], [20, 10, 80, 40]]
    assert rows[NAMES[0]]["scores"] == [1, 1]


@pytest.mark.parametrize(
    ("painting", "file"),
    [
        ("bert_no.-5", "bert_no#-5"),
        ("eugène_port", "eugene_port"),
        ("eugène_port", "eugã¨ne_port"),
        ("eugène_port", "euge\u0300ne_port"),
        ("zoë_mill-1893", "zoe_mill-1893"),
    ],
)
def test_spellings(world: Paths, painting: str, file: str) -> None:
    save(world, file, GRID)
    assert list(build(world)[1]) == [painting]


HOSTILE = {
    "pickled": lambda: np.array([[0, 0, 1, 1], None], dtype=object),
    "wrong-shape": lambda: np.zeros((3, 2)),
    "wrong-values": lambda: np.array([[0, 0, 40, 30], [3, 4, 80, 40], [0, 0, 1, 1]]),
    "wrong-values-text": lambda: np.array([["0", "0", "1", "1"]]),
    "wrong-values-complex": lambda: np.zeros((1, 4), complex),
}


@pytest.mark.parametrize("kind", HOSTILE)
def test_hostile_arrays_are_rejects(world: Paths, kind: str, capsys: pytest.CaptureFixture[str]) -> None:
    save(world, NAMES[0], HOSTILE[kind](), allow_pickle=True)
    save(world, NAMES[1], GRID)
    counts, rows = build(world)
    reason = "boxes-wrong-values" if "values" in kind else f"boxes-{kind}"
    assert list(rows) == [NAMES[1]]
    assert counts["reasons"] == {reason: 1, "no-boxes-file": 2}
    said = capsys.readouterr().err
    assert f"{NAMES[0]}.npy" in said
    if kind == "pickled":
        assert "np.save(path, np.load(path, allow_pickle=True).astype('float32'))" in said


@pytest.mark.parametrize("data", [b"", b"\x93NUMPY", b"not an array", b"PK\x03\x04 and so on"])
def test_what_is_no_npy_file_is_a_reject(world: Paths, data: bytes) -> None:
    (world.apolo / apolo_arrays.BOXES / f"{NAMES[0]}.npy").write_bytes(data)
    counts, rows = build(world)
    assert not rows and counts["reasons"] == {"boxes-not-npy": 1, "no-boxes-file": 3}


@pytest.mark.parametrize("shape", [(0, 4), (0, 6), (0,), (0, 0)])
def test_no_boxes_are_the_whole_artwork(world: Paths, shape: tuple[int, ...]) -> None:
    save(world, NAMES[0], np.zeros(shape))
    counts, rows = build(world)
    assert rows[NAMES[0]]["boxes"] == [[0, 0, 80, 40]]
    assert (rows[NAMES[0]]["labels"], rows[NAMES[0]]["source"]) == ([WHOLE], "apolo:whole")
    assert (counts["whole_artworks"], counts["dropped_boxes"]) == (1, 0)


def test_broken_boxes_among_sound_ones(world: Paths) -> None:
    broken = [[0.5, 0, 0.2, 1], [0, 0.5, 1, 0.5], [np.nan, 0, 1, 1], [0, 0, np.inf, 1], [1.2, 0, 1.4, 1]]
    save(world, NAMES[0], np.concatenate([broken, GRID, [[-0.5, 0, 3, 1]]]))
    counts, rows = build(world)
    assert rows[NAMES[0]]["boxes"] == [[0, 0, 40, 20], [20, 10, 80, 40], [0, 0, 80, 40]]
    assert (counts["regions"], counts["dropped_boxes"], counts["cut_boxes"]) == (3, 5, 1)


ANY = hnp.arrays(
    st.sampled_from([np.float16, np.float32, np.float64]),
    st.tuples(st.integers(0, 7), st.integers(4, 6)),
    elements=st.floats(-0.5, 1.5, width=16) | st.sampled_from([np.nan, np.inf, -np.inf, 6e4]),
)


@given(ANY)
def test_in_is_kept_and_dropped_or_rejected(
    tmp_path_factory: pytest.TempPathFactory, array: np.ndarray
) -> None:
    paths = paths_in(tmp_path_factory.getbasetemp() / "any")
    (paths.apolo / apolo_arrays.BOXES).mkdir(parents=True, exist_ok=True)
    save(paths, "p", array)
    ((artwork, found),) = apolo_boxes.regions([work("p")], paths, RegionsParams(), BACKBONES)
    if isinstance(found, Found):
        row, counts = region_row(artwork, found, "apolo")
        assert counts.kept + counts.dropped == len(array)
        for x1, y1, x2, y2 in row["boxes"]:
            assert 0 <= x1 < x2 <= 80 and 0 <= y1 < y2 <= 40
    else:
        assert found.reason == "boxes-wrong-values"
        finite = array[np.isfinite(array[:, :4]).all(axis=1), :4]
        assert (finite > 1.5).any(axis=1).sum() >= len(finite) / 2


def test_real_paintings(real_art: Path, tmp_path: Path) -> None:
    """Through the steps: boxes given in pixels of the real files come back as those pixels."""
    paths = Paths(
        artemis=real_art / "artemis" / "artemis_dataset_release_v0.csv",
        wikiart=real_art / "wikiart",
        apolo=tmp_path / "apolo",
        data=tmp_path / "data",
    )
    shutil.copytree(real_art / "apolo", paths.apolo)
    paths.apolo.chmod(0o755)  # theirs may be read-only
    build_utterances(paths, UtterancesParams(num_shards=2))
    works = pq.read_table(paths.step("utterances") / "artworks.parquet").to_pylist()
    assert len(works) == 7
    rng = np.random.default_rng(0)
    wanted = {}
    (paths.apolo / apolo_arrays.BOXES).mkdir()
    for row in works[1:]:
        size = np.array([row["width"], row["height"]])
        corner = rng.integers(0, size // 2, (5, 2))
        boxes = np.concatenate([corner, corner + rng.integers(2, size // 2, (5, 2))], axis=1)
        wanted[row["key"]] = boxes
        save(paths, row["painting"], (boxes / np.tile(size, 2)).astype(np.float32))
    counts = build_regions(paths, RegionsParams(), BACKBONES, ParallelParams())
    assert (counts["kept"], counts["reasons"], counts["source"]) == (6, {"no-boxes-file": 1}, "apolo")
    assert (counts["regions"], counts["dropped_boxes"], counts["cut_boxes"]) == (30, 0, 0)
    for path in paths.step("regions").glob("*.parquet"):
        for row in pq.read_table(path).to_pylist():
            np.testing.assert_allclose(row["boxes"], wanted[row["key"]], atol=0.01)


def test_every_source_by_its_name() -> None:
    for name in ("vinvl", "apolo", "predictions_tsv", "features_tsv", "faster_rcnn", "sam"):
        assert isinstance(load_source(name), RegionSource)
    with pytest.raises(ValueError, match="auto"):
        load_source("auto")
