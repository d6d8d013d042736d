"""The model card: README.md of a saved model, for people and for the Hugging Face hub.

Words from data (a dataset's name, its licence, params) are escaped: they stay words in Markdown and YAML.
"""

import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from huggingface_hub import EvalResult, ModelCard, ModelCardData
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from model.emosem.config import EmoSEMConfig
from model.emosem.provenance import Provenance

TEMPLATE = "model_card_template.md"
CITATION = "Zhang, Li, Guo, Wang: EmoSEM: Segment and Explain Emotion Stimuli in Visual Art"
TAGS = ("art", "emotion", "image-segmentation", "image-to-text", "emosem")
FOLDER = "FOLDER_OF_THIS_MODEL"
"""Stands for it in the lines that use the model."""
OPEN = "apache-2.0"
"""Licence of a model that only this repository's own drawings, sentences and code went into."""

_SPECIAL = re.compile(r"([\\`*_\[\]#|~$])")
_BREAKS = re.compile(r"[\s\x00-\x1f\x7f]+")


@dataclass(frozen=True)
class CardScores:
    """How a model scored, beside others."""

    method: str
    """The model's row in `table`; "" where it has none."""
    data: str
    """What was scored on."""
    split: str
    backbones: str
    table: str
    """All rows, in Markdown; words from data in it are escaped already."""
    results: tuple[EvalResult, ...] = ()
    """The model's own numbers, as the hub shows them beside a model."""


def escape(value: Any) -> str:
    """A value as one line of Markdown text: no markup, link, table cell or HTML can come of it."""
    if isinstance(value, Markup):
        return value
    text = one_line(value if isinstance(value, str) else json.dumps(value, ensure_ascii=False))
    text = text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    return _SPECIAL.sub(r"\\\1", text)


def one_line(text: str) -> str:
    """A text with every run of white space and control characters as one space."""
    return _BREAKS.sub(" ", text)


def model_card(
    config: EmoSEMConfig,
    provenance: Provenance | None,
    parameters: int,
    scores: CardScores | None = None,
    name: str = FOLDER,
) -> ModelCard:
    """The card of a model.

    Args:
        config: what it is made of.
        provenance: what it was trained on, when known.
        parameters: how many it has.
        scores: how well it does, when known.
        name: what the model is called in the lines that use it: OWNER/NAME on the hub.
    """
    provenance = provenance or Provenance()
    data = ModelCardData(
        language="en",
        license=OPEN if built_in(provenance) else "other",
        license_name=None if built_in(provenance) else "terms-of-data-and-backbones",
        library_name="emosem",
        tags=[*TAGS],
        pipeline_tag="image-segmentation",
        model_name=f"EmoSEM {config.paradigm}" if scores and scores.results else None,
        eval_results=[*scores.results] if scores and scores.results else None,
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
        provenance=provenance,
        config=config,
        name=Markup(name),  # noqa: S704 - of letters, digits and -_./ alone
        parameters=f"{parameters:,}",
        open=built_in(provenance),
        scores=scores,
        table=Markup(scores.table) if scores else "",  # noqa: S704 - escaped by who made it
        citation=CITATION,
    )
    return ModelCard(f"---\n{data.to_yaml()}\n---\n\n{body}", ignore_metadata_errors=False)


def built_in(provenance: Provenance) -> bool:
    """Whether only the built-in gallery and the tiny backbones went into a model."""
    drawn = provenance.dataset is not None and provenance.dataset.drawn
    tiny = provenance.sam is not None and provenance.sam.arch == "tiny"
    return drawn and tiny and provenance.clip is not None and provenance.clip.name == "tiny"
