"""The model to take away: a trained run without its checkpoints, with its encoders and a card.

torch is imported late, so that what is missing for a push is said at once.
"""

import sys
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from huggingface_hub import EvalResult

from model.emosem.config import method_name, read_config
from model.emosem.encoder_search import ENCODERS
from model.emosem.hub import ENCODERS as ENCODERS_ON_HUB
from model.emosem.hub import check_push
from model.emosem.model_card import CardScores, escape, one_line
from model.emosem.provenance import Provenance
from model.metrics.columns import COLUMNS
from model.metrics.markdown import Markdown, score_table
from pipeline.backbones.params import BackbonesParams
from pipeline.common.digests import read_sealed
from pipeline.common.errors import RunFailed, UserError
from pipeline.common.files import check_writable
from pipeline.common.lock import writes
from pipeline.common.machine import shown_bytes
from pipeline.common.sums import read_sums

SMALL = 50_000_000
"""Bytes of both encoders up to which they are exported without being asked for."""


@dataclass(frozen=True)
class Push:
    """Where on the Hugging Face hub a model goes."""

    name: str
    """OWNER/NAME."""
    private: bool = False
    """Whether a new repository is to be private."""


def export(
    run: Path,
    out: Path,
    metrics: Path,
    push: Push | None = None,
    backbones: BackbonesParams | None = None,
    with_encoders: bool | None = None,
) -> dict[str, Any]:
    """Save a trained model and its card, and push them when asked to.

    Args:
        run: a trained model's folder, see `EmoSEM.from_pretrained`.
        out: folder to write to.
        metrics: folder of score.json; the card tells its rows where there is one.
        push: where to publish it; the hub must know the user (`hf auth login`).
        backbones: where the encoders may lie, besides the folders of `encoder_search.shelves`.
        with_encoders: whether the encoders go into the folder; None: where they are here and `SMALL`.

    Returns:
        What was written where.

    Raises:
        UserError: no model, or `out` is the run's own folder or cannot be written to; what a push lacks; or
            the encoders are asked for and not here.
        RunFailed: the hub refused, or could not be reached.
    """
    if out.resolve() == run.resolve():
        raise UserError(f"{out} is the run itself; name another folder to export to")
    _, provenance = read_config(run)
    if push is not None:
        check_push(push.name)
    return _save(run, out, metrics, push, backbones, with_encoders, provenance)


@writes(lambda _, out, *__: [out])
def _save(
    run: Path,
    out: Path,
    metrics: Path,
    push: Push | None,
    backbones: BackbonesParams | None,
    with_encoders: bool | None,
    provenance: Provenance | None,
) -> dict[str, Any]:
    """See `export`."""
    check_writable(out)
    file = metrics / "score.json"
    try:
        scores = read_sealed(file) if file.exists() else None
    except (OSError, ValueError) as error:
        raise UserError(f"{file} cannot be read ({error}); run the score step again") from None
    with tempfile.TemporaryDirectory(dir=out, prefix=".encoders.", suffix=".tmp") as scratch:
        about, beside, words = _encoders(run, provenance, backbones, with_encoders, Path(scratch))
        from model.emosem.network import EmoSEM

        model = EmoSEM.from_pretrained(run)
        model.provenance, model.beside = about, beside
        card: dict[str, Any] = {"scores": scores and card_scores(scores, method_name(model.config))}
        card |= {"name": push.name} if push else {}
        before = _listed(out)
        model.save_pretrained(out, model_card_kwargs=card)
        for name in before - _listed(out):
            (out / name).unlink(missing_ok=True)
        done = {"model": out.as_posix(), "encoders": words}
        done["scores"] = file.as_posix() if scores else "none yet"
        return done | ({"hub": _push(model, out, push, card)} if push else {})


def _push(model: Any, out: Path, push: Push, card: Mapping[str, Any]) -> str:
    """Publish it; returns the address of the commit. Raises `RunFailed`."""
    try:
        commit = model.push_to_hub(
            push.name, private=push.private or None, model_card_kwargs=card, delete_patterns=ENCODERS_ON_HUB
        )
    except Exception as error:  # an absent network, repository or permission shows in many ways
        raise RunFailed(f"{out} is written, but could not be pushed to {push.name}: {error}") from error
    return str(commit)


def _listed(out: Path) -> set[str]:
    """Files of encoders that an export to this folder has written."""
    try:
        names = (read_sums(out) or {}).keys()
    except (OSError, ValueError):
        return set()
    return {name for name in names if name.startswith(f"{ENCODERS}/") and ".." not in Path(name).parts}


def _encoders(
    run: Path,
    provenance: Provenance | None,
    backbones: BackbonesParams | None,
    wanted: bool | None,
    scratch: Path,
) -> tuple[Provenance | None, dict[str, Path], str]:
    """The account of the encoders, files to lie beside the model, and a word about it. Raises `UserError`."""
    print("export: loading the encoders, to note how they take pictures", file=sys.stderr, flush=True)
    from model.emosem import encoder_export

    here = encoder_export.locate(run, provenance, backbones)
    if isinstance(here, list):
        missing = f"{' and '.join(here)}: not found"
        if wanted:
            raise UserError(
                f"--with-encoders: {missing} in the params' `backbones`, nor in any folder of weights "
                "(EMOSEM_WEIGHTS, weights/)"
            )
        return provenance and provenance.without_encoders(), {}, f"named by hash alone; {missing} here"
    if provenance is None:
        raise ValueError("encoders without provenance")
    size = encoder_export.bytes_of(provenance, here)
    copies = size <= SMALL if wanted is None else wanted
    found = encoder_export.describe(provenance, here, scratch, copies=copies)
    size = sum(file.stat().st_size for file in found.files.values()) if copies else size
    words = f"in the folder ({shown_bytes(size)})"
    if not copies:
        words = f"named by hash, not in the folder ({shown_bytes(size)}; --with-encoders puts them there)"
    return found.provenance, found.files, words


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
