"""How loaded encoders turn pictures into their input, in numbers that a saved model notes and compares."""

from open_clip.constants import IMAGENET_MEAN, IMAGENET_STD
from torch import Tensor, tensor

from model.emosem.provenance import ClipProvenance, Preprocessing, SamProvenance
from pipeline.backbones.clip import Clip
from pipeline.common.errors import UserError

SAM_RESIZE = "long side to the size, Pillow's bilinear; normalised, then zeros to the right and below"
CLIP_RESIZE = "both sides to the size, bicubic with antialiasing, aspect not kept; normalised"


def of_sam(size: int, mean: Tensor, std: Tensor) -> Preprocessing:
    """Of a SAM with this side of its input, pixels, and `pixel_mean` and `pixel_std`."""
    return Preprocessing(size, SAM_RESIZE, _three(mean), _three(std))


def of_clip(clip: Clip, normalisation: str) -> Preprocessing:
    """Of a CLIP whose pixels are normalised by its own numbers ("clip") or by ImageNet's ("imagenet")."""
    mean, std = clip.mean, clip.std
    if normalisation == "imagenet":
        mean, std = tensor(IMAGENET_MEAN), tensor(IMAGENET_STD)
    return Preprocessing(clip.size, CLIP_RESIZE, _three(mean), _three(std))


def check(noted: SamProvenance | ClipProvenance, title: str, here: Preprocessing) -> None:
    """Raise `UserError` where a loaded encoder does not take pictures as the one of the training did."""
    if noted.preprocessing not in (None, here):
        raise UserError(
            f"{title} takes pictures otherwise here than when the model was trained: {here}, and the model "
            f"notes {noted.preprocessing}"
        )


def _three(values: Tensor) -> tuple[float, float, float]:
    red, green, blue = values.flatten().tolist()
    return red, green, blue
