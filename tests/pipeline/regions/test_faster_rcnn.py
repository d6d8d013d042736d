"""torchvision's Faster R-CNN as a source of regions, against torchvision's own forward pass."""

import re
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image
from torch import nn
from torchvision.models import detection, resnet50
from torchvision.models.detection._utils import overwrite_eps
from torchvision.models.detection.backbone_utils import _resnet_fpn_extractor
from torchvision.ops import FrozenBatchNorm2d

from pipeline.backbones.params import BackbonesParams, FasterRcnnParams
from pipeline.common.errors import UserError
from pipeline.common.files import write_parquet
from pipeline.common.params import Paths
from pipeline.common.schema import ARTWORKS, artwork_key
from pipeline.parallel.map_shards import ParallelParams
from pipeline.regions.params import RegionsParams
from pipeline.regions.region_row import clip_boxes
from pipeline.regions.sources import faster_rcnn
from pipeline.regions.step import build_regions
from pipeline.releases.wikiart import read_image
from tests.worlds.indexed_shards import paths_in

SIZES = [(60, 90), (80, 50), (64, 64)]


def official(name: str) -> nn.Module:
    """The network as torchvision builds it for its COCO weights, with random ones that find something."""
    torch.manual_seed(0)
    if name == "fasterrcnn_resnet50_fpn":
        backbone = _resnet_fpn_extractor(resnet50(weights=None, norm_layer=FrozenBatchNorm2d), 3)
        network = detection.FasterRCNN(backbone, num_classes=91)
        overwrite_eps(network, 0.0)
    else:
        network = detection.fasterrcnn_resnet50_fpn_v2(weights=None, weights_backbone=None)
    with torch.no_grad():
        network.roi_heads.box_predictor.cls_score.weight.mul_(30)  # else all 91 classes are equally likely
        for module in network.modules():
            if isinstance(module, FrozenBatchNorm2d | nn.BatchNorm2d):
                module.running_var.uniform_(1e-6, 1e-4)  # small, so that eps matters
                module.weight.copy_(module.running_var.sqrt())
                module.running_mean.normal_(0, 0.1)
    return network.eval()


@pytest.fixture(scope="module", params=sorted(faster_rcnn.OFFICIAL))
def trained(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """(params, the network whose weights they name)."""
    network = official(request.param)
    path = tmp_path_factory.mktemp("weights") / "official.pth"
    torch.save(network.state_dict(), path)
    return FasterRcnnParams(name=request.param, checkpoint=path), network


def world(root: Path) -> Paths:
    """Three pictures, and a fourth that is gone."""
    paths = paths_in(root)
    rng = np.random.default_rng(0)
    rows = []
    for number, (height, width) in enumerate([*SIZES, (40, 40)]):
        path = paths.wikiart / "Drawn" / f"p{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        coarse = Image.fromarray(rng.integers(0, 256, (5, 5, 3), dtype=np.uint8))
        if number < len(SIZES):
            coarse.resize((width, height), Image.Resampling.BICUBIC).save(path)
        rows.append(
            {
                "key": artwork_key("Drawn", f"p{number}"),
                "art_style": "Drawn",
                "painting": f"p{number}",
                "path": f"Drawn/p{number}.png",
                "width": width,
                "height": height,
                "split": "train",
                "shard": 0,
            }
        )
    table = pa.Table.from_pylist(rows, schema=ARTWORKS)
    write_parquet(paths.step("utterances") / "artworks.parquet", table)
    return paths


def small(network: nn.Module) -> nn.Module:
    """A tenth of the usual side and of the proposals: a test need not wait for 800 pixels."""
    network.transform.min_size, network.transform.max_size = (96,), 160
    network.rpn._post_nms_top_n["testing"] = 100
    return network


def test_rows_are_what_torchvision_finds(
    trained: tuple[FasterRcnnParams, nn.Module], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    chosen, network = trained
    small(network)
    load = faster_rcnn.load_faster_rcnn
    monkeypatch.setattr(faster_rcnn, "load_faster_rcnn", lambda *args, **more: small(load(*args, **more)))
    faster_rcnn._load.cache_clear()
    paths = world(tmp_path)
    backbones = BackbonesParams(faster_rcnn=chosen, device="cpu")
    params = RegionsParams(source="faster_rcnn", min_detections=4, max_detections=7, score_threshold=0.9)
    counts = build_regions(paths, params, backbones, ParallelParams())
    faster_rcnn._load.cache_clear()
    assert (counts["kept"], counts["reasons"]) == (3, {"missing": 1})
    stored = pq.read_table(paths.step("regions") / "000000.parquet").to_pylist()
    rows = {row["key"]: row for row in stored}
    categories = detection.FasterRCNN_ResNet50_FPN_Weights.COCO_V1.meta["categories"]
    for number in range(len(SIZES)):
        image = read_image(paths.wikiart / f"Drawn/p{number}.png")
        tensor = torch.from_numpy(image).permute(2, 0, 1).float() / 255
        with torch.inference_mode():
            (expected,) = network([tensor])
        assert len(expected["boxes"]) >= 7, "the random network must find enough to choose from"
        count = min(max(int((expected["scores"] >= 0.9).sum()), 4), 7)
        boxes = expected["boxes"][:count].numpy()
        _, keep = clip_boxes(boxes, *image.shape[:2])  # torchvision leaves slivers that hold no pixel
        row = rows[artwork_key("Drawn", f"p{number}")]
        np.testing.assert_allclose(row["boxes"], boxes[keep], atol=1e-3)
        np.testing.assert_allclose(row["scores"], expected["scores"][:count][keep], atol=1e-5)
        assert row["labels"] == [categories[i] for i in expected["labels"][:count][keep]]
        assert (row["attributes"], row["source"]) == (None, "faster_rcnn")


def test_weights_must_fit_to_the_last_name(
    trained: tuple[FasterRcnnParams, nn.Module], tmp_path: Path
) -> None:
    chosen, network = trained
    other = next(name for name in faster_rcnn.OFFICIAL if name != chosen.name)
    with pytest.raises(UserError, match=rf"does not fit {other}; its official file is {other}_coco-"):
        faster_rcnn.load_faster_rcnn(FasterRcnnParams(name=other, checkpoint=chosen.checkpoint), "cpu")
    state = dict(network.state_dict())
    state.pop("rpn.head.bbox_pred.bias")
    torch.save(state, tmp_path / "short.pth")
    with pytest.raises(UserError, match=r"rpn\.head\.bbox_pred\.bias"):
        faster_rcnn.load_faster_rcnn(
            FasterRcnnParams(name=chosen.name, checkpoint=tmp_path / "short.pth"), "cpu"
        )


def test_the_names_of_the_official_file(tmp_path: Path) -> None:
    """It is older than some of torchvision's names, which torchvision itself translates."""
    state = official("fasterrcnn_resnet50_fpn").state_dict()
    old = {
        re.sub(r"(fpn\.\w+_blocks\.\d)\.0\.", r"\1.", name).replace(
            "rpn.head.conv.0.0.", "rpn.head.conv."
        ): value
        for name, value in state.items()
    }
    assert len(old) == len(state) and len(set(old) - set(state)) == 18
    path = tmp_path / "old.pth"
    torch.save(old, path)
    network = faster_rcnn.load_faster_rcnn(FasterRcnnParams(checkpoint=path), "cpu")
    assert all(torch.equal(value, state[name]) for name, value in network.state_dict().items())


def test_missing_weights_are_named(tmp_path: Path) -> None:
    backbones = BackbonesParams(faster_rcnn=FasterRcnnParams(checkpoint=tmp_path / "none.pth"), device="cpu")
    with pytest.raises(UserError, match=r"none\.pth do not exist"):
        build_regions(world(tmp_path), RegionsParams(source="faster_rcnn"), backbones, ParallelParams())
