"""The APOLO items that are scored, and why others are not."""

from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.common.errors import UserError
from pipeline.common.fingerprint import sha256_file
from pipeline.common.params import Paths
from pipeline.common.tables import table_file
from pipeline.releases.apolo import ApoloItem, load_items
from pipeline.releases.apolo_alone import load_items_alone
from pipeline.releases.apolo_arrays import MAPS
from pipeline.releases.apolo_ids import load_items_of_csv
from pipeline.releases.artemis import Reject
from pipeline.releases.gallery_mark import read_mark
from pipeline.releases.names import plain_name
from pipeline.releases.source import PLAIN, Source

ApoloItems = tuple[list[ApoloItem], list[ApoloItem], list[str]]
"""(items of the split, items of both splits, what is wrong with others)."""


@dataclass(frozen=True)
class ReleasedItems:
    """The items of a release, and where their emotions and utterances come from."""

    items: list[ApoloItem]
    """Of the split, in the order of apolo.json; at least one."""
    every: list[ApoloItem]
    """Of both splits."""
    rejects: list[Reject]
    """The records that are no items."""
    labels: frozenset[str]
    """Plain names, ``PAINTING_EMOTION``, of all label files: also of those that are no item's."""
    source: str
    """What else than apolo.json was read, for people."""

    @property
    def notes(self) -> list[str]:
        """The rejects as lines."""
        return _lines(self.rejects)


def read_tables(paths: Paths) -> tuple[pa.Table, pa.Table]:
    """The tables `schema.UTTERANCES` and `schema.ARTWORKS`. `UserError` when there is none."""
    return pq.read_table(table_file(paths, "utterances")), pq.read_table(table_file(paths, "artworks"))


def find_items(apolo: Path, split: str, utterances: pa.Table, artworks: pa.Table) -> ApoloItems:
    """The items whose artworks and utterances are in the tables. `UserError` without any."""
    every, rejects = load_items(apolo, utterances, artworks)
    return _of_split(apolo, split, every, rejects), every, _lines(rejects)


def read_items(apolo: Path, split: str, paths: Paths) -> ApoloItems:
    """The items whose artworks and utterances the pipeline has kept. `UserError` without any."""
    return find_items(apolo, split, *read_tables(paths))


def read_released_items(
    apolo: Path, split: str, paths: Paths, source: Source = PLAIN, artemis: Path | None = None
) -> ReleasedItems:
    """The items of anyone's APOLO release; no picture is needed, and none can be left out for its picture.

    By the csv `artemis`, read as `source` says. Without one by the first that knows any item of the release:
    the params' csv, the tables of the utterances step, the release alone. `UserError` without any item.
    """
    every: list[ApoloItem] = []
    csv = artemis or paths.artemis
    read = f"ArtEmis csv {csv}"
    if artemis is not None or csv.is_file():
        try:
            every, rejects = load_items_of_csv(apolo, csv, source)
        except UserError:
            if artemis is not None or apolo == paths.apolo:  # else the params' csv may be of another release
                raise
    if not every and artemis is None and (paths.step("utterances") / "utterances.parquet").is_file():
        every, rejects = load_items(apolo, *read_tables(paths))
        read = f"tables in {paths.step('utterances')}"
    if not every and artemis is None:
        every, rejects = load_items_alone(apolo)
        read = "the release alone"
    items = _of_split(apolo, split, every, rejects)
    labels = frozenset(plain_name(file.stem) for file in (apolo / MAPS).glob("*.npy"))
    return ReleasedItems(items, every, rejects, labels, read)


def _lines(rejects: list[Reject]) -> list[str]:
    return [f"{reject.reason}: {reject.detail}" for reject in rejects]


def _of_split(apolo: Path, split: str, every: list[ApoloItem], rejects: list[Reject]) -> list[ApoloItem]:
    items = [item for item in every if item.split == split]
    if not items:
        why = _lines(rejects)[0] if rejects else "it lists none"
        raise UserError(f"{apolo} has no usable {split} item; {why}")
    return items


def describe_release(apolo: Path) -> str:
    """What a release is called on pages and in tables: never its path, which is of somebody's disk.

    Raises `UserError` as `read_mark`, and `OSError` without an apolo.json.
    """
    if read_mark(apolo):
        return "built-in gallery"
    return f"APOLO release (SHA-256 of apolo.json: {sha256_file(apolo / 'apolo.json')[:12]})"


def item_name(item: ApoloItem) -> str:
    """What an item's map is called, and its label in the release: ``PAINTING_EMOTION``."""
    return f"{item.painting}_{item.emotion}"
