"""The model to take away: a trained run without its checkpoints, with a card that tells its scores."""

import json
from pathlib import Path
from typing import Any

from model.emosem.config import method_name
from model.emosem.network import EmoSEM
from pipeline.common.errors import RunFailed, UserError
from pipeline.common.files import check_writable


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
    scores = json.loads(file.read_text(encoding="utf-8")) if file.is_file() else None
    card = {"scores": scores, "method": method_name(model.config)}
    model.save_pretrained(out, model_card_kwargs=card)
    done = {"model": out.as_posix(), "scores": file.as_posix() if scores else "none yet"}
    if push is None:
        return done
    try:
        commit = model.push_to_hub(push, private=private or None, model_card_kwargs=card)
    except Exception as error:  # an absent network, repository or permission shows in many ways
        raise RunFailed(f"{out} is written, but could not be pushed to {push}: {error}") from error
    return done | {"hub": str(commit)}
