"""What became of the csv's rows, its artworks and APOLO's items, for the table that ends the step."""

from collections.abc import Mapping
from typing import Any

import pyarrow.parquet as pq

from pipeline.common.params import Paths
from pipeline.common.tally import LeftOut, Tally, by_reason


def tally_utterances(paths: Paths, counts: Mapping[str, Any]) -> list[Tally]:
    """From ``data/utterances/rejects.parquet`` and the step's counts."""
    listed = paths.step("utterances") / "rejects.parquet"
    rejects = pq.read_table(listed).to_pylist()
    rows = [reject for reject in rejects if reject["row"] >= 0]
    items = [reject for reject in rejects if reject["row"] < 0 and reject["source"] == "apolo.json"]
    files = [reject for reject in rejects if reject["row"] < 0 and reject["source"] != "apolo.json"]
    merged = counts["artworks_merged"]
    works = by_reason((file["reason"], f"{file['source']}: {file['detail']}") for file in files)
    works |= {"another name of one file": LeftOut(merged)} if merged else {}
    tallies = [
        Tally(
            "csv rows",
            counts["rows_kept"],
            by_reason((row["reason"], f"row {row['row']}: {row['detail']}") for row in rows),
            str(listed),
        ),
        Tally("artworks", counts["artworks_kept"], works, str(listed)),
    ]
    if counts["apolo_items"] or items:
        lost = by_reason((item["reason"], item["detail"]) for item in items)
        tallies.append(Tally("APOLO items", counts["apolo_items"], lost, str(listed)))
    return tallies
