"""SAM's image encoder against `segment_anything`'s own predictor: the same random weights and pictures."""

import copy

import numpy as np
import torch
from segment_anything import SamPredictor, sam_model_registry
from segment_anything.modeling import Sam

from model.bench.peers.pair import Job, Pair, close
from model.bench.peers.pictures import TINY, picture
from model.bench.score import SIZES
from pipeline.backbones.sam import SamConfig, SamEncoder, build_sam

SMALL = SamConfig(
    img_size=64, embed_dim=32, depth=2, num_heads=2, window_size=3, global_attn_indexes=(1,), out_chans=16
)
TOLERANCE = 1e-4


def prepare(job: Job) -> Pair:
    """One picture on a processor; four on a GPU, which we take at once and the predictor one by one."""
    count = 1 if job.device == "cpu" else 4
    rng = np.random.default_rng(0)
    sizes = TINY if job.tiny else SIZES
    images = [picture(rng, *sizes[number]) for number in range(1, 1 + count)]
    sam = random_sam(job.tiny)
    encoder = SamEncoder(copy.deepcopy(sam), job.device)  # which replaces its attention
    predictor = SamPredictor(sam.to(job.device))

    def ours() -> torch.Tensor:
        return encoder.encode(images).cpu()

    def theirs() -> torch.Tensor:
        grids = []
        for image in images:
            predictor.set_image(image)
            grids.append(predictor.get_image_embedding())
        return torch.cat(grids).cpu()

    return Pair(
        f"{count} picture(s) of {images[0].shape[1]} x {images[0].shape[0]} pixels to grids",
        "pictures",
        count,
        ours,
        theirs,
        lambda: close(ours(), theirs(), TOLERANCE, "grids"),
    )


def random_sam(tiny: bool) -> Sam:
    """ViT-B, or a toy; what the builder leaves at zero is random too, such as relative positions."""
    torch.manual_seed(0)
    sam = build_sam(SMALL) if tiny else sam_model_registry["vit_b"](checkpoint=None)
    with torch.no_grad():
        for parameter in sam.image_encoder.parameters():
            if not parameter.any():
                parameter.normal_(std=0.02)
    return sam.eval()
