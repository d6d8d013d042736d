"""Files of VinVL's own code: names in all their forms, files of any size, and which shards they redo."""

import json
import os
import tracemalloc
from pathlib import Path

import numpy as np
import pytest

from pipeline.common.errors import UserError
from pipeline.common.fingerprint import sha256_file
from pipeline.common.params import Paths
from pipeline.common.schema import artwork_key
from pipeline.regions.params import RegionsParams
from pipeline.regions.sources import tsv_file
from tests.worlds.region_tsv import WORKS, build, params_of, predictions, thing, write_artworks


@pytest.fixture
def world(tmp_path: Path) -> Paths:
    return write_artworks(tmp_path)


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
    index = tsv_file.Tsv(Path("x"), "", 0, ["rene_etude", "rené_étude"], np.zeros(2), np.zeros(2))
    for name, row in (("rene_etude", 0), ("rené_étude", 1), ("RENE_ETUDE", 0)):
        assert index.find({"key": "k", "art_style": "Realism", "painting": name}) == row


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
    (cached,) = world.step(tsv_file.FOLDER).iterdir()
    good = cached.read_bytes()
    for damaged in (b"", good[:-20], b"PAR1" * 10):
        cached.write_bytes(damaged)
        tsv_file._open_at.cache_clear()
        assert build(world, params_of(file))[0]["kept"] == 5
        assert cached.read_bytes() == good


def test_one_flipped_bit_of_an_index_is_never_believed(world: Paths, tmp_path: Path) -> None:
    file = predictions(tmp_path / "p.tsv", [(name, [thing([0, 0, 10, 9])]) for _, name in WORKS])

    def index() -> tuple[object, ...]:
        tsv_file._open_at.cache_clear()
        tsv = tsv_file.open_tsv(file, "tsv", world)
        return tsv.sha256, tsv.malformed, list(tsv.names), tsv.offsets.tolist(), tsv.lengths.tolist()

    right = index()
    (cached,) = world.step(tsv_file.FOLDER).iterdir()
    good = cached.read_bytes()
    for bit in range(0, 8 * len(good), 131):  # a prime, so that all places in a byte are met
        damaged = bytearray(good)
        damaged[bit // 8] ^= 1 << bit % 8
        cached.write_bytes(damaged)
        assert index() == right, f"bit {bit}"


def test_a_file_that_changes_under_the_run(world: Paths, tmp_path: Path) -> None:
    file = predictions(tmp_path / "p.tsv", [(name, []) for _, name in WORKS])
    index = tsv_file.open_tsv(file, "tsv", world)
    file.write_text("x\t[]\n" + file.read_text(encoding="utf-8"), encoding="utf-8")
    with file.open("rb") as opened, pytest.raises(UserError, match="was changed while it was read"):
        index.columns_of(opened, {"key": "k", "art_style": "Realism", "painting": "zed_last"})


def test_the_pass_over_a_file_holds_little_of_it(
    world: Paths, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """40 MB in rows of 8 MB, one of them without an end."""
    monkeypatch.setattr(tsv_file, "PIECE", 1 << 16)
    monkeypatch.setattr(tsv_file, "MAX_ROW", 9 << 20)
    file = tmp_path / "big.tsv"
    with file.open("wb") as out:
        for _, name in WORKS[:3]:
            out.write(f"{name}\t".encode() + b"A" * (8 << 20) + b"\n")
        out.write(b"zed_last\t" + b"\0" * (16 << 20))
    tracemalloc.start()
    index = tsv_file.open_tsv(file, "tsv", world)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 8 << 20
    assert (index.names, index.malformed) == ([name for _, name in WORKS[:3]], 1)
    assert index.sha256 == sha256_file(file)
    with file.open("rb") as opened:
        columns = index.columns_of(opened, {"key": "k", "art_style": "x", "painting": "twin_storm"})
    assert columns == ["A" * (8 << 20)]
