"""The table that ends a long step: in = kept + left out, by reason, each with an example."""

import json
import shutil
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from model.predict.tally import tally_predictions
from model.score.tally import tally_items
from model.train.tally import tally_training
from pipeline.common.digests import write_sidecar
from pipeline.common.params import Paths
from pipeline.common.tally import LeftOut, Tally, by_reason, of_shards, tally_text
from pipeline.reader.tally import tally_index
from pipeline.regions.tally import tally_regions
from stages.utterances import STAGE as UTTERANCES


def test_the_table_reads_at_a_glance() -> None:
    tallies = [
        Tally("csv rows", 1360, {"odd": LeftOut(2, "row 5: 'a\x1b[31m\n'"), "double": LeftOut(16)}, "x.txt"),
        Tally("artworks", 3, {}),
    ]
    assert tally_text("utterances", tallies).splitlines() == [
        "utterances: 1,378 csv rows in, 1,360 kept, 18 left out; all in x.txt",
        "       16  double",
        "        2  odd     for example row 5: 'a\\x1b[31m\\n'",
        "utterances: 3 artworks in, all kept",
    ]


def test_many_reasons_end_in_one_line() -> None:
    left_out = by_reason((f"reason {number % 13:02d}", "x" * 500) for number in range(26))
    lines = tally_text("masks", [Tally("artworks", 0, left_out)]).splitlines()
    assert lines[0] == "masks: 26 artworks in, 0 kept, 26 left out"
    assert len(lines) == 12 and lines[-1] == "        6  for 3 other reasons"
    assert max(map(len, lines)) < 120


def test_shards_are_counted_whichever_run_made_them(tmp_path: Path) -> None:
    paths = Paths(data=tmp_path)
    for shard, rejects in enumerate(([], ["a", "b"], ["c"])):
        listed = [{"key": key, "reason": "no-text" if key == "c" else "truncated"} for key in rejects]
        write_sidecar(paths.step("masks"), shard, {"kept": 5, "rejects": listed})
    (tmp_path / "masks" / "000009.json").write_text("{")
    found = of_shards("masks", paths)
    assert (found.total, found.kept) == (18, 15)
    assert found.left_out == {"truncated": LeftOut(2, "a"), "no-text": LeftOut(1, "c")}


def test_rows_artworks_and_items_of_a_csv_with_faults(
    checkout: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    csv = next(checkout.glob("gallery/artemis/*.csv"))
    head, *rows = csv.read_text(encoding="utf-8").splitlines()
    style, painting = rows[0].split(",")[:2]
    of_first = sum(row.startswith(f"{style},{painting},") for row in rows)
    rows[-1] = rows[-1].replace(f",{rows[-1].split(',')[2]},", ",joy,", 1)
    csv.write_text("\n".join([head, *rows, rows[-2], ",,,,"]) + "\n", encoding="utf-8")
    (checkout / "gallery" / "wikiart" / style / f"{painting}.jpg").unlink()
    capsys.readouterr()
    UTTERANCES.run(Path("params.yaml"))
    said = capsys.readouterr().err.splitlines()
    total, lost = len(rows) + 2, of_first + 3
    listed = "all in data/utterances/rejects.parquet"
    assert f"utterances: {total} csv rows in, {total - lost} kept, {lost} left out; {listed}" in said
    assert f"utterances: 12 artworks in, 11 kept, 1 left out; {listed}" in said
    assert any(
        "unknown-emotion" in line and f"for example row {len(rows) - 1}: 'joy'" in line for line in said
    )
    assert any("picture-missing" in line and f"{style}/{painting}"[:20] in line for line in said)
    again = json.loads(Path("metrics/utterances.json").read_text(encoding="utf-8"))
    assert again["rows_in"] == total and again["rows_rejected"] == lost  # the metrics are as they were


def test_artworks_that_are_not_in_the_index_have_the_rejecting_step(indexed: Path, tmp_path: Path) -> None:
    from tests.worlds import indexed_shards

    root = tmp_path / "copy"
    shutil.copytree(indexed, root)
    paths = indexed_shards.paths_in(root)
    table = paths.step("utterances") / "artworks.parquet"
    works, index = pq.read_table(table), pq.read_table(paths.step("shards") / "index.parquet")
    found = tally_index(paths)
    assert found.total == works.num_rows and found.kept == index.num_rows
    lost = sorted(set(works["key"].to_pylist()) - set(index["key"].to_pylist()))
    assert sum(reason.count for reason in found.left_out.values()) == len(lost)
    train = works.filter(pa.compute.equal(works["split"], "train")).num_rows
    counted = tally_training(paths, {"train_samples": 9})
    assert counted[0].total == train and counted[1] == Tally("training samples", 9, {})
    table.unlink()  # shards from the hub come alone
    assert tally_index(paths) == Tally("artworks", index.num_rows, {})


def test_boxes_and_items() -> None:
    counts = {"regions": 12, "whole_artworks": 2, "weak_boxes": 5, "dropped_boxes": 0}
    boxes = tally_regions(Paths(data=Path("nowhere")), counts)[1]
    assert (boxes.total, boxes.kept) == (15, 10)
    scores = {
        "split": "test",
        "rows": [{"method": "emosem-single:no-prefix"}],
        "items": {"apolo": 9, "counted": 7, "rejected": 2},
        "problems": [
            "missing-map: record 3: no x.npy",
            "label: empty: no pixel is foreground: a_awe, b_awe",
            "emosem-single:no-prefix: missing: a_awe",
        ],
    }
    (items,) = tally_items(Paths(), scores)
    assert (items.total, items.kept) == (11, 7)
    assert items.left_out["no usable label"].example == "empty: no pixel is foreground: a_awe, b_awe"
    assert items.left_out["record that is no item"] == LeftOut(2, "missing-map: record 3: no x.npy")
    (whole,) = tally_predictions(Paths(), {"items": 4, "without_features": 0, "rejected_items": 0})
    assert (whole.total, whole.kept) == (4, 4)
