"""Pseudo-masks looked at: statistics, sheets, reviews, and exports to other tools."""

import dataclasses
import enum
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import typer

from pipeline.common.params import SHOWN, Params, Paths
from pipeline.common.progress import waiting
from pipeline.common.protocol import THRESHOLD
from stages import _ready
from stages.commands.answer import Answer, answer_of
from stages.commands.options import PARAMS, Json, ParamsFile


class GroupedBy(enum.StrEnum):
    """What `shard-stats` has a row for."""

    shard = "shard"
    emotion = "emotion"
    style = "style"


class MaskFormat(enum.StrEnum):
    """What `export-masks` writes."""

    coco = "coco"
    label_studio = "label-studio"
    fiftyone = "fiftyone"
    hf = "hf"
    png = "png"


class MaskSize(enum.StrEnum):
    """The size of exported masks."""

    stored = "stored"
    picture = "picture"


class ReviewOrder(enum.StrEnum):
    """Which masks `review` shows first."""

    worst = "worst"
    random = "random"


class ReviewFormat(enum.StrEnum):
    """What `import-reviews` reads."""

    label_studio = "label-studio"
    cvat = "cvat"


def shard_stats(
    folder: Annotated[
        Path | None, typer.Argument(help="A shards folder; default: the one in params.")
    ] = None,
    by: Annotated[GroupedBy, typer.Option(help="What the table has a row for.")] = GroupedBy.emotion,
    worst: Annotated[int, typer.Option(min=0, help="List the N most suspicious labels.")] = 0,
    compare: Annotated[Path | None, typer.Option(help="An earlier shards folder: what changed.")] = None,
    csv: Annotated[Path | None, typer.Option(help="Write the table to this file as well.")] = None,
    page: Annotated[Path | None, typer.Option(help="Write everything to this HTML file as well.")] = None,
    verify: Annotated[bool, typer.Option("--verify", help="Read every byte and check it.")] = False,
    params: ParamsFile = PARAMS,
    as_json: Json = False,
) -> Answer:
    """What the shards hold, and which labels look wrong; --verify: whether every byte is as written."""
    from pipeline.shard_stats.command import answer
    from pipeline.shard_stats.labels import ShardStatsParams
    from pipeline.shards.verify import verify_shards

    file = Params.read(params) if folder is None or params.exists() else None  # another's folder needs none
    limits = file.section("shard_stats", ShardStatsParams) if file else ShardStatsParams()
    folder = folder or Params.read(params).section("paths", Paths).step("shards")
    if not verify:
        values, text = answer(folder, limits, by.value, worst, compare, csv, page)
        return answer_of(values, as_json, lambda _: text)
    problems = verify_shards(folder)
    found = {"problems": [dataclasses.asdict(problem) for problem in problems]}
    lines = "\n".join(map(str, problems)) or "every byte is as it was written"
    return answer_of(found, as_json, lambda _: lines, code=1 if problems else 0)


def export_masks(
    out: Annotated[Path, typer.Argument(help="A new folder.")],
    format_: Annotated[MaskFormat, typer.Option("--format", help="Who is to read it.")],
    split: Annotated[list[str] | None, typer.Option(help="Only these; may be repeated.")] = None,
    emotion: Annotated[list[str] | None, typer.Option(help="Only these; may be repeated.")] = None,
    size: Annotated[MaskSize, typer.Option(help="As stored, or as the picture.")] = MaskSize.stored,
    threshold: Annotated[
        float, typer.Option(min=0, max=1, help="Foreground lies above; coco, fiftyone and label-studio.")
    ] = THRESHOLD,
    prefix: Annotated[str, typer.Option(help="label-studio: what precedes a picture's path.")] = "",
    shards: Annotated[Path | None, typer.Option(help="A shards folder; default: the one in params.")] = None,
    params: ParamsFile = PARAMS,
    as_json: Json = False,
) -> Answer:
    """The pseudo-masks for other tools: COCO, Label Studio, FiftyOne, Hugging Face datasets, or plain PNG."""
    from pipeline.export_masks.command import export_masks as export_all
    from pipeline.export_masks.records import ExportOptions

    folder = shards or Params.read(params).section("paths", Paths).step("shards")
    options = ExportOptions(size.value, threshold, split or (), emotion or (), prefix)
    return answer_of(export_all(folder, out, format_.value, options), as_json)


def review(
    by: Annotated[
        str | None, typer.Option(help="Your name; the page can change it. Default: your login.")
    ] = None,
    port: Annotated[int, typer.Option(min=0, max=65535, help="Port on 127.0.0.1; 0: any free one.")] = 0,
    open_: Annotated[bool, typer.Option("--open/--no-open", help="Open a browser.")] = True,
    static: Annotated[
        Path | None, typer.Option(help="Write the page, read-only, to this one file, and serve nothing.")
    ] = None,
    count: Annotated[int, typer.Option(min=1, help="With --static: how many masks.")] = 100,
    order: Annotated[ReviewOrder, typer.Option(help="With --static: which first.")] = ReviewOrder.worst,
    emotion: Annotated[str, typer.Option(help="With --static: only this emotion.")] = "",
    split: Annotated[str, typer.Option(help="With --static: only this split.")] = "",
    params: ParamsFile = PARAMS,
    as_json: Json = False,
) -> Answer:
    """Judge pseudo-masks in a browser on this machine, the worst first; see docs/labels.md."""
    import getpass

    from pipeline.backbones.params import BackbonesParams
    from pipeline.review import command as review_command
    from pipeline.review.deck import Wish
    from pipeline.shard_stats.labels import ShardStatsParams

    read = Params.read(params)
    paths, stats = read.section("paths", Paths), read.section("shard_stats", ShardStatsParams)
    sam, name = read.section("backbones", BackbonesParams).sam, by or getpass.getuser()
    if static is not None:
        service = review_command.new_service(paths, stats, sam, name)
        wish = Wish(order.value, emotion=emotion, split=split)
        return answer_of(review_command.write_static(service, static, wish, count), as_json)
    options = review_command.ReviewOptions(name, port, open_)
    return answer_of(review_command.serve(paths, stats, sam, options), as_json, review_command.numbers_text)


def import_reviews(
    file: Annotated[
        Path, typer.Argument(help="What the tool exported: Label Studio's JSON, CVAT's XML or zip.")
    ],
    format_: Annotated[ReviewFormat, typer.Option("--format", help="Whose format it is.")],
    by: Annotated[str | None, typer.Option(help="Who judged; default: whom the file names.")] = None,
    params: ParamsFile = PARAMS,
    as_json: Json = False,
) -> Answer:
    """Take over verdicts and corrected masks from Label Studio or CVAT; see docs/labels.md."""
    from pipeline.review.import_reviews import import_reviews as import_all

    paths = Params.read(params).section("paths", Paths)
    return answer_of(import_all(file, format_.value, paths, by), as_json)


def look(
    key: Annotated[str | None, typer.Argument(help="Key of an artwork, or its painting's name.")] = None,
    worst: Annotated[int, typer.Option(min=0, help="In place of KEY: the N most suspicious labels.")] = 0,
    sample: Annotated[int, typer.Option(min=0, help="In place of KEY: N labels drawn at random.")] = 0,
    emotion: Annotated[str | None, typer.Option(help="With --worst, --sample: only this.")] = None,
    style: Annotated[str | None, typer.Option(help="With --worst, --sample: only this.")] = None,
    split: Annotated[str | None, typer.Option(help="With --worst, --sample: only this.")] = None,
    seed: Annotated[int, typer.Option(help="With --sample: another seed, another draw.")] = 0,
    model: Annotated[
        Path | None, typer.Option(help="With KEY: a trained run; shows its maps of all eight emotions.")
    ] = None,
    out: Annotated[
        Path | None, typer.Option(help="File to write; default: look/KEY.html or look/sheet.html.")
    ] = None,
    params: ParamsFile = PARAMS,
) -> Answer:
    """One artwork on a page: picture, regions, masks, utterances, predictions; or a sheet of many labels."""
    if (key is not None) + bool(worst) + bool(sample) != 1:
        raise typer.BadParameter("give one of KEY, --worst N, --sample N")
    paths = Params.read(params).section("paths", Paths)
    _ready.before_look(paths)
    if key is None:
        with waiting("look", "starting"):
            from model.report.contact_sheet import Choice, write_contact_sheet
            from pipeline.shard_stats.labels import ShardStatsParams

        limits = Params.read(params).section("shard_stats", ShardStatsParams)
        choice = Choice(worst, sample, emotion, style, split, seed)
        return answer_of(write_contact_sheet(paths, choice, limits, out or Path("look/sheet.html")), False)
    with waiting("look", f"drawing the page of {key[:SHOWN]}"):
        from model.report.look import look as draw

        return str(draw(paths, key, out, _all_eight(model, params))), 0


def _all_eight(run: Path | None, params: Path) -> Callable[[Any], dict[str, tuple[Any, str]]] | None:
    """What a trained run makes of a picture: emotion -> (map, explanation)."""
    if run is None:
        return None
    from model.predictor import Predictor

    predictor = Predictor.from_params(run, params)

    def predict(image: Any) -> dict[str, tuple[Any, str]]:
        (found,) = predictor.predict([image])
        return {emotion: (one.mask, one.explanations[0]) for emotion, one in found.items()}

    return predict
