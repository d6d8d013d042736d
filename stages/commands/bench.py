"""Speed on this machine, and what storing features coarsely costs."""

import enum
import importlib
from pathlib import Path
from typing import Annotated

import typer

from pipeline.common.params import Params
from stages import _ready
from stages.commands.answer import Answer, answer_of
from stages.commands.loading import loading_torch
from stages.commands.options import PARAMS, Json, ParamsFile


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
    with loading_torch(f"bench {what.value}"):
        module = importlib.import_module(f"model.bench.{what.value}")
    values = module.run(read, **options)
    if what is BenchWhat.gpu:
        return answer_of(values, as_json, module.text, code=int(bool(module.failures(values))))
    return answer_of(values, as_json)


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
    return answer_of(found, as_json, table.text, int(run.failed(found)))
