"""Pseudo-masks, labels of the next round, and features, for training; the gallery, the stand-in for data."""

from pathlib import Path
from typing import Annotated, Any

import typer

from pipeline.common.params import Params
from stages import _ready
from stages.commands.answer import Answer, answer_of
from stages.commands.options import PARAMS, Json, ParamsFile
from stages.commands.run_stage import run_stage, stage_of

Scheduler = Annotated[
    str | None,
    typer.Option(
        help="Run on a Dask cluster that shares this folder, e.g. tcp://host:8786 (docs/cluster.md)."
    ),
]
RetryFailed = Annotated[
    bool, typer.Option("--retry-failed", help="Also redo the shards that had to leave artworks out.")
]


def gallery(
    out: Annotated[Path, typer.Argument(help="Folder to draw into.")],
    artworks: Annotated[int, typer.Option(min=1, help="How many artworks.")] = 600,
    seed: Annotated[int, typer.Option(help="Another seed, another gallery.")] = 7,
    as_json: Json = False,
) -> Answer:
    """Draw the built-in stand-in for ArtEmis, WikiArt and APOLO, in their released layouts."""
    from pipeline.gallery.release import draw_gallery
    from pipeline.gallery.world import GalleryParams

    return answer_of(draw_gallery(out, GalleryParams(artworks=artworks, seed=seed)), as_json)


def build_pseudo_masks(
    scheduler: Scheduler = None,
    retry_failed: RetryFailed = False,
    params: ParamsFile = PARAMS,
    as_json: Json = False,
) -> Answer:
    """Utterances, regions, similarity and masks: everything up to data/masks. A killed run goes on."""
    read, where = Params.read(params), _where(scheduler, retry_failed)
    _ready.before_pseudo_masks(read)
    steps = ("utterances", "regions", "similarity", "masks")
    for name in steps:
        stage_of(name).read(read, where)  # a typo is reported before hours of work
    metrics = {name: run_stage(name, read, **where) for name in steps}
    return answer_of(metrics if as_json else metrics["masks"], as_json)


def cache_features(
    scheduler: Scheduler = None,
    retry_failed: RetryFailed = False,
    params: ParamsFile = PARAMS,
    as_json: Json = False,
) -> Answer:
    """Frozen SAM and CLIP grids, once per artwork: data/features. A killed run goes on."""
    read, where = Params.read(params), _where(scheduler, retry_failed)
    _ready.before_features(read)
    return answer_of(run_stage("features", read, **where), as_json)


def relabel(
    scheduler: Scheduler = None,
    retry_failed: RetryFailed = False,
    params: ParamsFile = PARAMS,
    as_json: Json = False,
) -> Answer:
    """The next round's labels, of a finished round's labels and its students' masks; see docs/beyond.md."""
    read, where = Params.read(params), _where(scheduler, retry_failed)
    _ready.before_relabel(read)
    return answer_of(run_stage("relabel", read, **where), as_json)


def _where(scheduler: str | None, retry_failed: bool) -> dict[str, Any]:
    """What the heavy commands' options say about the `parallel` section."""
    options = {"scheduler": scheduler, "retry_failed": retry_failed}
    return {name: value for name, value in options.items() if value}
