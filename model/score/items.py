"""The APOLO items that are scored, and why others are not."""

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.common.errors import UserError
from pipeline.common.params import Paths
from pipeline.common.tables import table_file
from pipeline.releases.apolo import ApoloItem, load_items
from pipeline.releases.apolo_ids import load_items_of_csv
from pipeline.releases.source import PLAIN, Source

ApoloItems = tuple[list[ApoloItem], list[ApoloItem], list[str]]
"""(items of the split, items of both splits, what is wrong with others)."""


def read_tables(paths: Paths) -> tuple[pa.Table, pa.Table]:
    """The tables `schema.UTTERANCES` and `schema.ARTWORKS`. `UserError` when there is none."""
    return pq.read_table(table_file(paths, "utterances")), pq.read_table(table_file(paths, "artworks"))


def find_items(apolo: Path, split: str, utterances: pa.Table, artworks: pa.Table) -> ApoloItems:
    """The items whose artworks and utterances are in the tables. `UserError` without any."""
    every, rejects = load_items(apolo, utterances, artworks)
    return _of_split(apolo, split, every, [f"{reject.reason}: {reject.detail}" for reject in rejects])


def read_items(apolo: Path, split: str, paths: Paths) -> ApoloItems:
    """The items whose artworks and utterances the pipeline has kept. `UserError` without any."""
    return find_items(apolo, split, *read_tables(paths))


def read_released_items(apolo: Path, split: str, paths: Paths, source: Source = PLAIN) -> ApoloItems:
    """The items by the ArtEmis csv alone: no picture is needed, and none can be left out for its picture.

    Without the csv, as `read_items`. `UserError` without any item.
    """
    if not paths.artemis.is_file():
        return read_items(apolo, split, paths)
    every, rejects = load_items_of_csv(apolo, paths.artemis, source)
    return _of_split(apolo, split, every, [f"{reject.reason}: {reject.detail}" for reject in rejects])


def _of_split(apolo: Path, split: str, every: list[ApoloItem], notes: list[str]) -> ApoloItems:
    items = [item for item in every if item.split == split]
    if not items:
        raise UserError(f"{apolo} has no usable {split} item; {notes[0] if notes else 'it lists none'}")
    return items, every, notes


def item_name(item: ApoloItem) -> str:
    """What an item's map is called, and its label in the release: ``PAINTING_EMOTION``."""
    return f"{item.painting}_{item.emotion}"
