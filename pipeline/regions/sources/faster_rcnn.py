"""torchvision's Faster R-CNN as a source of regions, from a local COCO checkpoint.

Ren et al., "Faster R-CNN", NIPS 2015, with a feature pyramid; network and post-processing are torchvision's
own. The weights of its first version need batch norm without eps, as torchvision sets it for them.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn
from torchvision.models import detection
from torchvision.models.detection.backbone_utils import resnet_fpn_backbone
from torchvision.ops import FrozenBatchNorm2d

from pipeline.backbones.params import BackbonesParams, FasterRcnnParams
from pipeline.backbones.weight_hashes import verify_weights
from pipeline.common.code import code_fingerprint
from pipeline.common.errors import UserError
from pipeline.common.fingerprint import fingerprint
from pipeline.common.params import Paths
from pipeline.regions.region_row import Found, strongest
from pipeline.regions.sources import detect
from pipeline.regions.sources.source import Answers, Artwork, RegionSource
from pipeline.regions.vinvl import checkpoint

if TYPE_CHECKING:
    from pipeline.regions.params import RegionsParams

FLOOR = 0.05
"""Weaker detections do not count as proposals for min_detections: torchvision's own threshold."""
LONGEST = 1000
"""Characters of torch's list of misfits that are shown."""
OFFICIAL = {
    "fasterrcnn_resnet50_fpn": detection.FasterRCNN_ResNet50_FPN_Weights.COCO_V1,
    "fasterrcnn_resnet50_fpn_v2": detection.FasterRCNN_ResNet50_FPN_V2_Weights.COCO_V1,
}


def build_network(name: str, **settings: Any) -> nn.Module:
    """The network that official weights fit, at random.

    settings: of `torchvision.models.detection.FasterRCNN`, e.g. box_score_thresh.
    """
    classes = len(OFFICIAL[name].meta["categories"])
    if name == "fasterrcnn_resnet50_fpn_v2":
        network: nn.Module = detection.fasterrcnn_resnet50_fpn_v2(
            weights=None, weights_backbone=None, num_classes=classes, **settings
        )
        return network
    # torchvision's builder gives frozen batch norm only to networks whose weights it downloads itself
    backbone = resnet_fpn_backbone(
        backbone_name="resnet50", weights=None, norm_layer=FrozenBatchNorm2d, trainable_layers=3
    )
    network = detection.FasterRCNN(backbone, num_classes=classes, **settings)
    for module in network.modules():
        if isinstance(module, FrozenBatchNorm2d):
            module.eps = 0.0
    return network


def load_faster_rcnn(params: FasterRcnnParams, device: str, **settings: Any) -> nn.Module:
    """The network with a checkpoint's weights, in eval mode. Raises `UserError` when they do not fit."""
    state = checkpoint.read_state(params.checkpoint)
    network = build_network(params.name, **settings)
    try:
        network.load_state_dict(state, strict=True)
    except RuntimeError as error:
        raise UserError(
            f"{params.checkpoint} does not fit {params.name}; its official file is "
            f"{OFFICIAL[params.name].url.rsplit('/', 1)[-1]}: {str(error)[:LONGEST]}"
        ) from None
    return network.requires_grad_(False).eval().to(device)


def regions(
    works: Sequence[Artwork], paths: Paths, params: RegionsParams, backbones: BackbonesParams
) -> Answers:
    """Yield every artwork with its strongest detections; see `source.RegionSource`.

    They are chosen by score_threshold, min_detections and max_detections among all above `FLOOR`, over
    all classes. A batch is padded as torchvision does, which moves boxes near its edges a little.
    """
    device = backbones.torch_device()
    floor, most = min(FLOOR, params.score_threshold), max(100, params.max_detections)
    network = _load(backbones.faster_rcnn, device, floor, most)
    names = OFFICIAL[backbones.faster_rcnn.name].meta["categories"]

    @torch.inference_mode()
    def propose(images: list[np.ndarray]) -> list[Found]:
        tensors = [torch.from_numpy(image).to(device).permute(2, 0, 1) / 255 for image in images]
        return [_select(answer, names, params) for answer in network(tensors)]

    yield from detect.detect(paths.wikiart, works, params.batch, propose)


def _select(answer: dict[str, Tensor], names: Sequence[str], params: RegionsParams) -> Found:
    """The strongest of one picture's detections."""
    boxes, scores, classes = (answer[name].float().cpu().numpy() for name in ("boxes", "scores", "labels"))
    index = strongest(scores, params.score_threshold, params.min_detections, params.max_detections)
    labels = [names[int(classes[i])] for i in index]
    return Found(boxes[index], scores[index], labels, None, weak=len(boxes) - len(index))


@functools.lru_cache(maxsize=1)
def _load(params: FasterRcnnParams, device: str, floor: float, most: int) -> nn.Module:
    """Kept, so that a worker loads it once."""
    return load_faster_rcnn(params, device, box_score_thresh=floor, box_detections_per_img=most)


def identity(_paths: Paths, params: RegionsParams, backbones: BackbonesParams) -> str:
    """Weights, settings that choose among detections, code."""
    chosen = backbones.faster_rcnn
    settings = [params.score_threshold, params.min_detections, params.max_detections, params.batch]
    code = code_fingerprint(__name__)
    return fingerprint("faster_rcnn", chosen.name, verify_weights(chosen.checkpoint), settings, code)


SOURCE = RegionSource(regions, identity, detects=True)
