"""scene_graph_benchmark's config files as ours: the published one, overrides, refusals, the real package."""

import dataclasses
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from pipeline.common.errors import UserError
from pipeline.common.params import parse_section
from pipeline.regions.params import RegionsParams
from pipeline.regions.sources.vinvl import detector_config
from pipeline.regions.vinvl.config import VinvlConfig
from pipeline.regions.vinvl.sgb_config import from_sgb

README = ("MODEL.ROI_HEADS.NMS_FILTER 1", "TEST.IGNORE_BOX_REGRESSION True", "TEST.OUTPUT_FEATURE True")
"""The overrides that the original's README gives for feature extraction."""


def published() -> dict[str, Any]:
    """What vinvl_x152c4.yaml says."""
    return {
        "MODEL": {
            "META_ARCHITECTURE": "AttrRCNN",
            "WEIGHT": "pretrained_model/model_0080000.pth",
            "BACKBONE": {"CONV_BODY": "R-152-C4"},
            "RESNETS": {
                "BACKBONE_OUT_CHANNELS": 1024,
                "STRIDE_IN_1X1": False,
                "NUM_GROUPS": 32,
                "WIDTH_PER_GROUP": 8,
            },
            "RPN": {"PRE_NMS_TOP_N_TEST": 6000, "POST_NMS_TOP_N_TEST": 300},
            "ROI_HEADS": {
                "BATCH_SIZE_PER_IMAGE": 384,
                "POSITIVE_FRACTION": 0.5,
                "SCORE_THRESH": 0.2,
                "DETECTIONS_PER_IMG": 100,
                "MIN_DETECTIONS_PER_IMG": 10,
            },
            "ROI_BOX_HEAD": {"NUM_CLASSES": 1595},
            "ROI_ATTRIBUTE_HEAD": {"NUM_ATTRIBUTES": 525, "POSTPROCESS_ATTRIBUTES_THRESHOLD": 0.05},
            "ATTRIBUTE_ON": True,
        },
        "INPUT": {"MIN_SIZE_TEST": 600, "MAX_SIZE_TEST": 1000, "PIXEL_MEAN": [103.530, 116.280, 123.675]},
        "DATASETS": {"LABELMAP_FILE": "visualgenome/map.json", "TRAIN": "('train.yaml',)"},
        "SOLVER": {"BASE_LR": 0.01, "STEPS": "(49000, 65000)"},
        "TEST": {"IMS_PER_BATCH": 1, "SAVE_RESULTS_TO_TSV": True, "TSV_SAVE_SUBSET": ["rect"]},
        "OUTPUT_DIR": "./output",
        "DISTRIBUTED_BACKEND": "gloo",
    }


def write(path: Path, content: dict[str, Any]) -> Path:
    path.write_text(yaml.safe_dump(content))
    return path


def test_the_published_file_with_the_readmes_overrides_is_our_default(tmp_path: Path) -> None:
    path = write(tmp_path / "vinvl_x152c4.yaml", published())
    raw = dataclasses.replace(VinvlConfig(), ignore_box_regression=True)  # its features are of raw proposals
    assert from_sgb(path, README) == raw
    alone = from_sgb(path)  # the file itself leaves these two at the package's defaults
    assert (alone.nms_mode, alone.ignore_box_regression) == (0, False)


def test_an_almost_empty_file_takes_the_packages_defaults(tmp_path: Path) -> None:
    path = write(tmp_path / "r50.yaml", {"MODEL": {"RESNETS": {"STRIDE_IN_1X1": False}}})
    config = from_sgb(path)
    assert config.blocks == (3, 4, 6, 3) and config.groups == 1 and config.width_per_group == 64
    assert config.num_classes == 81 and config.num_attributes == 0 and config.rpn_post_nms == 1000
    assert (config.short_side, config.long_side, config.min_detections) == (800, 1333, 0)


def test_overrides_win_and_texts_are_read_as_python(tmp_path: Path) -> None:
    content = published()
    content["MODEL"]["RPN"]["ANCHOR_SIZES"] = "(24, 48)"
    path = write(tmp_path / "x.yaml", content)
    config = from_sgb(path, ["MODEL.ROI_HEADS.SCORE_THRESH  1e-3", "MODEL.RPN.ASPECT_RATIOS (1.0, 2.0)"])
    assert config.anchor_sizes == (24, 48) and config.anchor_ratios == (1.0, 2.0)
    assert config.score_threshold == 0.001


@pytest.mark.parametrize(
    ("option", "message"),
    [
        ("MODEL.RPN.USE_FPN True", "MODEL.RPN.USE_FPN = True: only False"),
        ("MODEL.CLS_AGNOSTIC_BBOX_REG True", "MODEL.CLS_AGNOSTIC_BBOX_REG = True"),
        ("MODEL.ROI_HEADS.BBOX_REG_WEIGHTS (1., 1., 1., 1.)", "MODEL.ROI_HEADS.BBOX_REG_WEIGHTS"),
        ("MODEL.RPN.MIN_SIZE 4", "MODEL.RPN.MIN_SIZE = 4: only 0"),
        ("TEST.BBOX_AUG.ENABLED True", "TEST.BBOX_AUG.ENABLED"),
        ("INPUT.TO_BGR255 0", "INPUT.TO_BGR255 = 0: only True"),
        ("MODEL.META_ARCHITECTURE SceneParser", "MODEL.META_ARCHITECTURE = 'SceneParser'"),
        ("MODEL.BACKBONE.CONV_BODY R-152-FPN", "only R-50-C4, R-101-C4, R-152-C4"),
        ("MODEL.RESNETS.BACKBONE_OUT_CHANNELS 256", "4 \\* RES2_OUT_CHANNELS = 1024"),
        ("MODEL.RESNETS.STEM_OUT_CHANNELS 256", "no projection"),
        ("MODEL.ROI_HEADS.NMS_FILTR 1", "MODEL.ROI_HEADS.NMS_FILTR = 1: not a key"),
        ("MODEL.ROI_HEADS.NMS_FILTER 3", "nms_mode must be 0, 1 or 2, not 3"),
        ("MODEL.ROI_HEADS.NMS 0", "MODEL.ROI_HEADS.NMS|nms and rpn_nms"),
        ("MODEL.ROI_BOX_HEAD.NUM_CLASSES many", "'many': expected something like 81"),
        ("INPUT.MIN_SIZE_TEST (600, 800)", r"\(600, 800\): expected something like 800"),
        ("MODEL.ROI_HEADS.NMS_FILTER", "not of the form 'KEY VALUE'"),
    ],
)
def test_what_cannot_be_followed_is_refused_by_name(tmp_path: Path, option: str, message: str) -> None:
    path = write(tmp_path / "x.yaml", published())
    with pytest.raises(UserError, match=message):
        from_sgb(path, [option])


def test_every_problem_is_named_at_once(tmp_path: Path) -> None:
    path = write(tmp_path / "x.yaml", published())
    with pytest.raises(UserError) as error:
        from_sgb(path, ["MODEL.MASK_ON True", "DTYPE float16", "MODEL.NONSENSE 1"])
    assert all(name in str(error.value) for name in ("MODEL.MASK_ON", "DTYPE", "MODEL.NONSENSE"))


def test_files_that_are_no_config(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="does not exist"):
        from_sgb(tmp_path / "absent.yaml")
    (tmp_path / "list.yaml").write_text("- 1\n- 2\n")
    with pytest.raises(UserError, match="mapping"):
        from_sgb(tmp_path / "list.yaml")
    (tmp_path / "broken.yaml").write_text("a: [1\n")
    with pytest.raises(UserError, match="cannot be read"):
        from_sgb(tmp_path / "broken.yaml")


def test_an_installed_packages_defaults_hold(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A package with other defaults and a key of its own, as a fork might have."""
    for package, name, values in (
        ("maskrcnn_benchmark", "cfg", {"INPUT": {"MIN_SIZE_TEST": 500}, "MODEL": {"FORK": {"DEPTH": 3}}}),
        ("scene_graph_benchmark", "sg_cfg", {"MODEL": {"ROI_ATTRIBUTE_HEAD": {"ATTR_EMD_DIM": 99}}}),
    ):
        folder = tmp_path / package / "config"
        folder.mkdir(parents=True)
        (tmp_path / package / "__init__.py").touch()
        (folder / "__init__.py").write_text(f"{name} = {values!r}\n")
        for module in (package, f"{package}.config"):
            monkeypatch.delitem(sys.modules, module, raising=False)
    monkeypatch.syspath_prepend(str(tmp_path))
    content = published()
    del content["INPUT"]["MIN_SIZE_TEST"]
    path = write(tmp_path / "x.yaml", content)
    config = from_sgb(path, README)
    assert (config.short_side, config.attribute_hidden) == (500, 99)
    with pytest.raises(UserError, match=r"MODEL\.FORK\.DEPTH = 4"):
        from_sgb(path, ["MODEL.FORK.DEPTH 4"])
    for package in ("maskrcnn_benchmark", "scene_graph_benchmark"):
        for module in (package, f"{package}.config"):
            sys.modules.pop(module, None)


def test_params_may_name_the_file_and_then_it_decides(tmp_path: Path) -> None:
    path = write(tmp_path / "vinvl_x152c4.yaml", published())
    section: dict[str, Any] = {"source": "vinvl", "sgb_config": str(path), "sgb_options": list(README)}
    params = parse_section(section, "regions", RegionsParams, "params.yaml")
    assert detector_config(tmp_path / "vinvl.pth", params) == from_sgb(path, README)
    section["nms_mode"] = 2
    both = parse_section(section, "regions", RegionsParams, "params.yaml")
    with pytest.raises(UserError, match=r"regions\.nms_mode.*MODEL\.ROI_HEADS\.NMS_FILTER 2"):
        detector_config(tmp_path / "vinvl.pth", both)
    with pytest.raises(UserError, match="sgb_options change an sgb_config"):
        parse_section({"sgb_options": list(README)}, "regions", RegionsParams, "params.yaml")


def test_without_the_file_params_decide(tmp_path: Path) -> None:
    config = detector_config(tmp_path / "vinvl.pth", RegionsParams(nms_mode=0, min_detections=3))
    assert (config.nms_mode, config.min_detections, config.blocks) == (0, 3, (3, 8, 36, 3))
