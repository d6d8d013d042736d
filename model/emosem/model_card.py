"""The model card: README.md of a saved model, for people and for the Hugging Face hub.

Words from data (a dataset's name, its licence, params) are escaped: they stay words in Markdown and YAML.
"""

import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

from huggingface_hub import EvalResult, ModelCard, ModelCardData
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from model.emosem.provenance import Provenance
from model.metrics.columns import COLUMNS, table

TEMPLATE = "model_card_template.md"
CITATION = "Zhang, Li, Guo, Wang: EmoSEM: Segment and Explain Emotion Stimuli in Visual Art"
TAGS = ("art", "emotion", "image-segmentation", "image-to-text", "emosem")
OPEN = "apache-2.0"
"""Licence of a model that only this repository's own drawings, sentences and code went into."""

_SPECIAL = re.compile(r"([\\`*_\[\]#|~$])")
_BREAKS = re.compile(r"[\s\x00-\x1f\x7f]+")


class Described(Protocol):
    """Of a model, what the card tells (`emosem.EmoSEM`)."""

    about: Provenance | None

    @property
    def config(self) -> Any: ...
    def parameters(self) -> Any: ...


def escape(value: Any) -> str:
    """A value as one line of Markdown text: no markup, link, table cell or HTML can come of it."""
    if isinstance(value, Markup):
        return value
    text = _BREAKS.sub(" ", value if isinstance(value, str) else json.dumps(value, ensure_ascii=False))
    text = text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    return _SPECIAL.sub(r"\\\1", text)


def model_card(model: Described, scores: Mapping[str, Any] | None = None, method: str = "") -> ModelCard:
    """The card of a model.

    Args:
        model: what is described, by its config and its account of itself.
        scores: content of metrics/score.json, when known.
        method: the model's row in it.
    """
    about = model.about or Provenance()
    rows: Sequence[Mapping[str, Any]] = scores["rows"] if scores else ()
    own = [row for row in rows if row["method"] == method]
    data = ModelCardData(
        language="en",
        license=OPEN if built_in(about) else "other",
        license_name=None if built_in(about) else "terms-of-data-and-backbones",
        library_name="emosem",
        tags=[*TAGS],
        pipeline_tag="image-segmentation",
        model_name=f"EmoSEM {model.config.paradigm}" if own else None,
        eval_results=_results(own[0], scores) if own and scores else None,
    )
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=False,  # noqa: S701 - it is Markdown, which `escape` is for
        finalize=escape,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    body = environment.get_template(TEMPLATE).render(
        about=about,
        config=model.config,
        parameters=f"{sum(p.numel() for p in model.parameters()):,}",
        open=built_in(about),
        scores=scores,
        table=Markup(table([{**row, "method": escape(row["method"])} for row in rows])),  # noqa: S704
        method=method,
        citation=CITATION,
    )
    return ModelCard(f"---\n{data.to_yaml()}\n---\n\n{body}", ignore_metadata_errors=False)


def built_in(about: Provenance) -> bool:
    """Whether only the built-in gallery and the tiny backbones went into a model."""
    drawn = about.dataset is not None and about.dataset.drawn
    tiny = about.sam is not None and about.sam.arch == "tiny"
    return drawn and tiny and about.clip is not None and about.clip.name == "tiny"


def _results(row: Mapping[str, Any], scores: Mapping[str, Any]) -> list[EvalResult]:
    """The model's own scores, as the hub shows them beside a model."""
    return [
        EvalResult(
            task_type="image-segmentation" if "_pr" in column else "image-to-text",
            dataset_type="apolo",
            dataset_name=_BREAKS.sub(" ", f"APOLO protocol on {scores['data']}"),
            dataset_split=scores.get("split"),
            metric_type=column,
            metric_name=heading,
            metric_value=round(row[column], decimals),
        )
        for column, heading, decimals in COLUMNS
        if column in row
    ]
