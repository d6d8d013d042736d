"""Models: trained, asked, taken away; and the gallery's tiny backbones trained again."""

import enum
from pathlib import Path
from typing import Annotated

import typer

from pipeline.common.params import Params, Paths
from stages import _ready
from stages.commands.answer import Answer, answer_of
from stages.commands.loading import loading_torch
from stages.commands.options import PARAMS, Json, ParamsFile
from stages.commands.run_stage import run_stage


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
    return answer_of(run_stage("train", read, paradigm.value), as_json)


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
    with loading_torch("predict"):
        from model.predict.folder import predict_images, predictions_text, summary_text

    rows = predict_images(*request, overlay_side=overlay_size)
    where = [summary_text(rows, out)]
    if page:
        from model.predict.page import write_page

        where.append(f"page: {write_page(rows, out)}")
    code = int(all("error" in row for row in rows))
    return answer_of(rows, as_json, lambda _: "\n".join([predictions_text(rows), "", *where]), code)


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
    return answer_of(save(checkpoint, out, where.metrics, target, backbones, with_encoders), as_json)


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
    with loading_torch("pretrain-tiny"):
        from model.pretrain.tiny import PretrainParams, pretrain

        read, paths = file.section("pretrain", PretrainParams), file.section("paths", Paths)
    quality = pretrain(out, read, paths.data / "pretrain", only.value if only else None)
    return answer_of(quality, as_json, lambda _: (out / "CARD.md").read_text(encoding="utf-8"))
