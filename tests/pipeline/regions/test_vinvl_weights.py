"""VinVL's checkpoints and label maps: the original's format round trip, all else refused by name."""

import dataclasses
import json
import os
from pathlib import Path

import numpy as np
import pytest
import torch

from pipeline.common.errors import UserError
from pipeline.regions.params import RegionsParams
from pipeline.regions.sources.vinvl import detector_config
from pipeline.regions.vinvl.checkpoint import LABELMAP, labelmap_of, read_labels
from pipeline.regions.vinvl.config import VinvlConfig
from pipeline.regions.vinvl.detector import load_vinvl
from tests.worlds.detectors import SMALL, detector, pictures


def official(path: Path, state: dict[str, torch.Tensor]) -> Path:
    """As the original's trainer writes it, with its optimizer and scheduler."""
    weight = torch.nn.Parameter(torch.ones(2))
    optimizer = torch.optim.SGD([weight], lr=0.1, momentum=0.9)
    weight.sum().backward()
    optimizer.step()
    scheduler = torch.optim.lr_scheduler.MultiStepLR(optimizer, [3, 5])
    training = {"optimizer": optimizer.state_dict(), "scheduler": scheduler.state_dict(), "iteration": 7}
    torch.save({"model": state} | training, path)
    return path


def test_official_format_round_trip(tmp_path: Path) -> None:
    model = detector()
    labelmap = tmp_path / "map.json"
    tables = {
        "label_to_idx": {name: str(i + 1) for i, name in enumerate("abcde")},  # strings, as some files have
        "attribute_to_idx": {name: i + 1 for i, name in enumerate(("red", "old", "wet", "big"))},
    }
    labelmap.write_text(json.dumps(tables))
    loaded = load_vinvl(official(tmp_path / "vinvl.pth", model.state_dict()), labelmap, SMALL)
    assert loaded.labels == ["__background__", *"abcde"]
    assert loaded.attributes == ["__no_attribute__", "red", "old", "wet", "big"]
    image = pictures((130, 170))[0]
    found, expected = loaded.propose([image], features=True)[0], model.propose([image], features=True)[0]
    np.testing.assert_array_equal(found.boxes, expected.boxes)
    np.testing.assert_array_equal(found.features, expected.features)
    shared = loaded.attribute.feature_extractor is loaded.roi_heads.box.feature_extractor
    assert shared and not loaded.training


def test_saved_weights_find_their_sizes(tmp_path: Path) -> None:
    model = detector()
    model.save(tmp_path / "vinvl")
    loaded = load_vinvl(tmp_path / "vinvl.safetensors")
    assert loaded.config == SMALL and loaded.labels[1:] == model.labels[1:]
    for name, tensor in model.state_dict().items():
        torch.testing.assert_close(loaded.state_dict()[name], tensor, rtol=1e-3, atol=1e-4)


def test_alone_it_refines_boxes_as_the_step_does(tmp_path: Path) -> None:
    """Regions without a word about it are the same from the library and from the step: the box head's."""
    model = detector()
    model.save(tmp_path / "vinvl")
    sizes = json.loads((tmp_path / "vinvl.json").read_text())
    del sizes["config"]["ignore_box_regression"]
    (tmp_path / "vinvl.json").write_text(json.dumps(sizes))
    alone = load_vinvl(tmp_path / "vinvl.safetensors")
    step = detector_config(tmp_path / "vinvl.safetensors", RegionsParams())
    assert alone.config.ignore_box_regression is step.ignore_box_regression is False
    assert VinvlConfig().ignore_box_regression is RegionsParams().ignore_box_regression
    image = pictures((130, 170))[0]
    raw = load_vinvl(
        tmp_path / "vinvl.safetensors", config=dataclasses.replace(SMALL, ignore_box_regression=True)
    )
    refined, proposals = alone.propose([image])[0].boxes, raw.propose([image])[0].boxes
    assert refined.shape != proposals.shape or np.abs(refined - proposals).max() > 1


def test_names_by_suffix_prefix_and_alias(tmp_path: Path) -> None:
    state = detector().state_dict()

    def reload(changed: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        return load_vinvl(official(tmp_path / "x.pth", changed), config=SMALL).state_dict()

    wrapped = {f"module.{name}": tensor for name, tensor in state.items()}
    twice = {f"model.module.{name}": tensor for name, tensor in state.items()}
    suffixes = {name.replace("backbone.body.", ""): tensor for name, tensor in state.items()}
    once = {name: t for name, t in state.items() if not name.startswith("attribute.feature_extractor")}
    other = {name: t for name, t in state.items() if not name.startswith("roi_heads.box.feature_extractor")}
    no_anchors = {name: t for name, t in state.items() if "cell_anchors" not in name}
    for changed in (wrapped, twice, suffixes, once, other, no_anchors):
        for name, tensor in reload(changed).items():
            torch.testing.assert_close(tensor, state[name], rtol=0, atol=0)


def test_of_two_copies_of_layer4_the_attribute_heads_wins(tmp_path: Path) -> None:
    state = dict(detector().state_dict())
    name = "feature_extractor.head.layer4.0.conv1.weight"
    state[f"attribute.{name}"] = state[f"attribute.{name}"] + 1
    loaded = load_vinvl(official(tmp_path / "x.pth", state), config=SMALL).state_dict()
    torch.testing.assert_close(loaded[f"roi_heads.box.{name}"], state[f"attribute.{name}"], rtol=0, atol=0)


def test_a_wrapper_around_some_names_only_is_refused(tmp_path: Path) -> None:
    """The original would strip nothing, find nothing under those names and leave them at random."""
    state = {f"module.{n}" if n.startswith("rpn") else n: t for n, t in detector().state_dict().items()}
    with pytest.raises(UserError, match=r"missing: rpn\..*\n.*left over: module\.rpn"):
        load_vinvl(official(tmp_path / "x.pth", state), config=SMALL)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"rpn.head.conv.bias": None}, "1 missing: rpn.head.conv.bias"),
        ({"optimizer.step": torch.zeros(1)}, "1 left over: optimizer.step"),
        ({"rpn.head.conv.bias": torch.zeros(3)}, r"rpn.head.conv.bias \(3,\) instead of \(64,\)"),
        ({"rpn.anchor_generator.cell_anchors.0": torch.zeros(15, 4)}, "differs from the anchors"),
        (
            {"rpn.head.conv.bias": None, "conv.bias": torch.zeros(64), "bias": torch.zeros(64)},
            "left over: bias",
        ),
    ],
)
def test_anything_else_is_refused(
    tmp_path: Path, change: dict[str, torch.Tensor | None], message: str
) -> None:
    state = {name: t for name, t in (detector().state_dict() | change).items() if t is not None}
    with pytest.raises(UserError, match=message):
        load_vinvl(official(tmp_path / "x.pth", state), config=SMALL)


class Payload:
    def __reduce__(self) -> tuple[object, tuple[str]]:
        return (os.mkdir, ("unpickled",))


def test_files_that_are_no_weights(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match="no detector checkpoint"):
        load_vinvl("absent.pth", config=SMALL)
    torch.save({"model": {}, "scheduler": Payload()}, "evil.pth")
    with pytest.raises(UserError, match=r"it holds a \w+\.mkdir.*save its weights alone"):
        load_vinvl("evil.pth", config=SMALL)
    assert not Path("unpickled").exists()
    for name in ("noise.pth", "noise.safetensors"):
        Path(name).write_bytes(b"not weights at all")
        with pytest.raises(UserError, match="noise"):
            load_vinvl(name, config=SMALL)
    Path("labels.json").write_text(json.dumps({"label_to_idx": {"a": 1, "b": 3}}))
    official(Path("fine.pth"), detector().state_dict())
    with pytest.raises(UserError, match="must number 1 to 5"):
        load_vinvl("fine.pth", "labels.json", SMALL)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"idx_to_label": {"1": "a"}}, "must hold label_to_idx"),
        ({"label_to_idx": ["a", "b"]}, "must hold label_to_idx"),
        ({"label_to_idx": {"a": "one", "b": 2}}, "must hold label_to_idx"),
        ({"label_to_idx": {"a": 1, "b": None}}, "must hold label_to_idx"),
        ({"label_to_idx": {"a": 1, "b": 1}}, "each once"),
        ({"label_to_idx": {"a": 1, "b": 2, "c": "2"}}, "3 entries up to 2"),
        ({"label_to_idx": {"a": 1, "b": 2, "c": 3}}, "entries up to 3"),
    ],
)
def test_label_maps_that_do_not_fit(tmp_path: Path, content: dict[str, object], message: str) -> None:
    (tmp_path / "map.json").write_text(json.dumps(content))
    with pytest.raises(UserError, match=message):
        read_labels(tmp_path / "map.json", "label_to_idx", 3)


def test_label_map_quirks(tmp_path: Path) -> None:
    """Numbers as texts, in any order, the background named or not, inverse tables beside, accents."""
    labels: dict[str, int | str] = {"b": "2", "été": 1}
    tables = {"label_to_idx": labels, "idx_to_label": {"1": "été"}, "predicate_to_idx": {}}
    (tmp_path / LABELMAP).write_text(json.dumps(tables))
    assert read_labels(tmp_path / LABELMAP, "label_to_idx", 3) == ["__background__", "été", "b"]
    labels["__background__"] = 0
    (tmp_path / "x.json").write_text(json.dumps(tables))
    assert read_labels(tmp_path / "x.json", "label_to_idx", 3) == ["__background__", "été", "b"]
    assert labelmap_of(tmp_path / "x.pth") == tmp_path / "x.json"
    (tmp_path / "x.json").write_text(json.dumps({"config": {}}))  # sizes only
    assert labelmap_of(tmp_path / "x.pth") == tmp_path / LABELMAP
    assert labelmap_of(tmp_path / "elsewhere" / "x.pth") is None


def test_mode_2_with_box_regression_warns(tmp_path: Path) -> None:
    path = official(tmp_path / "x.pth", detector().state_dict())
    with pytest.warns(UserWarning, match="boxes of other proposals"):
        load_vinvl(path, config=dataclasses.replace(SMALL, nms_mode=2))
