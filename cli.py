"""What a person types. Every command is a DVC stage's own code, or a library call; heavy imports stay inside.

Numbers live in params.yaml alone: no option here repeats one. A command reads it once, and returns what is to
stand on stdout, of which it is the only writer. Exit codes: 0 done, 1 failed, 2 wrong usage or params.
"""

import dataclasses
import enum
import functools
import importlib
import importlib.metadata
import json
import math
import platform
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

try:
    if sys.version_info < (3, 11):  # noqa: UP036 - whoever runs this may have an older one
        raise ImportError("Python 3.11 or newer is needed")
    import typer

    from pipeline.common import command as command_line
    from pipeline.common.params import SHOWN, Params, Paths
    from pipeline.common.progress import waiting
    from pipeline.common.protocol import THRESHOLD
    from stages import _ready
except ImportError as error:
    if getattr(error, "name", None) in ("cli", "pipeline", "model", "stages"):
        raise
    raise SystemExit(
        f"error: {sys.executable} cannot run emosem ({error}); use the Python that it is installed in, after "
        "`source .venv/bin/activate` for instance, or install it: `make repro`, or `pip install -e '.[all]'`"
    ) from None

app = typer.Typer(
    help="EmoSEM: pseudo emotion masks from ArtEmis, and a model that segments and explains emotion in art.",
    invoke_without_command=True,
    pretty_exceptions_enable=False,
)
TORCH = "loading PyTorch"
"""What takes a command's first seconds."""

ParamsFile = Annotated[
    Path, typer.Option("--params", help="Params file; the default is the built-in gallery.")
]
Json = Annotated[bool, typer.Option("--json", help="Print only JSON on stdout.")]
Scheduler = Annotated[
    str | None,
    typer.Option(
        help="Run on a Dask cluster that shares this folder, e.g. tcp://host:8786 (docs/cluster.md)."
    ),
]
RetryFailed = Annotated[
    bool, typer.Option("--retry-failed", help="Also redo the shards that had to leave artworks out.")
]
Maps = Annotated[
    Path | None,
    typer.Option(help="Any method's maps: a folder of PAINTING_EMOTION.npy|png, or WESD's test_result.json."),
]
Texts = Annotated[
    Path | None, typer.Option(help="Any method's texts: a .jsonl or .csv file of painting, emotion, text.")
]
Csv = Annotated[
    Path | None, typer.Option(help="ArtEmis csv: emotions, utterances and styles of APOLO's items.")
]
Rows = Annotated[
    Path | None, typer.Option("--csv", help="Write a row per item, and per file and line of no item.")
]
PARAMS = Path("params.yaml")


class Paradigm(enum.StrEnum):
    """The paper's two paradigms (Sec. 3.5)."""

    single = "single"
    multi = "multi"


class Backbone(enum.StrEnum):
    """The built-in small backbones."""

    clip = "clip"
    sam = "sam"
    language_model = "language_model"
    vinvl = "vinvl"


class InitPreset(enum.StrEnum):
    """The models of a new params file."""

    artemis = "artemis"
    photos = "photos"
    tiny = "tiny"


class BenchWhat(enum.StrEnum):
    """What `bench` measures."""

    train = "train"
    factory = "factory"
    drift = "drift"
    score = "score"
    model = "model"
    busy = "busy"
    peers = "peers"
    gpu = "gpu"


BENCHES_WITH = {
    "true_size": (BenchWhat.train, BenchWhat.factory, BenchWhat.drift),
    "only": (BenchWhat.peers, BenchWhat.gpu),
    **dict.fromkeys(("limit", "markdown"), (BenchWhat.peers,)),
    **dict.fromkeys(("tiny", "minutes", "out"), (BenchWhat.gpu,)),
}
"""Option of `bench` -> what it is for."""


class MaskFormat(enum.StrEnum):
    """What `export-masks` writes."""

    coco = "coco"
    label_studio = "label-studio"
    fiftyone = "fiftyone"
    hf = "hf"
    png = "png"


class ReviewOrder(enum.StrEnum):
    """Which masks `review` shows first."""

    worst = "worst"
    random = "random"


class ReviewFormat(enum.StrEnum):
    """What `import-reviews` reads."""

    label_studio = "label-studio"
    cvat = "cvat"


class MaskSize(enum.StrEnum):
    """The size of exported masks."""

    stored = "stored"
    picture = "picture"


class GroupedBy(enum.StrEnum):
    """What `shard-stats` has a row for."""

    shard = "shard"
    emotion = "emotion"
    style = "style"


WITH_TORCH = ("features", "similarity", "train", "predict")
"""Stages that import torch before they begin."""
Answer = tuple[str, int]
"""Text for stdout, and the exit code."""


@app.callback()
def front_door(
    context: typer.Context,
    version: Annotated[
        bool, typer.Option("--version", help="Versions of emosem, Python and PyTorch.")
    ] = False,
    params: Annotated[
        Path | None, typer.Option("--params", help="Params file to look at; with a command, after it.")
    ] = None,
) -> None:
    """EmoSEM: pseudo emotion masks from ArtEmis, and a model that segments and explains emotion in art.

    Without a command: what stands in this folder, and what to do next.
    """
    if version:
        command_line.say(f"{versions()}\n")
        raise typer.Exit
    if context.invoked_subcommand is None:
        from stages._status import status_text

        command_line.say(f"{status_text(params or PARAMS)}\n")
    elif params is not None:
        raise typer.BadParameter(f"belongs after {context.invoked_subcommand}", param_hint="--params")


def versions() -> str:
    """Versions of emosem, Python and PyTorch, as their packages say."""
    found = {"Python": platform.python_version()}
    for title, package in (("emosem", "emosem"), ("PyTorch", "torch")):
        try:
            found[title] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            found[title] = "not installed"
    return f"emosem {found['emosem']} (Python {found['Python']}, PyTorch {found['PyTorch']})"


def command(name: str | None = None) -> Callable[[Callable[..., Answer]], Callable[..., Answer]]:
    """Register a command whose answer alone goes to stdout: whatever else prints, prints to stderr."""

    def register(function: Callable[..., Answer]) -> Callable[..., Answer]:
        @functools.wraps(function)
        def run(**options: Any) -> None:
            with command_line.stdout_for_results():
                text, code = function(**options)
            command_line.say(f"{text.rstrip()}\n")
            if code:
                raise typer.Exit(code)

        app.command(name)(run)
        return function

    return register


def _stage(name: str, params: Params, variant: str | None = None, **parallel: Any) -> dict[str, Any]:
    """Run the DVC stage `name` on the folders of `params`; `parallel` has the last word on that section."""
    metrics: dict[str, Any] = _stage_of(name).run(params, variant, parallel)
    return metrics


@functools.cache
def _stage_of(name: str) -> Any:
    with waiting(name, TORCH if name in WITH_TORCH else "starting"):
        return importlib.import_module(f"stages.{name}").STAGE


def _where(scheduler: str | None, retry_failed: bool) -> dict[str, Any]:
    """What the heavy commands' options say about the `parallel` section."""
    options = {"scheduler": scheduler, "retry_failed": retry_failed}
    return {name: value for name, value in options.items() if value}


def _answer(values: Any, as_json: bool, text: Callable[[Any], str] | None = None, code: int = 0) -> Answer:
    """Values as JSON, which knows no NaN, or as `text` makes of them; by default a line for each."""
    if as_json:
        return json.dumps(_finite(values), indent=1, allow_nan=False), code
    return (text or _lines)(values), code


def _finite(values: Any) -> Any:
    """Values with null for NaN and infinity, which JSON does not know."""
    if isinstance(values, dict):
        return {key: _finite(value) for key, value in values.items()}
    if isinstance(values, list | tuple):
        return [_finite(value) for value in values]
    return None if isinstance(values, float) and not math.isfinite(values) else values


def _lines(values: dict[str, Any]) -> str:
    lines = []
    for key, value in values.items():
        if isinstance(value, dict):
            lines.append(_lines({f"{key}.{name}": part for name, part in value.items()}))
        elif not isinstance(value, list):
            lines.append(f"{key:>32}  {value}")
    return "\n".join(lines)


@command()
def gallery(
    out: Annotated[Path, typer.Argument(help="Folder to draw into.")],
    artworks: Annotated[int, typer.Option(min=1, help="How many artworks.")] = 600,
    seed: Annotated[int, typer.Option(help="Another seed, another gallery.")] = 7,
    as_json: Json = False,
) -> Answer:
    """Draw the built-in stand-in for ArtEmis, WikiArt and APOLO, in their released layouts."""
    from pipeline.gallery.release import draw_gallery
    from pipeline.gallery.world import GalleryParams

    return _answer(draw_gallery(out, GalleryParams(artworks=artworks, seed=seed)), as_json)


@command("build-pseudo-masks")
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
        _stage_of(name).read(read, where)  # a typo is reported before hours of work
    metrics = {name: _stage(name, read, **where) for name in steps}
    return _answer(metrics if as_json else metrics["masks"], as_json)


@command("cache-features")
def cache_features(
    scheduler: Scheduler = None,
    retry_failed: RetryFailed = False,
    params: ParamsFile = PARAMS,
    as_json: Json = False,
) -> Answer:
    """Frozen SAM and CLIP grids, once per artwork: data/features. A killed run goes on."""
    read, where = Params.read(params), _where(scheduler, retry_failed)
    _ready.before_features(read)
    return _answer(_stage("features", read, **where), as_json)


@command()
def train(
    paradigm: Annotated[
        Paradigm, typer.Option(help="One mask for one emotion, or all eight at once.")
    ] = Paradigm.single,
    params: ParamsFile = PARAMS,
    as_json: Json = False,
) -> Answer:
    """Train EmoSEM on the shards; a killed run goes on where it was."""
    read = Params.read(params)
    _ready.before_train(read, paradigm.value)
    return _answer(_stage("train", read, paradigm.value), as_json)


@command()
def predict(
    model: Annotated[
        str, typer.Argument(help="A trained run (runs/single), an exported folder, or OWNER/NAME on the hub.")
    ],
    path: Annotated[list[Path], typer.Argument(help="Pictures, folders of pictures, or a quoted pattern.")],
    emotion: Annotated[
        list[str] | None, typer.Option(help="One of the eight emotions, or several: awe,fear; default: all.")
    ] = None,
    out: Annotated[Path, typer.Option(help="Where maps, overlays and predictions.jsonl go.")] = Path(
        "predictions"
    ),
    page: Annotated[bool, typer.Option("--page", help="Also write OUT/index.html, to look at.")] = False,
    overlay_size: Annotated[
        int, typer.Option(min=0, help="Long side of overlays at most, pixels; 0: as large as the picture.")
    ] = 1024,
    weights: Annotated[
        list[Path] | None,
        typer.Option(help="Folder in which the model's encoders are looked for; repeatable."),
    ] = None,
    fetch: Annotated[
        bool, typer.Option("--fetch", help="Download official encoders that are missing, checked by hash.")
    ] = False,
    params: Annotated[
        Path | None,
        typer.Option(
            "--params",
            help="Params file, whose backbones must be the model's; default: params.yaml, if there is one.",
        ),
    ] = None,
    as_json: Json = False,
) -> Answer:
    """Segment and explain the emotion in pictures of your own. A killed run goes on.

    Pictures that cannot be read are reported and left out; where none can, the exit code is 1.
    """
    from model.predict.request import read_request

    request = read_request(
        model, path, emotion or ["all"], out, params or PARAMS, params is not None, weights or (), fetch
    )
    with waiting("predict", TORCH):
        from model.predict.folder import predict_images, predictions_text, summary_text

    rows = predict_images(*request, overlay_side=overlay_size)
    where = [summary_text(rows, out)]
    if page:
        from model.predict.page import write_page

        where.append(f"page: {write_page(rows, out)}")
    code = int(all("error" in row for row in rows))
    return _answer(rows, as_json, lambda _: "\n".join([predictions_text(rows), "", *where]), code)


@command()
def export(
    checkpoint: Annotated[Path, typer.Argument(help="A trained run, e.g. runs/single.")],
    out: Annotated[Path, typer.Argument(help="Folder for the model to take away.")],
    with_encoders: Annotated[
        bool | None,
        typer.Option(
            "--with-encoders/--without-encoders",
            help="Put the frozen SAM and CLIP into the folder; default: if they are here and below 50 MB.",
        ),
    ] = None,
    push: Annotated[
        str | None, typer.Option(help="Also push it to the Hugging Face hub, as OWNER/NAME.")
    ] = None,
    private: Annotated[bool, typer.Option("--private", help="With --push: a private repository.")] = False,
    params: Annotated[
        Path | None,
        typer.Option("--params", help="Where scores and weights lie; default: params.yaml, if there is one."),
    ] = None,
    as_json: Json = False,
) -> Answer:
    """A trained model alone, with its card: weights, config, tokenizer, and the scores of this pipeline."""
    from model.emosem.export import Push
    from model.emosem.export import export as save
    from pipeline.backbones.params import BackbonesParams

    if private and push is None:
        raise typer.BadParameter("is about --push, which is not given", param_hint="--private")
    where, backbones = Paths(), None
    if params is not None or PARAMS.exists():
        read = Params.read(params or PARAMS)
        where, backbones = read.section("paths", Paths), read.section("backbones", BackbonesParams)
    target = None if push is None else Push(push, private)
    return _answer(save(checkpoint, out, where.metrics, target, backbones, with_encoders), as_json)


@command()
def score(
    maps: Maps = None,
    explanations: Texts = None,
    against: Annotated[
        Path | None, typer.Option(help="Another method's maps: paired tests on the same items.")
    ] = None,
    against_explanations: Annotated[Path | None, typer.Option(help="The other method's texts.")] = None,
    entire_artwork: Annotated[
        bool, typer.Option("--entire-artwork", help="Is the protocol the published one? Takes APOLO alone.")
    ] = False,
    allow_missing: Annotated[
        bool, typer.Option("--allow-missing", help="Leave items without a map or text out, instead of IoU 0.")
    ] = False,
    apolo: Annotated[
        Path | None, typer.Option(help="APOLO release, nothing else is needed; default: the one in params.")
    ] = None,
    artemis: Csv = None,
    split: Annotated[str | None, typer.Option(help="APOLO split, val or test (default).")] = None,
    csv: Rows = None,
    params: ParamsFile = PARAMS,
    as_json: Json = False,
) -> Answer:
    """Score predictions by the APOLO protocol: every method of the pipeline, or anyone's maps and texts.

    For anyone's, the release named by --apolo is all that is needed (docs/score_your_method.md).
    """
    outside = maps is not None or explanations is not None
    about = "--maps, --explanations or --entire-artwork"
    _only_with("--maps or --explanations", outside, allow_missing=allow_missing, csv=csv)
    _only_with("--maps", maps is not None, against=against)
    _only_with("--explanations", explanations is not None, against_explanations=against_explanations)
    _only_with(about, outside or entire_artwork, apolo=apolo, split=split, artemis=artemis)
    if outside and entire_artwork:
        why = "cannot be given with --maps or --explanations"
        raise typer.BadParameter(why, param_hint="--entire-artwork")
    if not outside and not entire_artwork:
        return _score_pipeline(Params.read(params), as_json)
    # whoever only scores has no checkout, and no params file
    read = Params(params, {}) if params == PARAMS and not params.is_file() else Params.read(params)
    if entire_artwork:
        return _entire_artwork(read, apolo, split, artemis, as_json)
    with waiting("score", "starting"):
        from model.score import external_maps, external_rows, external_text
        from pipeline.backbones.params import BackbonesParams

    if csv is not None:
        external_rows.check_target(csv)
    found = external_maps.score_external_maps(
        external_maps.Files(maps, explanations),
        **_release(read, apolo, split),
        allow_missing=allow_missing,
        against=external_maps.Files(against, against_explanations),
        artemis=artemis,
        backbones=read.section("backbones", BackbonesParams),
    )
    if csv is not None:
        external_rows.write_rows(csv, found.rows)
    return _answer(found.report, as_json, external_text.scores_text)


def _score_pipeline(params: Params, as_json: bool) -> Answer:
    """Every method of the pipeline: the DVC stage."""
    table = params.section("paths", Paths).metrics / "score.md"
    _ready.before_score(params)
    return _answer(_stage("score", params), as_json, lambda _: table.read_text(encoding="utf-8"))


def _only_with(needed: str, there: bool, **options: Any) -> None:
    """Refuse options of a kind of scoring that was not asked for."""
    for name, given in options.items():
        if given and not there:
            hint = f"--{name.replace('_', '-')}"
            raise typer.BadParameter(f"is about {needed}, which is not given", param_hint=hint)


def _release(params: Params, apolo: Path | None, split: str | None) -> dict[str, Any]:
    """What is scored, and by which protocol, as arguments of a library call."""
    from model.score.params import ScoreParams
    from pipeline.releases.source import PLAIN

    paths, source = params.section("paths", Paths), PLAIN
    if "utterances" in params.sections:  # its params need Pillow, which whoever only scores does without
        from pipeline.utterances.params import UtterancesParams

        source = params.section("utterances", UtterancesParams)
    return {
        "apolo": apolo or paths.apolo,
        "split": split or "test",
        "paths": paths,
        "params": params.section("score", ScoreParams),
        "source": source,
    }


def _entire_artwork(
    params: Params, apolo: Path | None, split: str | None, artemis: Path | None, as_json: bool
) -> Answer:
    from model.score.protocol_check import check_protocol, protocol_text

    found = check_protocol(**_release(params, apolo, split), artemis=artemis)
    return _answer(found, as_json, protocol_text)


@command("label-card")
def label_card(
    data: Annotated[
        list[Path] | None,
        typer.Option(help="Folder with regions/ and similarity/; repeat to compare. Default: in params."),
    ] = None,
    params: ParamsFile = PARAMS,
    as_json: Json = False,
) -> Answer:
    """Score the pseudo-mask recipe itself on APOLO before any training: sweep it on val, report test."""
    read = Params.read(params)
    _ready.before_score(read)
    with waiting("label-card", "starting"):
        from model.label_card.card import make_card
        from model.label_card.page import card_text
        from model.label_card.sweep import LabelCardParams
        from model.score.params import ScoreParams
        from pipeline.masks.recipe import MasksParams

    card = make_card(
        read.section("paths", Paths),
        read.section("masks", MasksParams),
        read.section("score", ScoreParams),
        read.section("label_card", LabelCardParams),
        data or (),
    )
    return _answer(card, as_json, card_text)


@command()
def ablations(
    variants: Annotated[
        list[str] | None, typer.Argument(help="Names in train.variants; default: all of them.")
    ] = None,
    tables: Annotated[bool, typer.Option("--tables", help="Train nothing; score what is finished.")] = False,
    params: ParamsFile = Path("params/ablations.yaml"),
    as_json: Json = False,
) -> Answer:
    """Train, predict and score the paper's ablations, and print its tables. A killed run goes on."""
    read = Params.read(params)
    from stages._ablations import run_ablations

    values, text = run_ablations(read, variants or (), tables)
    return _answer(values, as_json, lambda _: text)


@command("shard-stats")
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
        return _answer(values, as_json, lambda _: text)
    problems = verify_shards(folder)
    found = {"problems": [dataclasses.asdict(problem) for problem in problems]}
    lines = "\n".join(map(str, problems)) or "every byte is as it was written"
    return _answer(found, as_json, lambda _: lines, code=1 if problems else 0)


@command("export-masks")
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
    return _answer(export_all(folder, out, format_.value, options), as_json)


@command()
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
        return _answer(review_command.write_static(service, static, wish, count), as_json)
    options = review_command.ReviewOptions(name, port, open_)
    return _answer(review_command.serve(paths, stats, sam, options), as_json, review_command.numbers_text)


@command("import-reviews")
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
    return _answer(import_all(file, format_.value, paths, by), as_json)


@command()
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
        return _answer(write_contact_sheet(paths, choice, limits, out or Path("look/sheet.html")), False)
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


@command()
def report(params: ParamsFile = PARAMS, as_json: Json = False) -> Answer:
    """Write report/index.html: scores, curves and pictures."""
    return _answer(_stage("report", Params.read(params)), as_json)


@command()
def bench(
    what: Annotated[BenchWhat, typer.Argument(help="What to measure.")],
    true_size: Annotated[
        bool, typer.Option("--true-size", help="train, factory, drift: random weights of the paper's sizes.")
    ] = False,
    only: Annotated[
        list[str] | None, typer.Option(help="peers, gpu: these rows or parts, NAME or NAME,NAME.")
    ] = None,
    limit: Annotated[
        float | None, typer.Option(min=1, help="peers: seconds for each row; 1200 unless given.")
    ] = None,
    markdown: Annotated[
        Path | None, typer.Option(help="peers: also write the table into this page, such as docs/peers.md.")
    ] = None,
    tiny: Annotated[
        bool, typer.Option("--tiny", help="gpu: small sizes, on a processor too; does every part run?")
    ] = False,
    minutes: Annotated[
        float | None, typer.Option(min=0.1, help="gpu: for all parts; 9 unless given.")
    ] = None,
    out: Annotated[
        Path | None, typer.Option(help="gpu: file of the results, written after every part; gpu.json.")
    ] = None,
    params: ParamsFile = PARAMS,
    as_json: Json = False,
) -> Answer:
    """Measure speed on this machine, ratios in one run; or what storing features coarsely costs (drift)."""
    names = [name for given in only or [] for name in given.split(",")]
    options = {"true_size": true_size, "only": names, "limit": limit, "markdown": markdown}
    options |= {"tiny": tiny, "minutes": minutes, "out": out}
    options = {name: value for name, value in options.items() if value}
    for name in options:
        if what not in BENCHES_WITH[name]:
            of = ", ".join(BENCHES_WITH[name])
            raise typer.BadParameter(f"is for {of}", param_hint=f"--{name.replace('_', '-')}")
    read = Params.read(params)
    _ready.before_bench(read, what.value, true_size)
    if what is BenchWhat.peers:
        return _bench_peers(read, names, markdown, limit, as_json)
    with waiting(f"bench {what.value}", TORCH):
        module = importlib.import_module(f"model.bench.{what.value}")
    values = module.run(read, **options)
    if what is BenchWhat.gpu:
        return _answer(values, as_json, module.text, code=int(bool(module.failures(values))))
    return _answer(values, as_json)


def _bench_peers(
    params: Params, only: list[str], markdown: Path | None, limit: float | None, as_json: bool
) -> Answer:
    """Side by side with what a user would take instead."""
    from model.bench.peers import run, table

    names = run.chosen(only)
    if markdown:
        table.check_page(markdown)
    found = run.run(params, names, limit)
    if markdown:
        table.write_page(markdown, found)
    return _answer(found, as_json, table.text, int(run.failed(found)))


@command()
def plan(
    measure: Annotated[
        bool, typer.Option("--measure", help="Measure rates even if nothing is left.")
    ] = False,
    params: ParamsFile = PARAMS,
    as_json: Json = False,
) -> Answer:
    """What a run will take: items, bytes, hours from rates measured here, disk; before anything heavy."""
    read = Params.read(params)
    _ready.before_plan(read)
    with waiting("plan", TORCH):
        from model.bench.plan import plan_training
        from pipeline.plan.plan import make_plan, plan_text

    made = make_plan(read, plan_training, "always" if measure else "needed")
    return _answer(made, as_json, plan_text)


@command()
def doctor(params: ParamsFile = PARAMS, as_json: Json = False) -> Answer:
    """Check paths, weights, device, disk, Java and params; for each problem, the way out."""
    with waiting("doctor", "checking packages, paths, weights, device, disk and Java"):
        from model.metrics.text import find_java
        from pipeline.doctor.examine import examine, failed, findings_text

        findings = examine(params, find_java)
    listed = {"findings": [dataclasses.asdict(finding) for finding in findings]}
    code = 1 if failed(findings) else 0
    return _answer(listed, as_json, lambda _: findings_text(findings), code)


@command()
def fetch(
    names: Annotated[
        list[str],
        typer.Argument(
            help="sam, clip, clip-score, vinvl, faster-rcnn (which one, and where to, the params say), "
            "distilgpt2, gpt2, gpt2-large; where to get artemis, wikiart, apolo, artemis-classifier yourself."
        ),
    ],
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Only show source, size, licence and hash; ask no server.")
    ] = False,
    mirror: Annotated[
        str | None,
        typer.Option(help="Takes the place of https://HOST in every source; HF_ENDPOINT does in the hub's."),
    ] = None,
    params: ParamsFile = PARAMS,
    as_json: Json = False,
) -> Answer:
    """Download official weights to where the params expect them. A killed or broken download goes on."""
    from pipeline.fetch.order import make_order
    from pipeline.fetch.report import by_hand, fetched_text, look, order_text

    order, hand = make_order(names, Params.read(params), mirror), by_hand(names)
    if dry_run:
        found = look(order)
    else:
        print(order_text(order, hand), file=sys.stderr, flush=True)
        from pipeline.fetch.fetch import fetch as fetch_all  # slow to import: after the first word

        found = fetch_all(order)
    listed = {"files": [one.as_json() for one in found], "by_hand": hand}
    text = order_text(order, hand) if dry_run else fetched_text(found)
    return _answer(listed, as_json, lambda _: text, code=int(bool(hand) and not dry_run))


@command()
def init(
    images: Annotated[Path, typer.Option(help="Folder of pictures: of art styles, of data sets, or flat.")],
    artemis: Annotated[
        Path | None,
        typer.Option(
            help="Who felt what: the csv of ArtEmis, a relative, or any with picture, emotion, words."
        ),
    ] = None,
    apolo: Annotated[Path | None, typer.Option(help="APOLO release, for scoring.")] = None,
    preset: Annotated[
        InitPreset | None, typer.Option(help="Models: the official ones, or tiny; default: by the csv.")
    ] = None,
    out: Annotated[
        Path | None, typer.Option(help="Params file to write; default: named after the csv.")
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Write over a params file that is there.")] = False,
    as_json: Json = False,
) -> Answer:
    """Write a params file for your own csv and pictures; then `doctor` and `plan` of it."""
    from pipeline.init.write import init_csv, init_pictures

    chosen = preset.value if preset else None
    if artemis is None:
        file, text = init_pictures(images, chosen, out, force)
        return _answer({"params": str(file), "text": text}, as_json, lambda _: text)
    file, text = init_csv(artemis, images, apolo, chosen, out, force)
    print(f"{text}\n", file=sys.stderr, flush=True)
    with waiting("init", TORCH):
        from model.bench.plan import plan_training
        from model.metrics.text import find_java
        from pipeline.init.follow_up import follow_up

    values, rest = follow_up(file, find_java, plan_training)
    return _answer({"params": str(file), "text": text, **values}, as_json, lambda _: rest)


@command("pretrain-tiny")
def pretrain_tiny(
    out: Annotated[Path, typer.Argument(help="Folder for the weights.")] = Path("weights/tiny"),
    only: Annotated[Backbone | None, typer.Option(help="Train one of them and leave the others.")] = None,
    params: ParamsFile = PARAMS,
    as_json: Json = False,
) -> Answer:
    """Train the built-in gallery's tiny CLIP, SAM, GPT-2 and VinVL from nothing, by a fixed recipe.

    What a stopped training of SAM or CLIP goes on from is kept in data/pretrain. More or fewer of its steps
    (pretrain.sam.steps, pretrain.clip.steps) in the params prolong it or end it early.
    """
    file = Params.read(params)
    _ready.before_pretraining(out)
    with waiting("pretrain-tiny", TORCH):
        from model.pretrain.tiny import PretrainParams, pretrain

        read, paths = file.section("pretrain", PretrainParams), file.section("paths", Paths)
    quality = pretrain(out, read, paths.data / "pretrain", only.value if only else None)
    return _answer(quality, as_json, lambda _: (out / "CARD.md").read_text(encoding="utf-8"))


def main() -> None:
    """Entry point: a user's mistake is one message and exit code 2, a failed run's is 1; no traceback."""
    command_line.main(app, "error")


if __name__ == "__main__":
    main()
