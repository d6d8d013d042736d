"""Step `regions`: where the things in each artwork are.

`vinvl` is the detector of the paper (Sec. 4.1), `apolo_boxes` reads the boxes that APOLO released; both
give rows of `schema.REGIONS`. Nothing heavy is imported here: params can be read without torch.
"""

from __future__ import annotations

import dataclasses
import functools
import itertools
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import pyarrow as pa
import pyarrow.parquet as pq
import pydantic
from pydantic import Field

from pipeline import storage
from pipeline.backbones import BackbonesParams, verify
from pipeline.parallel import ParallelParams, ShardOutcome, map_shards
from pipeline.params import STRICT, Paths, UserError, fingerprint
from pipeline.regions.table import WHOLE, Found, Rejected, region_row
from pipeline.schema import REGIONS, shard_stem

if TYPE_CHECKING:
    from pipeline.regions.vinvl import AttrRCNN

__all__ = ["WHOLE", "RegionsParams", "build", "process_shard"]

DROPPED = b"dropped_boxes"
"""Metadata key of a shard: boxes that were empty once cut to the picture."""


@pydantic.dataclasses.dataclass(frozen=True, config=STRICT)
class RegionsParams:
    """Where regions come from, and how many of them."""

    source: Literal["vinvl", "apolo"] = "vinvl"
    """vinvl: run the detector of backbones.vinvl. apolo: boxes released with APOLO, in paths.apolo."""
    nms_mode: Literal[0, 1, 2] = 1
    """VinVL's NMS_FILTER: 0 per class, 1 one label per proposal (its usual one), 2 class-agnostic."""
    score_threshold: Annotated[float, Field(ge=0, le=1)] = 0.2
    """Weaker regions go, but never below min_detections. VinVL's README: 0.2."""
    min_detections: Annotated[int, Field(ge=1)] = 30
    """Fewest regions per artwork, as far as there are proposals. VinVL's own: 10. The small detector is
    unsure of names and right about places: from 10 to 30, its recall of motifs doubles."""
    max_detections: Annotated[int, Field(ge=1)] = 40
    """Most regions per artwork. VinVL's own limit is 100."""
    ignore_box_regression: bool = False
    """True: regions are raw proposals, as in VinVL's feature extraction. False: refined by the box head."""
    attributes: bool = True
    """Also name attributes such as colours, where the detector knows any."""
    batch: Annotated[int, Field(ge=1)] = 1
    """Pictures per detector call. More helps a GPU; a CPU only loses by the padding."""

    def __post_init__(self) -> None:
        if self.min_detections > self.max_detections:
            raise ValueError(
                f"min_detections {self.min_detections} is larger than max_detections {self.max_detections}"
            )


def build(
    paths: Paths, params: RegionsParams, backbones: BackbonesParams, parallel: ParallelParams
) -> dict[str, Any]:
    """Write data/regions/SHARD.parquet for every shard of data/utterances/artworks.parquet.

    Artworks whose file cannot be used are counted by reason; an artwork without boxes is one region.
    Returns counts: shards, kept, rejected, regions, whole_artworks, dropped_boxes ... Raises UserError.
    """
    works = _artworks(paths)
    source = _source_fingerprint(params, backbones)
    jobs = {
        shard: fingerprint(source, _input_digest(paths, params, rows))
        for shard, rows in _by_shard(works).items()
    }
    out = paths.step("regions")
    process = functools.partial(process_shard, paths=paths, params=params, backbones=backbones)
    counts = map_shards("regions", out, jobs, process, parallel)
    return counts | _totals(out, sorted(jobs))


def process_shard(
    shard: int, paths: Paths, params: RegionsParams, backbones: BackbonesParams
) -> ShardOutcome:
    """One shard: find the regions of its artworks, sorted by key, and write the table."""
    works = _by_shard(_artworks(paths))[shard]
    rows: list[dict[str, Any]] = []
    rejects: list[tuple[str, str]] = []
    dropped = 0
    for artwork, found in _find(works, paths, params, backbones):
        if isinstance(found, Rejected):
            rejects.append((artwork["key"], found.reason))
            continue
        row, empty = region_row(artwork, found, params.source)
        rows.append(row)
        dropped += empty
    schema = REGIONS.with_metadata({DROPPED: str(dropped)})
    path = paths.step("regions") / f"{shard_stem(shard)}.parquet"
    storage.write_parquet(path, pa.Table.from_pylist(rows, schema=schema))
    return ShardOutcome(len(rows), rejects)


def _find(
    works: Sequence[dict[str, Any]], paths: Paths, params: RegionsParams, backbones: BackbonesParams
) -> Iterator[tuple[dict[str, Any], Found | Rejected]]:
    """Every artwork with what the chosen source says about it."""
    if params.source == "apolo":
        from pipeline.regions import apolo_boxes

        yield from apolo_boxes.regions(paths.apolo, works)
        return
    model = _load_detector(backbones.vinvl.checkpoint, params, backbones.torch_device())
    yield from _detect(model, paths.wikiart, works, params)


def _detect(
    model: AttrRCNN, wikiart: Path, works: Sequence[dict[str, Any]], params: RegionsParams
) -> Iterator[tuple[dict[str, Any], Found | Rejected]]:
    """Run the detector on the artworks' pictures."""
    from pipeline.artworks import BadImage
    from pipeline.backbones.pictures import pictures

    stream = pictures(wikiart, works)
    while part := list(itertools.islice(stream, params.batch)):
        images = [image for _, image in part if not isinstance(image, BadImage)]
        proposed = iter(model.propose(images, attributes=params.attributes))
        for artwork, image in part:
            if isinstance(image, BadImage):
                yield artwork, Rejected(image.reason)
                continue
            regions = next(proposed)
            names = regions.attributes
            attributes = None if names is None else [[name for name, _ in row] for row in names]
            yield artwork, Found(regions.boxes, regions.scores, regions.labels, attributes)


@functools.lru_cache(maxsize=1)
def _load_detector(checkpoint: Path, params: RegionsParams, device: str) -> AttrRCNN:
    """The detector with this step's settings; kept, so that a worker loads it once."""
    from pipeline.regions.vinvl import load_vinvl
    from pipeline.regions.weights import config_of

    config = dataclasses.replace(
        config_of(checkpoint),
        nms_mode=params.nms_mode,
        score_threshold=params.score_threshold,
        min_detections=params.min_detections,
        max_detections=params.max_detections,
        ignore_box_regression=params.ignore_box_regression,
    )
    return load_vinvl(checkpoint, config=config, device=device)


def _artworks(paths: Paths) -> list[dict[str, Any]]:
    """All rows of the artworks table, sorted by key."""
    path = paths.step("utterances") / "artworks.parquet"
    if not path.is_file():
        raise UserError(f"{path} does not exist; run the utterances step first")
    rows: list[dict[str, Any]] = pq.read_table(path).to_pylist()
    return sorted(rows, key=lambda row: str(row["key"]))


def _by_shard(works: Sequence[dict[str, Any]]) -> dict[int, list[dict[str, Any]]]:
    shards: dict[int, list[dict[str, Any]]] = {}
    for row in works:
        shards.setdefault(row["shard"], []).append(row)
    return shards


def _source_fingerprint(params: RegionsParams, backbones: BackbonesParams) -> str:
    """What decides the result besides the artworks: settings, weights, code."""
    from pipeline import apolo, artworks
    from pipeline.backbones import pictures
    from pipeline.regions import (
        apolo_boxes,
        boxes,
        config,
        postprocess,
        resnext,
        roi_heads,
        rpn,
        table,
        vinvl,
        weights,
    )

    if params.source == "apolo":
        return fingerprint("apolo", storage.code_version(apolo, apolo_boxes, table))
    network = (boxes, config, postprocess, resnext, roi_heads, rpn, vinvl, weights)
    code = storage.code_version(artworks, pictures, table, *network)
    checkpoint = backbones.vinvl.checkpoint
    sizes = checkpoint.with_suffix(".json")
    hashes = [verify(checkpoint), verify(sizes) if sizes.is_file() else ""]
    return fingerprint(params, hashes, code)


def _input_digest(paths: Paths, params: RegionsParams, rows: Sequence[dict[str, Any]]) -> str:
    """The artworks and the sizes of their files: hashing 80,000 pictures would take longer than masks."""
    from pipeline.apolo import boxes_path

    columns = ("key", "painting", "path", "width", "height")
    files = [
        boxes_path(paths.apolo, row["painting"]) if params.source == "apolo" else paths.wikiart / row["path"]
        for row in rows
    ]
    sizes = [path.stat().st_size if path is not None and path.is_file() else -1 for path in files]
    return fingerprint([[row[name] for name in columns] for row in rows], sizes)


def _totals(out: Path, shards: Sequence[int]) -> dict[str, Any]:
    """Sums over the shards' tables."""
    regions = whole = dropped = 0
    for shard in shards:
        table = pq.read_table(out / f"{shard_stem(shard)}.parquet", columns=["scores", "source"])
        regions += sum(len(scores) for scores in table["scores"].to_pylist())
        whole += sum(source.endswith(":whole") for source in table["source"].to_pylist())
        dropped += int((table.schema.metadata or {}).get(DROPPED, b"0"))
    return {"regions": regions, "whole_artworks": whole, "dropped_boxes": dropped}
