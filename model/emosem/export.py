"""The model to take away: a trained run without its checkpoints, with a card that tells its scores."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from huggingface_hub import EvalResult

from model.emosem.config import method_name
from model.emosem.model_card import CardScores, escape, one_line
from model.emosem.network import EmoSEM
from model.metrics.columns import COLUMNS
from model.metrics.markdown import Markdown, score_table
from pipeline.common.digests import read_sealed
from pipeline.common.errors import RunFailed, UserError
from pipeline.common.files import check_writable
from pipeline.common.lock import writes


@writes(lambda _, out, *__: [out])
def export(
    run: Path, out: Path, metrics: Path, push: str | None = None, private: bool = False
) -> dict[str, Any]:
    """Save a trained model and its card, and push them when asked to.

    Args:
        run: a trained model's folder, see `EmoSEM.from_pretrained`.
        out: folder to write to.
        metrics: folder of score.json; the card tells its rows where there is one.
        push: "owner/name" on the Hugging Face hub, which must know the user (`hf auth login`).
        private: whether a new repository there is to be private.

    Returns:
        What was written where.

    Raises:
        UserError: no model, or `out` is the run's own folder or cannot be written to.
        RunFailed: the hub refused, or could not be reached.
    """
    if out.resolve() == run.resolve():
        raise UserError(f"{out} is the run itself; name another folder to export to")
    model = EmoSEM.from_pretrained(run)
    check_writable(out)
    file = metrics / "score.json"
    try:
        scores = read_sealed(file) if file.exists() else None
    except (OSError, ValueError) as error:
        raise UserError(f"{file} cannot be read ({error}); run the score step again") from None
    card = {"scores": scores and card_scores(scores, method_name(model.config))}
    model.save_pretrained(out, model_card_kwargs=card)
    done = {"model": out.as_posix(), "scores": file.as_posix() if scores else "none yet"}
    if push is None:
        return done
    try:
        commit = model.push_to_hub(push, private=private or None, model_card_kwargs=card)
    except Exception as error:  # an absent network, repository or permission shows in many ways
        raise RunFailed(f"{out} is written, but could not be pushed to {push}: {error}") from error
    return done | {"hub": str(commit)}


def card_scores(scores: Mapping[str, Any], method: str) -> CardScores:
    """The content of metrics/score.json as the card of the model in row `method` tells it."""
    rows = scores["rows"]
    own: Mapping[str, Any] = next((row for row in rows if row["method"] == method), {})
    results = tuple(
        EvalResult(
            task_type="image-segmentation" if "_pr" in column else "image-to-text",
            dataset_type="apolo",
            dataset_name=one_line(f"APOLO protocol on {scores['data']}"),
            dataset_split=scores.get("split"),
            metric_type=column,
            metric_name=heading,
            metric_value=round(own[column], decimals),
        )
        for column, heading, decimals in COLUMNS
        if column in own
    )
    return CardScores(
        method=method,
        data=scores["data"],
        split=scores["split"],
        backbones=scores["backbones"],
        table=score_table([{**row, "method": Markdown(escape(row["method"]))} for row in rows]),
        results=results,
    )
