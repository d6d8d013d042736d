"""Scores: of the pipeline, of anyone's results, of pseudo-mask recipes and ablations; and the report."""

from pathlib import Path
from typing import Annotated, Any

import typer

from pipeline.common.params import Params, Paths
from pipeline.common.progress import waiting
from stages import _ready
from stages.commands.answer import Answer, answer_of
from stages.commands.options import PARAMS, Json, ParamsFile
from stages.commands.run_stage import run_stage

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
    return answer_of(found.report, as_json, external_text.scores_text)


def _score_pipeline(params: Params, as_json: bool) -> Answer:
    """Every method of the pipeline: the DVC stage."""
    table = params.section("paths", Paths).metrics / "score.md"
    _ready.before_score(params)
    return answer_of(run_stage("score", params), as_json, lambda _: table.read_text(encoding="utf-8"))


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
    return answer_of(found, as_json, protocol_text)


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
    return answer_of(card, as_json, card_text)


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
    return answer_of(values, as_json, lambda _: text)


def report(params: ParamsFile = PARAMS, as_json: Json = False) -> Answer:
    """Write report/index.html: scores, curves and pictures."""
    return answer_of(run_stage("report", Params.read(params)), as_json)
