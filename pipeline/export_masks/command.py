"""What `export-masks` does: chosen masks of a shards folder, in one of the formats, into a new folder."""

import dataclasses
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, Literal

from pipeline.common.emotions import EMOTIONS
from pipeline.common.errors import UserError
from pipeline.common.files import check_writable, write_bytes
from pipeline.common.progress import Meter
from pipeline.export_masks.coco import coco_files
from pipeline.export_masks.hub import hub_files
from pipeline.export_masks.label_studio import label_studio_files
from pipeline.export_masks.png import png_files
from pipeline.export_masks.records import Artwork, ExportOptions, chosen, read_records
from pipeline.reader.index import Index

Format = Literal["coco", "label-studio", "fiftyone", "hf", "png"]


def export_masks(folder: Path, out: Path, format_: Format, options: ExportOptions) -> dict[str, Any]:
    """Write the masks of ``data/shards`` to `out`, which must be new or empty; returns counts.

    Artworks in = kept + left out by the choice of splits and emotions.

    Raises:
        UserError: no whole shards folder, unknown splits or emotions, nothing chosen, or `out` is not empty.
    """
    index = Index.load(folder)
    _check_choice(index, options)
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise UserError(f"{out} is not empty; name a new folder")
    check_writable(out)
    if format_ == "fiftyone":  # it wants masks of the picture's size
        options = dataclasses.replace(options, size="picture")
    kept = [row for row in index.rows() if chosen(row, options)]
    if not kept:
        raise UserError(f"no mask of {folder} has one of the chosen splits and emotions")
    counts = {"in": len(index), "kept": len(kept), "left_out": len(index) - len(kept)}
    written = 0
    artworks = _counted(read_records(folder, options), len(kept))
    for name, content in _files(format_, artworks, options):
        write_bytes(out / name, content)
        written += 1
    masks = sum(len(chosen(row, options)) for row in kept)
    return {**counts, "masks": masks, "files": written, "out": out.as_posix()}


def _files(
    format_: Format, artworks: Iterable[Artwork], options: ExportOptions
) -> Iterable[tuple[str, bytes]]:
    if format_ in ("coco", "fiftyone"):
        return coco_files(artworks, options).items()
    if format_ == "label-studio":
        return label_studio_files(artworks, options).items()
    return hub_files(artworks, options) if format_ == "hf" else png_files(artworks)


def _counted(artworks: Iterator[Artwork], total: int) -> Iterator[Artwork]:
    meter = Meter("export-masks", total, unit="artwork")
    for artwork in artworks:
        yield artwork
        meter.add()


def _check_choice(index: Index, options: ExportOptions) -> None:
    known = {"split": set(index.table["split"].to_pylist()), "emotion": set(EMOTIONS)}
    for kind, asked in (("split", options.splits), ("emotion", options.emotions)):
        if unknown := sorted(set(asked) - known[kind]):
            raise UserError(
                f"there is no {kind} {unknown[0]!r} here; known are {', '.join(sorted(known[kind]))}"
            )
