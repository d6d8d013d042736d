"""Before anything starts: params for data of one's own, weights, what is missing, what a run will take."""

import dataclasses
import enum
import sys
from pathlib import Path
from typing import Annotated

import typer

from pipeline.common.params import Params
from pipeline.common.progress import waiting
from stages import _ready
from stages.commands.answer import Answer, answer_of
from stages.commands.loading import loading_torch
from stages.commands.options import PARAMS, Json, ParamsFile


class InitPreset(enum.StrEnum):
    """The models of a new params file."""

    artemis = "artemis"
    photos = "photos"
    tiny = "tiny"


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
        return answer_of({"params": str(file), "text": text}, as_json, lambda _: text)
    file, text = init_csv(artemis, images, apolo, chosen, out, force)
    print(f"{text}\n", file=sys.stderr, flush=True)
    with loading_torch("init"):
        from model.bench.plan import plan_training
        from model.metrics.text import find_java
        from pipeline.init.follow_up import follow_up

    values, rest = follow_up(file, find_java, plan_training)
    return answer_of({"params": str(file), "text": text, **values}, as_json, lambda _: rest)


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
    return answer_of(listed, as_json, lambda _: text, code=int(bool(hand) and not dry_run))


def doctor(params: ParamsFile = PARAMS, as_json: Json = False) -> Answer:
    """Check paths, weights, device, disk, Java and params; for each problem, the way out."""
    with waiting("doctor", "checking packages, paths, weights, device, disk and Java"):
        from model.metrics.text import find_java
        from pipeline.doctor.examine import examine, failed, findings_text

        findings = examine(params, find_java)
    listed = {"findings": [dataclasses.asdict(finding) for finding in findings]}
    code = 1 if failed(findings) else 0
    return answer_of(listed, as_json, lambda _: findings_text(findings), code)


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
    with loading_torch("plan"):
        from model.bench.plan import plan_training
        from pipeline.plan.plan import make_plan, plan_text

    made = make_plan(read, plan_training, "always" if measure else "needed")
    return answer_of(made, as_json, plan_text)
