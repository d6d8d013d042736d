"""A config file of microsoft/scene_graph_benchmark as our detector's config.

Its defaults lie in Python (`maskrcnn_benchmark.config`, `scene_graph_benchmark.config`). Where those packages
can be imported their defaults hold; otherwise the published ones below, for the keys that shape a C4
detector's answer. Every key of the file is honoured, without effect on one picture's answer, or refused by
name: a setting that would change the answer and cannot be followed never passes in silence.
"""

from __future__ import annotations

import ast
import importlib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from pipeline.common.errors import UserError
from pipeline.common.plain_yaml import read_yaml
from pipeline.regions.vinvl.config import VinvlConfig

FIELDS: dict[str, tuple[str, Any]] = {
    "MODEL.RESNETS.STEM_OUT_CHANNELS": ("stem_channels", 64),
    "MODEL.RESNETS.NUM_GROUPS": ("groups", 1),
    "MODEL.RESNETS.WIDTH_PER_GROUP": ("width_per_group", 64),
    "MODEL.RESNETS.RES2_OUT_CHANNELS": ("stage_channels", 256),
    "MODEL.RPN.ANCHOR_SIZES": ("anchor_sizes", (32, 64, 128, 256, 512)),
    "MODEL.RPN.ASPECT_RATIOS": ("anchor_ratios", (0.5, 1.0, 2.0)),
    "MODEL.RPN.PRE_NMS_TOP_N_TEST": ("rpn_pre_nms", 6000),
    "MODEL.RPN.POST_NMS_TOP_N_TEST": ("rpn_post_nms", 1000),
    "MODEL.RPN.NMS_THRESH": ("rpn_nms", 0.7),
    "MODEL.ROI_HEADS.SCORE_THRESH": ("score_threshold", 0.05),
    "MODEL.ROI_HEADS.NMS": ("nms", 0.5),
    "MODEL.ROI_HEADS.DETECTIONS_PER_IMG": ("max_detections", 100),
    "MODEL.ROI_HEADS.MIN_DETECTIONS_PER_IMG": ("min_detections", 0),
    "MODEL.ROI_HEADS.NMS_FILTER": ("nms_mode", 0),
    "MODEL.ROI_BOX_HEAD.POOLER_RESOLUTION": ("roi_resolution", 14),
    "MODEL.ROI_BOX_HEAD.NUM_CLASSES": ("num_classes", 81),
    "MODEL.ROI_ATTRIBUTE_HEAD.NUM_ATTRIBUTES": ("num_attributes", 401),
    "MODEL.ROI_ATTRIBUTE_HEAD.CLS_EMD_DIM": ("class_embedding", 256),
    "MODEL.ROI_ATTRIBUTE_HEAD.ATTR_EMD_DIM": ("attribute_hidden", 512),
    "MODEL.ROI_ATTRIBUTE_HEAD.POSTPROCESS_ATTRIBUTES_THRESHOLD": ("attribute_threshold", 0.0),
    "MODEL.ROI_ATTRIBUTE_HEAD.MAX_NUM_ATTR_PER_OBJ": ("attributes_per_box", 16),
    "MODEL.ROI_ATTRIBUTE_HEAD.MAX_NUM_ATTR_PER_IMG": ("attributes_per_image", 100),
    "INPUT.MIN_SIZE_TEST": ("short_side", 800),
    "INPUT.MAX_SIZE_TEST": ("long_side", 1333),
    "INPUT.PIXEL_MEAN": ("pixel_mean_bgr", (102.9801, 115.9465, 122.7717)),
    "TEST.IGNORE_BOX_REGRESSION": ("ignore_box_regression", False),
}
"""Key -> our field and the published default."""

BODIES = {"R-50-C4": (3, 4, 6, 3), "R-101-C4": (3, 4, 23, 3), "R-152-C4": (3, 8, 36, 3)}
"""MODEL.BACKBONE.CONV_BODY -> bottlenecks per layer; the box head's layer4 always has three."""

REQUIRED: dict[str, tuple[Any, Any]] = {
    "MODEL.RPN_ONLY": (False, False),
    "MODEL.MASK_ON": (False, False),
    "MODEL.KEYPOINT_ON": (False, False),
    "MODEL.RETINANET_ON": (False, False),
    "MODEL.RELATION_ON": (False, False),
    "MODEL.CLS_AGNOSTIC_BBOX_REG": (False, False),
    "MODEL.RESNETS.STRIDE_IN_1X1": (False, True),
    "MODEL.RESNETS.TRANS_FUNC": ("BottleneckWithFixedBatchNorm", "BottleneckWithFixedBatchNorm"),
    "MODEL.RESNETS.STEM_FUNC": ("StemWithFixedBatchNorm", "StemWithFixedBatchNorm"),
    "MODEL.RESNETS.RES5_DILATION": (1, 1),
    "MODEL.RESNETS.STAGE_WITH_DCN": ((False,) * 4, (False,) * 4),
    "MODEL.RPN.USE_FPN": (False, False),
    "MODEL.RPN.ANCHOR_STRIDE": ((16,), (16,)),
    "MODEL.RPN.MIN_SIZE": (0, 0),
    "MODEL.RPN.RPN_HEAD": ("SingleConvRPNHead", "SingleConvRPNHead"),
    "MODEL.RPN.FORCE_BOXES": (False, False),
    "MODEL.ROI_HEADS.USE_FPN": (False, False),
    "MODEL.ROI_HEADS.BBOX_REG_WEIGHTS": ((10.0, 10.0, 5.0, 5.0), (10.0, 10.0, 5.0, 5.0)),
    "MODEL.ROI_BOX_HEAD.FEATURE_EXTRACTOR": (
        "ResNet50Conv5ROIFeatureExtractor",
        "ResNet50Conv5ROIFeatureExtractor",
    ),
    "MODEL.ROI_BOX_HEAD.PREDICTOR": ("FastRCNNPredictor", "FastRCNNPredictor"),
    "MODEL.ROI_BOX_HEAD.POOLER_SAMPLING_RATIO": (0, 0),
    "MODEL.ROI_BOX_HEAD.POOLER_SCALES": ((1 / 16,), (1 / 16,)),
    "MODEL.ROI_BOX_HEAD.FORCE_BOXES": (False, False),
    "MODEL.ROI_ATTRIBUTE_HEAD.PREDICTOR": ("AttributeRCNNPredictor", "AttributeRCNNPredictor"),
    "MODEL.ROI_ATTRIBUTE_HEAD.SHARE_BOX_FEATURE_EXTRACTOR": (True, True),
    "INPUT.PIXEL_STD": ((1.0, 1.0, 1.0), (1.0, 1.0, 1.0)),
    "INPUT.TO_BGR255": (True, True),
    "DATALOADER.SIZE_DIVISIBILITY": (0, 0),
    "TEST.BBOX_AUG.ENABLED": (False, False),
    "DTYPE": ("float32", "float32"),
}
"""Key -> the only value that we follow, and the published default."""

SHAPES: dict[str, Any] = {
    "MODEL.META_ARCHITECTURE": "GeneralizedRCNN",
    "MODEL.ATTRIBUTE_ON": False,
    "MODEL.BACKBONE.CONV_BODY": "R-50-C4",
    "MODEL.RESNETS.BACKBONE_OUT_CHANNELS": 1024,
}
"""Keys that are read together with others, and the published defaults."""

WITHOUT_EFFECT = (
    "OUTPUT_DIR", "DATA_DIR", "DISTRIBUTED_BACKEND", "LOG_LOSS_PERIOD", "PATHS_CATALOG", "SOLVER.",
    "DATASETS.", "DATALOADER.", "MODEL.WEIGHT", "MODEL.DEVICE", "MODEL.USE_FREQ_PRIOR", "MODEL.FREQ_PRIOR",
    "MODEL.BACKBONE.FREEZE_CONV_BODY_AT", "MODEL.RESNETS.WITH_MODULATED_DCN",
    "MODEL.RESNETS.DEFORMABLE_GROUPS", "MODEL.FPN.", "MODEL.GROUP_NORM.", "MODEL.RETINANET.",
    "MODEL.FBNET.", "MODEL.TRANSFORMER.",
    "MODEL.ROI_MASK_HEAD.", "MODEL.ROI_KEYPOINT_HEAD.", "MODEL.ROI_RELATION_HEAD.",
    "MODEL.RPN.STRADDLE_THRESH", "MODEL.RPN.FG_IOU_THRESHOLD", "MODEL.RPN.BG_IOU_THRESHOLD",
    "MODEL.RPN.BATCH_SIZE_PER_IMAGE", "MODEL.RPN.POSITIVE_FRACTION", "MODEL.RPN.PRE_NMS_TOP_N_TRAIN",
    "MODEL.RPN.POST_NMS_TOP_N_TRAIN", "MODEL.RPN.FPN_",
    "MODEL.ROI_HEADS.FG_IOU_THRESHOLD", "MODEL.ROI_HEADS.BG_IOU_THRESHOLD",
    "MODEL.ROI_HEADS.BATCH_SIZE_PER_IMAGE", "MODEL.ROI_HEADS.POSITIVE_FRACTION",
    "MODEL.ROI_BOX_HEAD.MLP_HEAD_DIM", "MODEL.ROI_BOX_HEAD.USE_GN", "MODEL.ROI_BOX_HEAD.DILATION",
    "MODEL.ROI_BOX_HEAD.CONV_HEAD_DIM", "MODEL.ROI_BOX_HEAD.NUM_STACKED_CONVS",
    "MODEL.ROI_ATTRIBUTE_HEAD.FEATURE_EXTRACTOR", "MODEL.ROI_ATTRIBUTE_HEAD.POOLER_",
    "MODEL.ROI_ATTRIBUTE_HEAD.MLP_HEAD_DIM", "MODEL.ROI_ATTRIBUTE_HEAD.LOSS_WEIGHT",
    "INPUT.MIN_SIZE_TRAIN", "INPUT.MAX_SIZE_TRAIN", "INPUT.BRIGHTNESS", "INPUT.CONTRAST", "INPUT.SATURATION",
    "INPUT.HUE", "INPUT.HORIZONTAL_FLIP_PROB_TRAIN", "INPUT.VERTICAL_FLIP_PROB_TRAIN",
    "TEST.BBOX_AUG.", "TEST.SAVE_", "TEST.TSV_", "TEST.EXPECTED_", "TEST.IMS_PER_BATCH",
    "TEST.DETECTIONS_PER_IMG", "TEST.GATHER_ON_CPU", "TEST.SKIP_PERFORMANCE_EVAL", "TEST.OUTPUT_",
)  # fmt: skip
"""Keys, and beginnings of keys (they end in "." or "_"), that do not change what a picture's regions are."""


def from_sgb(path: Path, overrides: Sequence[str] = ()) -> VinvlConfig:
    """The config that a YAML file of scene_graph_benchmark describes.

    path: e.g. sgg_configs/vgattr/vinvl_x152c4.yaml. overrides: "KEY VALUE" as on the original's command line,
    e.g. "MODEL.ROI_HEADS.NMS_FILTER 1"; they win over the file, the file over the defaults.

    Raises UserError naming every key that is unknown or whose value cannot be followed.
    """
    defaults = _defaults()
    given = _read(path) | _parse(overrides)
    known = {*FIELDS, *REQUIRED, *SHAPES}
    unknown = sorted(key for key in given if key not in known and not _without_effect(key))
    problems = [f"{key} = {given[key]!r}: not a key of the published package" for key in unknown]
    values = defaults | given
    problems += [
        f"{key} = {values[key]!r}: only {wanted!r} can be followed"
        for key, (wanted, _) in REQUIRED.items()
        if not _same(values[key], wanted)
    ]
    problems += [
        f"{key} = {values[key]!r}: expected something like {default!r}"
        for key, (_, default) in FIELDS.items()
        if not _like(values[key], default)
    ]
    problems += _shape_problems(values)
    if problems:
        raise UserError(f"{path} cannot be followed:\n  " + "\n  ".join(problems))
    fields = {field: _as_field(values[key]) for key, (field, _) in FIELDS.items()}
    fields["blocks"] = BODIES[values["MODEL.BACKBONE.CONV_BODY"]]
    if not (values["MODEL.ATTRIBUTE_ON"] and values["MODEL.META_ARCHITECTURE"] == "AttrRCNN"):
        fields["num_attributes"] = 0
    try:
        return VinvlConfig(**fields)
    except UserError as error:
        raise UserError(f"{path}: {error}") from None


def _defaults() -> dict[str, Any]:
    """Every key's default: the installed package's, else the published ones."""
    published = {key: default for table in (FIELDS, REQUIRED) for key, (_, default) in table.items()} | SHAPES
    try:
        detector = importlib.import_module("maskrcnn_benchmark.config").cfg
        scene_graph = importlib.import_module("scene_graph_benchmark.config").sg_cfg
    except ImportError:
        return published
    return published | dict(_flat(detector)) | dict(_flat(scene_graph))


def _read(path: Path) -> dict[str, Any]:
    """The file's keys as "A.B.C"."""
    try:
        content = read_yaml(path, "config file")
    except FileNotFoundError:
        raise UserError(f"{path} does not exist; regions.sgb_config names a config file") from None
    return dict(_flat(content))


def _parse(overrides: Sequence[str]) -> dict[str, Any]:
    """ "KEY VALUE" texts as keys and values."""
    parsed = {}
    for text in overrides:
        key, _, value = text.strip().partition(" ")
        if not value:
            raise UserError(f"regions.sgb_options: {text!r} is not of the form 'KEY VALUE'")
        parsed[key] = _literal(value.strip())
    return parsed


def _flat(node: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in node.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", _literal(value)


def _literal(value: Any) -> Any:
    """Texts that are Python literals as what they say, as yacs reads them: YAML has no tuples."""
    if not isinstance(value, str):
        return value
    try:
        return ast.literal_eval(value)
    except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError):
        return value


def _without_effect(key: str) -> bool:
    return any(key == name or (name[-1] in "._" and key.startswith(name)) for name in WITHOUT_EFFECT)


def _same(value: Any, wanted: Any) -> bool:
    """Equal, lists and tuples alike; a truth value is no number."""
    if isinstance(wanted, tuple):
        return isinstance(value, list | tuple) and tuple(value) == wanted
    return bool(value == wanted) and isinstance(value, bool) == isinstance(wanted, bool)


def _like(value: Any, default: Any) -> bool:
    """Of the default's type; whole numbers also stand for fractions."""
    if isinstance(default, tuple):
        return isinstance(value, list | tuple) and len(value) > 0 and all(_like(v, default[0]) for v in value)
    if isinstance(default, bool) or isinstance(value, bool):
        return isinstance(value, bool) and isinstance(default, bool)
    return isinstance(value, int | float if isinstance(default, float) else int)


def _shape_problems(values: Mapping[str, Any]) -> list[str]:
    """What the values say together that our network cannot be."""
    body, out = values["MODEL.BACKBONE.CONV_BODY"], values["MODEL.RESNETS.BACKBONE_OUT_CHANNELS"]
    res2, stem = values["MODEL.RESNETS.RES2_OUT_CHANNELS"], values["MODEL.RESNETS.STEM_OUT_CHANNELS"]
    kind = values["MODEL.META_ARCHITECTURE"]
    problems = []
    if kind not in ("AttrRCNN", "GeneralizedRCNN"):
        problems.append(
            f"MODEL.META_ARCHITECTURE = {kind!r}: only AttrRCNN or GeneralizedRCNN can be followed"
        )
    if body not in list(BODIES):
        problems.append(f"MODEL.BACKBONE.CONV_BODY = {body!r}: only {', '.join(BODIES)} can be followed")
    if _like(res2, 256) and out != 4 * res2:
        problems.append(
            f"MODEL.RESNETS.BACKBONE_OUT_CHANNELS = {out!r}: layer3 has 4 * RES2_OUT_CHANNELS = {4 * res2}"
        )
    if stem == res2:
        problems.append(
            f"MODEL.RESNETS.STEM_OUT_CHANNELS = {stem!r}: equal to RES2_OUT_CHANNELS, layer1 would have no "
            "projection in its first block"
        )
    return problems


def _as_field(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value
