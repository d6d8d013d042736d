"""Step `regions`: where the things in each artwork are.

Sources of regions are modules of this package, see `sources`; all give rows of `schema.REGIONS`. Nothing
heavy is imported here: params can be read without torch.
"""

from __future__ import annotations

import functools
import sys
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

import pyarrow as pa
import pyarrow.parquet as pq
import pydantic
from pydantic import Field

from pipeline import progress, storage
from pipeline.backbones import BackbonesParams
from pipeline.parallel import ParallelParams, ShardOutcome, map_shards
from pipeline.params import STRICT, Paths, UserError, fingerprint
from pipeline.regions import sources
from pipeline.regions.sam_params import SamMasksParams
from pipeline.regions.table import WHOLE, BoxCounts, Rejected, region_row
from pipeline.schema import REGIONS, shard_stem

__all__ = ["WHOLE", "RegionsParams", "build", "jobs", "process_shard"]

_SHOWN: set[str] = set()
"""Reasons for rejects of which this process has shown an example."""


@pydantic.dataclasses.dataclass(frozen=True, config=STRICT)
class RegionsParams:
    """Where regions come from, and how many of them."""

    source: Literal["auto", "vinvl", "apolo", "predictions_tsv", "features_tsv", "faster_rcnn", "sam"] = (
        "auto"
    )
    """auto: apolo where paths.apolo holds released boxes, else vinvl. vinvl: run the detector of
    backbones.vinvl. apolo: boxes released with APOLO. predictions_tsv, features_tsv: a file that VinVL's own
    code wrote, named in `tsv`. faster_rcnn: torchvision's detector of backbones.faster_rcnn. sam: the masks
    that SAM finds by itself."""
    tsv: Path | None = None
    """predictions_tsv: scene_graph_benchmark's predictions.tsv. features_tsv: Oscar's features.tsv."""
    tsv_sizes: Path | None = None
    """The hw.tsv beside predictions.tsv: sizes of the pictures that the detector saw. Only needed where they
    were not the pictures of paths.wikiart, but other sizes of them."""
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
    sgb_config: Path | None = None
    """vinvl: a config file of scene_graph_benchmark (vinvl_x152c4.yaml). It then decides the detector's sizes
    and all of its settings, and the five params above must stay at their defaults."""
    sgb_options: tuple[str, ...] = ()
    """vinvl: "KEY VALUE" texts that win over sgb_config, as on the original's command line: its README adds
    "MODEL.ROI_HEADS.NMS_FILTER 1" and, for features, "TEST.IGNORE_BOX_REGRESSION True"."""
    attributes: bool = True
    """Also name attributes such as colours, where the detector knows any."""
    batch: Annotated[int, Field(ge=1)] = 1
    """Pictures per detector call. More helps a GPU; a CPU only loses by the padding."""
    sam: SamMasksParams = SamMasksParams()
    """source sam: which of its masks become regions."""
    sam_support: bool = False
    """Also store SAM's mask of every box (one encode a picture, boxes as prompts), for masks.support: sam."""

    def __post_init__(self) -> None:
        if self.sgb_options and self.sgb_config is None:
            raise ValueError("sgb_options change an sgb_config, and none is named")
        if self.min_detections > self.max_detections:
            raise ValueError(
                f"min_detections {self.min_detections} is larger than max_detections {self.max_detections}"
            )


def build(
    paths: Paths, params: RegionsParams, backbones: BackbonesParams, parallel: ParallelParams
) -> dict[str, Any]:
    """Write data/regions/SHARD.parquet for every shard of data/utterances/artworks.parquet.

    Artworks that the source cannot answer for are counted by reason; one without boxes is one region. Returns
    counts: shards, kept, rejected, source, regions, whole_artworks, and boxes dropped, weak and cut (see
    `table.BoxCounts`). Raises `UserError` for what only the user can mend.
    """
    _SHOWN.clear()
    works = _artworks(paths)
    params = sources.resolve(params, paths)
    wanted = jobs(paths, params, backbones)
    further = sources.load(params.source).counts(works, paths, params, backbones)
    out = paths.step("regions")
    process = functools.partial(process_shard, paths=paths, params=params, backbones=backbones)
    sizes = {shard: len(rows) for shard, rows in _by_shard(works).items()}
    counts = map_shards("regions", out, wanted, process, parallel, sizes)
    counts |= {"source": params.source} | further | BoxCounts().named() | counts.pop("counts")
    if counts["cut_boxes"]:
        print(
            f"regions: {counts['cut_boxes']} of {counts['regions']} boxes reached outside their pictures and "
            "were cut to them; if these are many, the source saw the pictures in another size",
            file=sys.stderr,
        )
    return counts


def jobs(
    paths: Paths, params: RegionsParams, backbones: BackbonesParams, shards: Collection[int] | None = None
) -> dict[int, str]:
    """Shard -> fingerprint of all that decides its table. `shards`: only these.

    Raises `UserError` when the utterances step has not run, or the source's weights or file are not there.
    """
    params = sources.resolve(params, paths)
    source = sources.load(params.source)
    identity = source.identity(paths, params, backbones)
    support = _support_identity(params, backbones)
    return {
        shard: fingerprint(identity, support, _code(), _input_digest(rows, paths, source, params.sam_support))
        for shard, rows in _by_shard(_artworks(paths)).items()
        if shards is None or shard in shards
    }


def process_shard(
    shard: int, paths: Paths, params: RegionsParams, backbones: BackbonesParams
) -> ShardOutcome:
    """One shard: find the regions of its artworks, sorted by key, and write the table."""
    params = sources.resolve(params, paths)
    rows: list[dict[str, Any]] = []
    rejects: list[tuple[str, str]] = []
    counts = BoxCounts()
    works = _artworks(paths, shard)
    answers = sources.load(params.source).regions(works, paths, params, backbones)
    if params.sam_support:
        from pipeline.regions import sam_support

        answers = sam_support.add_masks(answers, works, paths, backbones, params.batch)
    for artwork, found in answers:
        progress.tick()
        if isinstance(found, Rejected):
            _show(found)
            rejects.append((artwork["key"], found.reason))
            continue
        row, boxes = region_row(artwork, found, params.source)
        rows.append(row)
        counts += boxes
    path = paths.step("regions") / f"{shard_stem(shard)}.parquet"
    storage.write_parquet(path, pa.Table.from_pylist(rows, schema=REGIONS))
    return ShardOutcome(len(rows), rejects, counts.named())


def _show(rejected: Rejected) -> None:
    """Say what was wrong, once for each reason: a run may have thousands of one kind."""
    if rejected.detail and rejected.reason not in _SHOWN:
        _SHOWN.add(rejected.reason)
        print(f"regions: {rejected.reason}, for example: {rejected.detail}", file=sys.stderr)


def _artworks(paths: Paths, shard: int | None = None) -> list[dict[str, Any]]:
    """Rows of the artworks table, all or one shard's, sorted by key."""
    path = paths.step("utterances") / "artworks.parquet"
    if not path.is_file():
        raise UserError(f"{path} does not exist; run the utterances step first")
    only = None if shard is None else [("shard", "==", shard)]
    rows: list[dict[str, Any]] = pq.read_table(path, filters=only).to_pylist()
    return sorted(rows, key=lambda row: str(row["key"]))


def _by_shard(works: Sequence[dict[str, Any]]) -> dict[int, list[dict[str, Any]]]:
    shards: dict[int, list[dict[str, Any]]] = {}
    for row in works:
        shards.setdefault(row["shard"], []).append(row)
    return shards


def _code() -> str:
    """This file is part of every result."""
    return storage.code_version(sys.modules[__name__])


def _support_identity(params: RegionsParams, backbones: BackbonesParams) -> str:
    """What decides the masks of boxes; empty without them."""
    if not params.sam_support:
        return ""
    from pipeline.regions import sam_support

    return sam_support.identity(backbones)


def _input_digest(
    rows: Sequence[dict[str, Any]], paths: Paths, source: sources.Source, pictures: bool
) -> str:
    """The artworks and the sizes of their files: hashing 80,000 pictures would take longer than masks."""
    columns = ("key", "painting", "art_style", "path", "width", "height")
    files = [source.file_of(paths, row) for row in rows]
    if pictures:
        files += [sources.picture_of(paths, row) for row in rows]
    return fingerprint([[row[name] for name in columns] for row in rows], [_size(path) for path in files])


def _size(path: Path | None) -> int:
    """Bytes of a file, -1 for none."""
    try:
        return -1 if path is None else path.stat().st_size
    except OSError:
        return -1
