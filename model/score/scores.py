"""Every method's scores on the same items: what the step's tables, pages and statistics are made of."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from model.maps.method import Method, item_id
from model.metrics.text import TextJudge
from model.metrics.thresholds import Sweep
from model.score.explanations import MethodExplanations, ReferenceItems, score_explanations
from model.score.motifs.judge import open_motif_judge
from model.score.params import ScoreParams
from model.score.score_masks import MapTable, score_masks, sweep_masks
from pipeline.common.errors import UserError
from pipeline.releases.apolo import ApoloItem

if TYPE_CHECKING:  # it needs torch, and whoever scores maps of elsewhere has none
    from model.score.inputs import Judges, ScoreInputs


@dataclass(frozen=True)
class Scores:
    """What every method reaches on every item."""

    items: Sequence[ApoloItem]
    """Of the split, those without a usable label included."""
    methods: Sequence[str]
    """Names, in the order of the score table."""
    masks: MapTable
    """IoU of every (method, item), in these orders."""
    sweeps: Sequence[Sweep | None]
    """Per method the val items at every threshold; None where there is nothing to sweep."""
    explanations: Mapping[str, MethodExplanations]
    """Of the methods that explain, over `counted`."""
    absent: Sequence[str]
    """A line for every metric that could not be run."""

    @property
    def counted(self) -> list[ApoloItem]:
        """The items that count, for all methods the same."""
        return [item for item, counts in zip(self.items, self.masks.counted, strict=True) if counts]

    def rows(self) -> list[dict[str, Any]]:
        """The rows of the score table, as in metrics/score.json."""
        rows = []
        for m, method in enumerate(self.methods):
            missing = self.masks.problems[m].count("missing")
            own = self.explanations.get(method)
            rows.append(
                {"method": method, **self.masks.rates(m), "missing": missing} | (own.row if own else {})
            )
        return rows


def compute_scores(inputs: "ScoreInputs", texts: TextJudge, judges: "Judges", params: ScoreParams) -> Scores:
    """Score every method; `texts` is at work on the explanations of all items.

    Raises `UserError` when no item has a usable label.
    """
    sweeps = sweep_masks(inputs.val, inputs.methods, params)
    chosen = [None if sweep is None else sweep.best(params.threshold) for sweep in sweeps]
    masks = score_masks(inputs.items, inputs.methods, params, chosen)
    counted = [item for item, counts in zip(inputs.items, masks.counted, strict=True) if counts]
    if not counted:
        raise UserError(
            f"none of the {len(inputs.items)} {params.split} items has a usable label: {masks.labels[0]}"
        )
    motifs, unjudged = open_motif_judge(inputs.apolo, counted, inputs.methods, params)
    explanations, absent = score_explanations(
        ReferenceItems.of(counted),
        find_draws(counted, inputs.methods),
        texts,
        judges.classifier,
        judges.pictures,
        motifs,
    )
    names = [method.name for method in inputs.methods]
    return Scores(inputs.items, names, masks, sweeps, explanations, [*unjudged, *absent])


def find_draws(items: Sequence[ApoloItem], methods: Sequence[Method]) -> dict[str, list[list[str]]]:
    """Of the methods that explain: name -> draw -> text per item, empty where the method has none."""
    draws: dict[str, list[list[str]]] = {}
    for method in methods:
        texts = [method.explanations.get(item_id(item), ()) for item in items]
        count = max(map(len, texts), default=0)
        if count:
            draws[method.name] = [[t[d] if d < len(t) else "" for t in texts] for d in range(count)]
    return draws
