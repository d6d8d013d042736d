"""What step `score` reads, read once: APOLO's items, every method's predictions, what judges explanations.

Only the judges need torch, whose import takes seconds: what does not can begin before they are loaded.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import pyarrow as pa

from model.baselines import clip_vinvl, entire_artwork
from model.baselines.rows import read_rows
from model.maps.method import Method, scaled_maps
from model.maps.predictions import read_predictions
from model.score.items import find_items, read_tables
from model.score.params import ScoreParams
from pipeline.backbones.params import BackbonesParams
from pipeline.backbones.weight_hashes import verify_weights
from pipeline.common.errors import UserError
from pipeline.common.params import Paths
from pipeline.releases.apolo import ApoloItem

if TYPE_CHECKING:
    from model.alignment.networks import EmotionClassifier
    from model.score.clipscore_images import PictureJudge


@dataclass(frozen=True)
class ScoreInputs:
    """What is judged. Maps and labels stay in their files until they are scored."""

    items: list[ApoloItem]
    """Of the split that is scored, in the order of apolo.json."""
    val: list[ApoloItem]
    """APOLO's val items, which choose each method's threshold."""
    notes: list[str]
    """Why other records of apolo.json are no items."""
    methods: list[Method]
    """In the order of the score table."""
    styles: Mapping[str, str]
    """Art style of each artwork, by key."""
    pictures: Mapping[str, Path]
    """Picture file of each artwork, by key."""
    apolo: Path
    """The release that the items are of."""


@dataclass(frozen=True)
class Judges:
    """The networks that judge explanations."""

    classifier: "EmotionClassifier"
    """Reads the emotion in an explanation."""
    pictures: "PictureJudge"
    """Scores an explanation against its picture."""


def read_inputs(paths: Paths, params: ScoreParams) -> ScoreInputs:
    """Read what the earlier steps wrote. Raises `UserError` when files are absent or hold no usable item."""
    utterances, artworks = read_tables(paths)
    items, every, notes = find_items(paths.apolo, params.split, utterances, artworks)
    return ScoreInputs(
        items=items,
        val=[item for item in every if item.split == "val"],
        notes=notes,
        methods=find_methods(paths, every, params),
        styles=_by_key(artworks, "art_style"),
        pictures={key: paths.wikiart / path for key, path in _by_key(artworks, "path").items()},
        apolo=paths.apolo,
    )


def check_judges(paths: Paths, params: ScoreParams, backbones: BackbonesParams) -> None:
    """Raise the `UserError` of `load_judges` where a judge is absent, before torch is imported."""
    classifier = paths.step("alignment") / "model.safetensors"
    if not classifier.is_file():
        raise UserError(f"{classifier} does not exist; run the alignment step")
    verify_weights((params.clip or backbones.clip).checkpoint)


def load_judges(
    paths: Paths, params: ScoreParams, backbones: BackbonesParams, pictures: Mapping[str, Path]
) -> Judges:
    """The emotion classifier, and CLIPScore's CLIP with these pictures. Raises `UserError`."""
    from model.alignment.networks import EmotionClassifier
    from model.score.clipscore_images import PictureJudge
    from pipeline.backbones.clip import load_clip

    device, clip = backbones.torch_device(), params.clip or backbones.clip
    classifier = EmotionClassifier.load(paths.step("alignment"), device)
    return Judges(classifier, PictureJudge(load_clip(clip.name, clip.checkpoint, device), pictures))


def find_methods(paths: Paths, items: Sequence[ApoloItem], params: ScoreParams) -> list[Method]:
    """The baselines, then the predicted methods, then their controls (``method:control``)."""
    predicted: dict[str, Method] = {}
    folders = sorted(path.parent for path in paths.step("predict").glob("*/predictions.parquet"))
    for folder in folders:
        for method in read_predictions(folder, params.scaling):
            if method.name in predicted:
                raise UserError(f"{folder} predicts {method.name}, and so does another folder beside it")
            predicted[method.name] = method
    teacher = clip_vinvl.PseudoMasks(paths, (item.key for item in items))
    others = read_rows(paths, params.scaling)
    return [
        Method(entire_artwork.NAME, entire_artwork.foreground, finished=True),
        *(method for method in others if method.finished),
        Method(clip_vinvl.NAME, scaled_maps(teacher, params.scaling)),
        *(method for method in others if not method.finished),
        *sorted(predicted.values(), key=lambda method: (":" in method.name, method.name)),
    ]


def _by_key(artworks: pa.Table, column: str) -> dict[str, str]:
    return dict(zip(artworks["key"].to_pylist(), artworks[column].to_pylist(), strict=True))
