"""What storing features coarsely costs: how far SAM's mask logits move from those of the exact grid.

Pictures are encoded in float32; SAM's own decoder answers the same points and boxes from the exact grid and
from what a reader gets back of each stored form. Nothing here is EmoSEM's: its mask head is the same network.
"""

import math
from collections import defaultdict
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from segment_anything import sam_model_registry
from segment_anything.modeling import Sam
from torch import Tensor

from pipeline.backbones.params import BackbonesParams
from pipeline.backbones.sam import SamEncoder, load_sam_model
from pipeline.common.errors import UserError
from pipeline.common.machine import device_name
from pipeline.common.params import ParamsFile, Paths, load_params
from pipeline.common.progress import Meter
from pipeline.features.encoders import quantise
from pipeline.plan.workload import count
from pipeline.releases import wikiart
from pipeline.releases.picture_folder import PictureFolder
from pipeline.releases.wikiart import BadImage
from pipeline.utterances.params import UtterancesParams

POINTS = 4
"""Points a side; each asks for the mask at its place."""
BOXES = (
    (0.0, 0.0, 0.5, 0.5),
    (0.5, 0.0, 1.0, 0.5),
    (0.0, 0.5, 0.5, 1.0),
    (0.5, 0.5, 1.0, 1.0),
    (0.25, 0.25, 0.75, 0.75),
)
"""xyxy, as shares of the picture."""
SMALLEST = 0.01
"""Share of the picture that a mask must cover for its IoU to count: of a few pixels each one decides."""


def run(params_file: ParamsFile, true_size: bool = False) -> dict[str, Any]:
    """Drift of every stored form over the first pictures of a params file, ``bench.artworks`` of them.

    Args:
        params_file: as every command takes it; only its csv, pictures and SAM are read.
        true_size: a random SAM ViT-B instead; its masks mean nothing, its arithmetic is the real one's.

    Returns:
        ``device``, ``sam``, ``pictures``, ``prompts`` a picture, ``padding_percent`` (share of the grid's
        cells that hold no picture) and ``forms``, see `measure_drift`.

    Raises:
        UserError: no picture, bad params, or weights that are not what they should be.
    """
    from model.bench.factory import BenchParams  # brings in every step, and drift needs none

    paths = load_params(params_file, "paths", Paths)
    backbones = load_params(params_file, "backbones", BackbonesParams)
    wanted = load_params(params_file, "bench", BenchParams).artworks
    images = _pictures(paths, load_params(params_file, "utterances", UtterancesParams), wanted)
    device = backbones.torch_device()
    if true_size:
        torch.manual_seed(0)
        sam = sam_model_registry["vit_b"](checkpoint=None).eval()
    else:
        sam = load_sam_model(backbones.sam.arch, backbones.sam.checkpoint)
    return {
        "device": device_name(device),
        "sam": "vit_b, random" if true_size else backbones.sam.arch,
        **measure_drift(sam, images, device),
    }


def _pictures(paths: Paths, params: UtterancesParams, wanted: int) -> list[np.ndarray]:
    """The first artworks of the csv that can be read, uint8 RGB (H, W, 3)."""
    rows = count(paths, params, sample=wanted).sample
    names = dict.fromkeys((row.art_style, row.painting, row.image) for row in rows)
    pictures = PictureFolder(paths.wikiart)
    images = []
    for name in names:
        try:
            images.append(wikiart.read_image(pictures.find(*name), params.max_pixels))
        except BadImage:
            continue
    if not images:
        raise UserError(f"no artwork of {paths.artemis} has a readable picture in {paths.wikiart}")
    return images


def measure_drift(sam: Sam, images: Sequence[np.ndarray], device: str) -> dict[str, Any]:
    """Drift of every stored form of the grid.

    Args:
        sam: whole model; its encoder's attention is replaced, see `SamEncoder`.
        images: uint8 RGB (H, W, 3).
        device: torch device name.

    Returns:
        ``pictures``, ``prompts``, ``padding_percent``, ``logit_magnitude`` (mean absolute mask logit from the
        exact grid) and ``forms``: by name ``max_logit`` and ``mean_logit`` (absolute differences inside the
        picture), ``flipped_percent`` (share of mask pixels that change sides) and ``iou_percent``,
        ``least_iou_percent``, of the masks with those from the exact grid that cover `SMALLEST` or more.
    """
    sam = sam.to(device)
    exact_encoder = SamEncoder(sam, device)
    bf16_encoder = SamEncoder(sam, device, precision="bf16")
    differences: dict[str, list[Tensor]] = defaultdict(list)
    padding, magnitudes, prompts = 0.0, [], 0
    meter = Meter("bench drift", len(images))
    for image in images:
        size = exact_encoder.input_size(*image.shape[:2])
        exact, bf16 = exact_encoder.encode([image]), bf16_encoder.encode([image])
        cells = [math.ceil(side * exact.shape[-1] / sam.image_encoder.img_size) for side in size]
        padding += 1 - cells[0] * cells[1] / exact.shape[-1] ** 2
        expected = mask_logits(sam, exact, size)
        prompts = len(expected)
        magnitudes.append(float(expected.abs().mean()))
        for form, grid in stored_forms(exact, bf16, (cells[0], cells[1])).items():
            differences[form].append(_compare(mask_logits(sam, grid, size), expected))
        meter.add()
    return {
        "pictures": len(images),
        "prompts": prompts,
        "padding_percent": round(100 * padding / len(images), 2),
        "logit_magnitude": round(float(np.mean(magnitudes)), 4),
        "forms": {form: _summary(torch.cat(found)) for form, found in differences.items()},
    }


def stored_forms(exact: Tensor, bf16: Tensor, cells: tuple[int, int]) -> dict[str, Tensor]:
    """What a reader gets back, by the name of the stored form; float32 (1, C, h, w) each.

    Args:
        exact: the float32 encoder's grid.
        bf16: the grid of the encoder with ``precision: bf16``.
        cells: rows and columns that hold the picture.
    """
    inside = torch.zeros_like(exact[:, :1])
    inside[:, :, : cells[0], : cells[1]] = 1
    outside = 1 - inside
    mean = (exact * outside).sum(dim=(2, 3), keepdim=True) / outside.sum().clamp(min=1)
    return {
        "float16": exact.half().float(),
        "int8": _through_int8(exact),
        "bf16 encoder": bf16,
        "bf16 encoder, float16": bf16.half().float(),
        "bf16 encoder, int8": _through_int8(bf16),
        "float16, padding left out": (exact * inside + mean * outside).half().float(),
    }


def _through_int8(grids: Tensor) -> Tensor:
    codes, scales = quantise(grids)
    return codes * scales[:, :, None, None]


@torch.inference_mode()
def mask_logits(sam: Sam, grid: Tensor, size: tuple[int, int]) -> Tensor:
    """Logits (prompts, h, w) of SAM's single mask for every point and box, cut to the picture.

    Args:
        sam: for its prompt encoder and mask decoder.
        grid: float32 (1, C, h, w).
        size: (height, width) of the picture in the padded square input.
    """
    height, width = size
    steps = (torch.arange(POINTS) + 0.5) / POINTS
    places = torch.cartesian_prod(steps * width, steps * height)[:, None]
    boxes = torch.tensor(BOXES) * torch.tensor([width, height, width, height])
    points = (places.to(grid.device), torch.ones(len(places), 1, device=grid.device))
    kinds: list[dict[str, Any]] = [
        {"points": points, "boxes": None},
        {"points": None, "boxes": boxes.to(grid.device)},
    ]
    found = []
    for kind in kinds:
        sparse, dense = sam.prompt_encoder(**kind, masks=None)
        masks, _ = sam.mask_decoder(
            image_embeddings=grid,
            image_pe=sam.prompt_encoder.get_dense_pe(),
            sparse_prompt_embeddings=sparse,
            dense_prompt_embeddings=dense,
            multimask_output=False,
        )
        found.append(masks[:, 0])
    logits = torch.cat(found)
    scale = logits.shape[-1] / sam.image_encoder.img_size
    return logits[:, : math.ceil(height * scale), : math.ceil(width * scale)]


def _compare(logits: Tensor, expected: Tensor) -> Tensor:
    """(prompts, 4): largest and mean absolute difference, share of pixels that change sides, and IoU.

    IoU is NaN for masks that are too small to tell.
    """
    difference = (logits - expected).abs().flatten(1)
    found, wanted = (logits > 0).flatten(1), (expected > 0).flatten(1)
    iou = (found & wanted).sum(dim=1) / (found | wanted).sum(dim=1)
    iou[wanted.float().mean(dim=1) < SMALLEST] = math.nan
    flipped = (found != wanted).float().mean(dim=1)
    return torch.stack([difference.amax(dim=1), difference.mean(dim=1), flipped, iou], dim=1).cpu()


def _summary(rows: Tensor) -> dict[str, float | None]:
    iou = rows[:, 3][~rows[:, 3].isnan()]
    return {
        "max_logit": round(float(rows[:, 0].max()), 5),
        "mean_logit": round(float(rows[:, 1].mean()), 6),
        "flipped_percent": round(100 * float(rows[:, 2].mean()), 4),
        "iou_percent": round(100 * float(iou.mean()), 3) if len(iou) else None,
        "least_iou_percent": round(100 * float(iou.min()), 2) if len(iou) else None,
    }
