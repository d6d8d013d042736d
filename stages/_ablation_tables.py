"""What `ablations` answers: the paper's tables of one training, or the page of claims over several seeds."""

import json
from pathlib import Path
from typing import Any

from model.predict.params import PredictParams
from model.score.params import ScoreParams
from model.score.statistics.claims_page import score_seeds, write_claims
from model.train.params import TrainParams
from pipeline.common.errors import UserError
from pipeline.common.params import Params
from pipeline.common.progress import waiting
from stages._ablation_parts import Ablations, SeedRun

SCORED = "items.parquet"


def answer(todo: Ablations, scored: list[SeedRun]) -> tuple[dict[str, Any], str, Path]:
    """(Values, text, where the text lies) of what is scored. Raises `UserError`."""
    metrics = todo.paths.metrics
    if not todo.params.seeds:
        values = json.loads((metrics / "score.json").read_text(encoding="utf-8"))
        pages = sorted((metrics / "tables").glob("*.md"))
        return values, "\n".join(page.read_text(encoding="utf-8") for page in pages), metrics / "tables"
    beside = scored_beside(todo)
    params = todo.read.section("score", ScoreParams).statistics
    folders = {one.seed: one.paths.step("score") for one in scored if one.seed is not None}
    with waiting("ablations", f"intervals over {len(folders)} seed(s)"):
        content = score_seeds(folders, params, beside)
        page = write_claims(metrics, content, _about(scored[0]))
    return content, page, metrics / "claims.md"


def scored_beside(todo: Ablations) -> dict[str, list[Path]]:
    """The other runs' folders of scores by name. Raises `UserError` where one has none."""
    beside = {}
    for name, data in todo.params.beside.items():
        beside[name] = sorted(file.parent for file in data.glob(f"seed-*/score/{SCORED}"))
        if not beside[name]:
            raise UserError(f"ablations.beside.{name}: {data} holds no scored seed (seed-0/score/{SCORED})")
    return beside


def _about(one: SeedRun) -> list[str]:
    """Sentences of what was run: data, weights, epochs, as the seed's own params file has them."""
    score = json.loads((one.paths.metrics / "score.json").read_text(encoding="utf-8"))
    read = Params.read(one.params.file)
    train = read.section("train", TrainParams)
    epochs: dict[int, list[str]] = {}
    for variant in train.variants:
        epochs.setdefault(train.of(variant).epochs, []).append(variant)
    told = "; ".join(f"{count} for {', '.join(names)}" for count, names in epochs.items())
    trained = f"{next(iter(epochs))} for all" if len(epochs) == 1 else told
    draws = len(read.section("predict", PredictParams).seeds)
    return [
        f"Data: {score['data']}. Backbones: {score['backbones']}.",
        f"Epochs: {trained}. Draws of each explanation: {draws}.",
    ]
