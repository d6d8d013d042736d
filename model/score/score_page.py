"""The score table that a person reads: Markdown, in the paper's order of columns."""

from collections.abc import Mapping, Sequence
from typing import Any

from model.metrics.columns import COLUMNS, NAMED, cell
from model.metrics.markdown import escape, score_table, table


def chosen_table(rows: Sequence[Mapping[str, Any]]) -> str:
    """As `score_table`, the columns of masks alone, at the threshold that suits the val items best."""
    masks = [(f"{column}_val", heading, decimals) for column, heading, decimals in COLUMNS[:4]]
    lines = [
        [
            row["method"],
            cell(row, "threshold_val", 2),
            *(cell(row, name, decimals) for name, _, decimals in masks),
        ]
        for row in rows
    ]
    return table(["Method", "Threshold", *(heading for _, heading, _ in masks)], lines)


def _words_parts(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """What `CLIP own` is and, of the gallery, what the explanations name; nothing where neither is judged."""
    parts = []
    if any("clip_own" in row for row in rows):
        parts.append(
            "CLIP own: how often CLIP finds an explanation closer to its own artwork than to another one "
            "that was asked for the same emotion; 50 where words do not depend on the picture."
        )
    named = [row for row in rows if "motif_named" in row]
    if not named:
        return parts
    lines = [
        [row["method"], *(cell(row, column, decimals) for column, _, decimals in NAMED)] for row in named
    ]
    return [
        *parts,
        "What the explanations name, by what was drawn (Motif is the second column):",
        table(["Method", *(heading for _, heading, _ in NAMED)], lines),
        "Percent of the explanations that name a motif, but for the first column, of all. "
        "In another artwork: the same words held against the other artworks asked for the same emotion, so "
        "what the emotion alone tells. Under the label: it evokes the emotion there. What the mask marks: "
        "it is the motif that the method's own mask overlaps most. Its look is right: of those that say "
        "size, state or colour of a motif that is there, all that they say.",
    ]


def _on_draws(rows: Sequence[Mapping[str, Any]]) -> str:
    if not any(name.endswith("_sd") for row in rows for name in row):
        return ""
    return " Of several draws of every explanation (`predict.seeds`): mean ± standard deviation."


def markdown(metrics: Mapping[str, Any]) -> str:
    """The page ``metrics/score.md`` for the content of ``metrics/score.json``."""
    protocol, counts = metrics["protocol"], metrics["items"]
    boxed = "prediction and label" if protocol["box_truth"] else "prediction only"
    box = "boxes by 8-connected component" if protocol["boxes"] == "components" else "one box for all"
    accuracy = metrics["alignment"].get("test", {}).get("accuracy")
    artemis = metrics["alignment"].get("source") == "artemis"
    kind, held_out = ("ArtEmis's own classifier", "the") if artemis else ("a classifier", "held-out")
    judge = "" if accuracy is None else f", right on {accuracy:.1f} % of {held_out} test utterances,"
    parts = [
        "# Scores",
        f"Data: **{escape(metrics['data'])}**, {metrics['split']} items. "
        f"Backbones: **{escape(metrics['backbones'])}**.",
        score_table(metrics["rows"]),
        "Percentages, higher is better. "
        f"{counts['counted']} of {counts['apolo']} items count (the others have no usable label). "
        "A missing prediction counts as IoU 0 and as an empty explanation.",
        f"Masks: foreground above {protocol['threshold']:g} after min-max ({protocol['scaling']}); "
        f"{box} on {boxed}. "
        f"EA: share of explanations in which {kind}{judge} reads the item's emotion. "
        f"Text: pycocoevalcap {metrics['text']['pycocoevalcap']}, PTB tokens. "
        f"CLIPScore: CLIP {escape(protocol['clip']['name'])}." + _on_draws(metrics["rows"]),
        "Rows with a colon are controls and ablations: `:other-emotion` was asked for another emotion of the "
        "same artwork and is scored against the item's own; `:no-prefix` is a model whose language model "
        "sees no prefix; docs/paper.md has the others. The paper's tables with these rows: tables/.",
        *_words_parts(metrics["rows"]),
    ]
    if any("threshold_val" in row for row in metrics["rows"]):
        on_itself = ", which are the items scored here" if metrics["split"] == "val" else ""
        parts += [
            f"The same masks at the threshold with each method's highest mean IoU, by pixels, on the "
            f"{counts['val']} val items{on_itself}:",
            chosen_table(metrics["rows"]),
        ]
    if metrics["problems"]:
        parts.append(
            "Problems:\n\n" + "\n".join(f"- {escape(line, code=True)}" for line in metrics["problems"])
        )
    return "\n\n".join(parts) + "\n"
