"""What judges explanations without a reference, where it is there: the emotion classifier, and a CLIP.

Both need torch, which whoever only scores does without: what is lacking is one line, and no failure.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from pipeline.backbones.params import BackbonesParams, ClipParams
from pipeline.common.errors import UserError
from pipeline.common.params import Paths
from pipeline.releases.apolo import ApoloItem
from pipeline.releases.names import plain_name

if TYPE_CHECKING:
    from model.alignment.networks import EmotionClassifier
    from model.score.clipscore_images import PictureJudge

PICTURES = (".jpg", ".jpeg", ".png")


@dataclass(frozen=True)
class Judges:
    """What there is of both, and a line for what is not."""

    classifier: "EmotionClassifier | None"
    pictures: "PictureJudge | None"
    absent: list[str]
    used: list[str]
    """A line for what there is: scores of others are on other scales."""


def open_judges(
    paths: Paths, clip: ClipParams | None, backbones: BackbonesParams, pictures: Mapping[str, Path]
) -> Judges:
    """The classifier in ``data/alignment`` and a CLIP with its pictures, as far as they can be used.

    Args:
        paths: of the params.
        clip: the CLIP of CLIPScore; None for that of `backbones`.
        backbones: the CLIP, and the device.
        pictures: picture file of each key.
    """
    absent, used = [], []
    classifier = seen = None
    try:
        classifier = _classifier(paths.step("alignment"), backbones)
        used.append(f"EA: the classifier in {paths.step('alignment')}")
    except UserError as error:
        absent.append(f"EA is absent: {error}")
    try:
        eye = clip or backbones.clip
        seen = _pictures(eye, backbones, pictures)
        used.append(f"CLIPScore: CLIP {eye.name}, {eye.checkpoint}; {len(pictures)} pictures found")
    except UserError as error:
        absent.append(f"CLIPScore is absent: {error}")
    return Judges(classifier, seen, absent, used)


def _classifier(folder: Path, backbones: BackbonesParams) -> "EmotionClassifier":
    if not (folder / "config.json").is_file():
        raise UserError(f"{folder} holds no emotion classifier; the alignment step makes one")
    _need_torch()
    from model.alignment.networks import EmotionClassifier

    return EmotionClassifier.load(folder, backbones.torch_device())


def _pictures(clip: ClipParams, backbones: BackbonesParams, pictures: Mapping[str, Path]) -> "PictureJudge":
    if not clip.checkpoint.exists():
        raise UserError(f"there is no CLIP at {clip.checkpoint}; name one as score.clip in a params file")
    if not pictures:
        raise UserError("no picture of an item is found in paths.wikiart, ART_STYLE/PAINTING.jpg")
    _need_torch()
    from model.score.clipscore_images import PictureJudge
    from pipeline.backbones.clip import load_clip

    return PictureJudge(load_clip(clip.name, clip.checkpoint, backbones.torch_device()), pictures)


def _need_torch() -> None:
    try:
        import torch  # noqa: F401
    except ImportError as error:
        raise UserError(f"PyTorch cannot be imported ({error}); pip install 'emosem[all]'") from None


def find_pictures(wikiart: Path, items: Sequence[ApoloItem]) -> dict[str, Path]:
    """Key of an item -> its picture, ``ART_STYLE/PAINTING.jpg`` below `wikiart`, in any spelling.

    A painting that lies under several art styles is found where its item names the style, else not at all.
    """
    files: dict[str, list[Path]] = {}
    wanted = {plain_name(item.painting) for item in items}
    for path in sorted(wikiart.glob("*/*")) if wikiart.is_dir() else ():
        if path.suffix.lower() in PICTURES and plain_name(path.stem) in wanted:
            files.setdefault(plain_name(path.stem), []).append(path)
    found = {}
    for item in items:
        near = files.get(plain_name(item.painting), [])
        if item.art_style:
            near = [path for path in near if plain_name(path.parent.name) == plain_name(item.art_style)]
        if len(near) == 1:
            found[item.key] = near[0]
    return found
