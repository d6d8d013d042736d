"""True-size backbones on real paintings, end to end on a CPU: random weights in the official files.

VinVL X152-C4 (177 million numbers), SAM ViT-B and CLIP ViT-B/16 are saved the way their authors publish them
and named in a params file; then a person's own commands run. Six minutes of one core: `pytest -m slow`.
"""

import io
import json
import os
import shutil
import subprocess
import sys
import tarfile
from pathlib import Path

import cv2
import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
import yaml

from pipeline.common.emotions import EMOTIONS
from pipeline.common.params import Paths
from pipeline.shards.step import ShardsParams, build_shards
from pipeline.shards.verify import verify_shards
from tests.imports import ROOT

MAX_BOXES = 12
"""Regions per painting; the crops of all boxes of VinVL's own limit would take CLIP an hour here."""

pytestmark = [pytest.mark.slow, pytest.mark.timeout(7200)]


def write_vinvl(folder: Path) -> Path:
    """``vinvl_vg_x152c4.pth`` and its label map, as scene_graph_benchmark's model zoo has them."""
    from pipeline.regions.vinvl.config import VinvlConfig
    from pipeline.regions.vinvl.detector import AttrRCNN

    torch.manual_seed(0)
    state = AttrRCNN(VinvlConfig()).state_dict()
    for name, tensor in state.items():  # as if trained: a random network's activations would overflow
        if name.endswith("running_var"):
            tensor.fill_(1.0)
        elif ".bn3.weight" in name:
            tensor.fill_(0.2)
    assert len(state) == 841
    checkpoint = folder / "vinvl_vg_x152c4.pth"
    torch.save({"model": state, "iteration": 1}, checkpoint)
    labels = {
        "label_to_idx": {"__background__": 0} | {f"thing {i}": i for i in range(1, 1595)},
        "attribute_to_idx": {"__no_attribute__": 0} | {f"kind {i}": i for i in range(1, 525)},
    }
    (folder / "VG-SGG-dicts-vgoi6-clipped.json").write_text(json.dumps(labels))
    return checkpoint


def write_sam(folder: Path) -> Path:
    """``sam_vit_b_01ec64.pth``: a bare state dict."""
    from segment_anything import sam_model_registry

    torch.manual_seed(1)
    model = sam_model_registry["vit_b"]()
    assert sum(parameter.numel() for parameter in model.parameters()) == 93_735_472
    torch.save(model.state_dict(), folder / "sam_vit_b_01ec64.pth")
    return folder / "sam_vit_b_01ec64.pth"


def write_clip(folder: Path) -> Path:
    """``open_clip_model.safetensors`` with its config, as model hubs lay it out."""
    import open_clip
    from open_clip.constants import OPENAI_DATASET_MEAN, OPENAI_DATASET_STD
    from safetensors.torch import save_file

    torch.manual_seed(2)
    model = open_clip.create_model("ViT-B-16-quickgelu")
    folder = folder / "clip"
    folder.mkdir()
    state = {name: tensor.contiguous() for name, tensor in model.state_dict().items()}
    save_file(state, folder / "open_clip_model.safetensors")
    config = {
        "model_cfg": open_clip.get_model_config("ViT-B-16-quickgelu"),
        "preprocess_cfg": {"mean": OPENAI_DATASET_MEAN, "std": OPENAI_DATASET_STD},
    }
    (folder / "open_clip_config.json").write_text(json.dumps(config))
    return folder / "open_clip_model.safetensors"


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory, real_art: Path) -> Paths:
    """Folders of a run of both commands."""
    if shutil.disk_usage(tmp_path_factory.getbasetemp()).free < 4 * 2**30:
        pytest.skip("needs 4 GiB of disk for the weights")
    root = tmp_path_factory.mktemp("true-size")
    paths = Paths(
        artemis=real_art / "artemis" / "artemis_dataset_release_v0.csv",
        wikiart=real_art / "wikiart",
        apolo=real_art / "apolo",
        data=root / "data",
        metrics=root / "metrics",
    )
    sections = {
        "paths": {
            name: str(getattr(paths, name)) for name in ("artemis", "wikiart", "apolo", "data", "metrics")
        },
        "backbones": {
            "vinvl": {"checkpoint": str(write_vinvl(root))},
            "sam": {"arch": "vit_b", "checkpoint": str(write_sam(root))},
            "clip": {"name": "ViT-B-16-quickgelu", "checkpoint": str(write_clip(root))},
            "device": "cpu",
        },
        "utterances": {"num_shards": 1},
        "regions": {"source": "vinvl", "min_detections": 10, "max_detections": MAX_BOXES},
    }
    (root / "params.yaml").write_text(yaml.safe_dump(sections))
    for command in ("build-pseudo-masks", "cache-features"):
        subprocess.run(
            [sys.executable, "cli.py", command, "--params", str(root / "params.yaml")],
            cwd=ROOT,
            env=os.environ | {"HF_HUB_OFFLINE": "1"},
            check=True,
        )
    return paths


def members(paths: Paths, step: str) -> dict[str, bytes]:
    """Name -> bytes of the one shard's tar."""
    with tarfile.open(paths.step(step) / "000000.tar") as tar:
        return {info.name: tar.extractfile(info).read() for info in tar}  # type: ignore[union-attr]


def test_regions_are_inside_their_paintings(built: Paths) -> None:
    works = {
        row["key"]: row for row in pq.read_table(built.step("utterances") / "artworks.parquet").to_pylist()
    }
    rows = pq.read_table(built.step("regions") / "000000.parquet").to_pylist()
    assert len(works) == len(rows) == 7
    for row in rows:
        boxes = np.array(row["boxes"])
        assert 1 <= len(boxes) <= MAX_BOXES and boxes.shape[1] == 4
        assert (boxes >= 0).all()
        assert (boxes[:, [0, 2]] <= works[row["key"]]["width"]).all()
        assert (boxes[:, [1, 3]] <= works[row["key"]]["height"]).all()
        assert row["source"] == "vinvl"
        assert all(label.startswith("thing ") for label in row["labels"])
        assert all(name.startswith("kind ") for names in row["attributes"] for name in names)


def test_a_mask_for_every_painting_and_emotion(built: Paths) -> None:
    said = pq.read_table(built.step("utterances") / "utterances.parquet").to_pylist()
    assert len(said) == 34
    pairs = {(row["key"], row["emotion"]) for row in said if row["emotion"] in EMOTIONS}
    regions = pq.read_table(built.step("regions") / "000000.parquet", columns=["key", "boxes"])
    count = dict(zip(regions["key"].to_pylist(), map(len, regions["boxes"].to_pylist()), strict=True))
    similar = pq.read_table(built.step("similarity") / "000000.parquet").to_pylist()
    assert {(row["key"], row["emotion"]) for row in similar} == pairs
    for row in similar:
        assert len(row["scores"]) == count[row["key"]]
        assert np.abs(row["scores"]).max() <= 1 + 1e-5
    found = members(built, "masks")
    pictures = {tuple(name.split(".")[:2]) for name in found if name.endswith(".png")}
    assert pictures == pairs
    for name, data in found.items():
        if name.endswith(".png"):
            picture = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED)
            assert max(picture.shape) == 256 and picture.dtype == np.uint8 and picture.ndim == 2


def test_features_have_the_published_shapes(built: Paths) -> None:
    found = members(built, "features")
    keys = {name.partition(".")[0] for name in found}
    assert len(keys) == 7
    for key in keys:
        arrays = {name: np.load(io.BytesIO(found[f"{key}.{name}.npy"])) for name in ("sam", "clip")}
        assert (arrays["sam"].shape, arrays["sam"].dtype) == ((256, 64, 64), np.float16)
        assert (arrays["clip"].shape, arrays["clip"].dtype) == ((196, 768), np.float16)
        assert all(np.isfinite(array.astype(np.float32)).all() for array in arrays.values())
        assert max(json.loads(found[f"{key}.json"])["sam"]["input_size"]) == 1024


def test_the_shards_belong_together(built: Paths) -> None:
    metrics = build_shards(built, ShardsParams())
    assert (metrics["kept"], metrics["rejected"]) == (7, 0)
    assert verify_shards(built.step("shards")) == []
