"""Which APOLO items have predictions, and why others have none, for the table that ends the step."""

from collections.abc import Mapping
from typing import Any

import pyarrow.parquet as pq

from pipeline.common.params import Paths
from pipeline.common.tables import table_file
from pipeline.common.tally import Tally, by_reason
from pipeline.reader.index import Index
from pipeline.releases.apolo import load_items


def tally_predictions(paths: Paths, counts: Mapping[str, Any]) -> list[Tally]:
    """From APOLO, which is read again where something was left out."""
    kept = counts["items"] - counts["without_features"]
    left_out = []
    if counts["without_features"] or counts["rejected_items"]:
        utterances, artworks = (pq.read_table(table_file(paths, name)) for name in ("utterances", "artworks"))
        items, rejects = load_items(paths.apolo, utterances, artworks)
        index = Index.load(paths.step("shards"))
        left_out = [(reject.reason, reject.detail) for reject in rejects]
        left_out += [("no features of its artwork", item.key) for item in items if item.key not in index]
    return [Tally("APOLO items", kept, by_reason(left_out))]
