"""Weights: is each file there, whole, of the size that the params name, and the one its authors published."""

import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from pipeline.backbones.clip_of_transformers import described, is_of_transformers, open_clip_names
from pipeline.backbones.language_model import load_tokenizer, read_gpt2
from pipeline.backbones.sam_weights import official_names
from pipeline.backbones.tensors import (
    check_finite,
    misfits,
    read_tensors,
    shapes_of,
    sizes_beside,
    weight_files,
)
from pipeline.backbones.weight_hashes import HASHES, verify_weights
from pipeline.backbones.weights_file import LOADABLE, WAY_OUT
from pipeline.common.errors import UserError
from pipeline.common.fingerprint import sha256_file
from pipeline.common.machine import shown_bytes
from pipeline.doctor.finding import Check, Context, Finding, NotChecked
from pipeline.doctor.offer_fetch import offering
from pipeline.doctor.weights_file import WeightsFile, look_at

SAM_FILES = {
    "sam_vit_b_01ec64.pth": "ec2df62732614e57411cdcf32a23ffdf28910380d03139ee0f4fcbe91eb8c912",
    "sam_vit_l_0b3195.pth": "3adcc4315b642a4d2101128f611684e8734c41232a17c648ed1693702a49a622",
    "sam_vit_h_4b8939.pth": "a7bf3b02f3ebf1267aba913ff637d9a2d5c33d3173bb679e46d9f338c26f262e",
}
"""Meta's file -> SHA-256, as micro-sam lists them; the digits in the names are of their MD5."""
SAM_SIZES = {"vit_b": (768, 12), "vit_l": (1024, 24), "vit_h": (1280, 32)}
"""Architecture -> (width, depth) of the image encoder."""
WHERE = {
    "sam": "SAM by Meta AI: sam_vit_b_01ec64.pth (375 MB), sam_vit_l_0b3195.pth (1.2 GB) or "
    "sam_vit_h_4b8939.pth (2.6 GB), under Model Checkpoints in the README of "
    "github.com/facebookresearch/segment-anything; or facebook/sam-vit-base and its like on the Hugging Face "
    "hub",
    "clip": "CLIP by OpenAI: github.com/openai/CLIP (clip/clip.py lists ViT-B-16.pt and the others), or on "
    "the Hugging Face hub timm/vit_base_patch16_clip_224.openai (open_clip_model.safetensors) and its like",
    "vinvl": "VinVL by Microsoft: vinvl_vg_x152c4.pth and VG-SGG-dicts-vgoi6-clipped.json, in the model zoo "
    "of github.com/microsoft/scene_graph_benchmark; where its links are dead, both are mirrored as "
    "michelecafagna26/vinvl_vg_x152c4 on the Hugging Face hub. APOLO's released boxes do without it "
    "(regions.source: apolo)",
    "faster_rcnn": "torchvision's COCO weights, named in its documentation: "
    "fasterrcnn_resnet50_fpn_coco-258fb6c6.pth, fasterrcnn_resnet50_fpn_v2_coco-dd69338a.pth",
    "language_model": "DistilGPT-2: distilbert/distilgpt2 on the Hugging Face hub; the folder needs "
    "config.json, its weights (model.safetensors or pytorch_model.bin, whole or in shards) and "
    "tokenizer.json (or vocab.json and merges.txt)",
    "score.clip": "CLIP ViT-B/32 by OpenAI, for CLIPScore: github.com/openai/CLIP (ViT-B-32.pt), or "
    "timm/vit_base_patch32_clip_224.openai on the Hugging Face hub",
}
"""What each file is, and where its authors publish it."""
_HUB_NAME = re.compile(r"-([0-9a-f]{8,64})\.pth?$")
"""torch.hub's habit: the first digits of the SHA-256 end the name."""


def _sam(context: Context) -> Iterator[Finding]:
    params = context.section("backbones").sam
    yield from _file(
        "sam", "backbones.sam.checkpoint", params.checkpoint, lambda f: sam_problem(f, params), official_names
    )


def _clip(context: Context) -> Iterator[Finding]:
    params = context.section("backbones").clip
    yield from _file(
        "clip",
        "backbones.clip.checkpoint",
        params.checkpoint,
        lambda f: clip_problem(f, params),
        open_clip_names,
    )
    yield from _activation("clip", "backbones.clip.name", params)


def _score_clip(context: Context) -> Iterator[Finding]:
    params = context.section("score").clip
    if params is None or params == context.section("backbones").clip:
        return
    yield from _file(
        "score.clip",
        "score.clip.checkpoint",
        params.checkpoint,
        lambda f: clip_problem(f, params),
        open_clip_names,
    )
    yield from _activation("score.clip", "score.clip.name", params)


def _detector(context: Context) -> Iterator[Finding]:
    """The detector that the source of regions needs, if any."""
    source = context.region_source
    backbones = context.section("backbones")
    if source == "vinvl":
        path = backbones.vinvl.checkpoint
        yield from _file("vinvl", "backbones.vinvl.checkpoint", path, lambda f: vinvl_problem(f, path))
        beside = (path.with_suffix(".json"), path.with_name("VG-SGG-dicts-vgoi6-clipped.json"))
        if path.is_file() and not any(file.is_file() for file in beside):
            found = f"no label map beside {path}: regions will carry numbers instead of names"
            yield Finding("vinvl", "warn", found, f"put {beside[1].name} there")
    elif source == "faster_rcnn":
        path = backbones.faster_rcnn.checkpoint
        yield from _file("faster_rcnn", "backbones.faster_rcnn.checkpoint", path, lambda f: "")
    else:
        yield Finding("detector", "ok", f"none is needed: regions come from {source}")


def _file(
    name: str, key: str, path: Path, problem_of: Callable[[WeightsFile], str], names: Any = dict
) -> Iterator[Finding]:
    """One network's weights, down to their hash and numbers.

    `problem_of` says what is wrong with its tensors, or ""; `names` renames them as the loader does.
    """
    file = look_at(path, names)
    if file.kind not in LOADABLE:
        way_out = WAY_OUT[file.kind].format(key=key)
        yield Finding(name, "fail", f"{path} {file.detail}", f"{way_out}. It is {WHERE[name]}")
        return
    problem = problem_of(file)
    if problem:
        yield Finding(name, "fail", f"{path}: {problem}", f"change {key}, or what names its size beside it")
        return
    size = shown_bytes(sum(part.stat().st_size for part in weight_files(path)))
    try:
        digest = verify_weights(path)  # against the list beside it, where there is one
        check_finite(read_tensors(path), path)
    except UserError as error:
        yield Finding(name, "fail", str(error))
        return
    about = f"{path} ({file.kind}, {len(file.shapes)} tensors, {size})"
    listed = any((folder / HASHES).is_file() for folder in (path.parent, path.parent.parent))
    published = SAM_FILES | _openai_files()
    origin = next((file for file, known in published.items() if known == digest), None)
    hub = _HUB_NAME.search(path.name)
    if origin is not None:
        yield Finding(name, "ok", f"{about}, the published {origin} by its SHA-256")
    elif path.name in published or (hub and not digest.startswith(hub[1])):
        found = f"{about} has SHA-256 {digest[:16]}…, which is not that of the published file of this name"
        yield Finding(name, "warn", found, f"download it again unless you changed it. It is {WHERE[name]}")
    else:
        known = f"as {HASHES} lists it" if listed else "no published hash to compare with"
        yield Finding(name, "ok", f"{about}, {known}")


def sam_problem(file: WeightsFile, params: Any) -> str:
    """Why these tensors are no SAM of `params.arch`, or ""."""
    position = file.shapes.get("image_encoder.pos_embed")
    if position is None:
        if any(name.startswith(("image_encoder.trunk.", "sam_prompt_encoder.")) for name in file.shapes):
            return "this is SAM 2; EmoSEM builds on SAM 1"
        return f"no SAM: it has no image_encoder.pos_embed, but {_some(file)}"
    depth = _depth(file, "image_encoder.blocks.")
    size = (position[-1], depth)
    if params.arch == "tiny":
        sizes = _json(sizes_beside(params.checkpoint))
        wanted = (sizes.get("embed_dim"), sizes.get("depth"))
    else:
        wanted = SAM_SIZES[params.arch]
    if size == wanted:
        return _sam_misfits(file, params)
    named = next(
        (arch for arch, other in SAM_SIZES.items() if other == size), f"width {size[0]}, depth {size[1]}"
    )
    return f"this is {named}, but backbones.sam.arch says {params.arch}"


def _sam_misfits(file: WeightsFile, params: Any) -> str:
    """All of SAM's tensors against the architecture's: training needs the decoder too."""
    import torch

    from pipeline.backbones.sam import random_sam

    with torch.device("meta"):
        own = random_sam(params.arch, params.checkpoint).state_dict()
    listed = misfits(shapes_of(own), file.shapes)
    return f"not all of SAM {params.arch}:\n{listed}" if listed else ""


def clip_problem(file: WeightsFile, params: Any) -> str:
    """Why these tensors are no CLIP of `params.name`, or ""; models without a plain ViT are not compared."""
    if "token_embedding.weight" not in file.shapes and not any("visual." in name for name in file.shapes):
        return f"no CLIP: it has neither visual.* nor token_embedding.weight, but {_some(file)}"
    if params.name == "tiny":
        config = _json(sizes_beside(params.checkpoint))
    else:
        import open_clip

        if params.name not in open_clip.list_models():
            return f"open_clip has no model {params.name!r}; try ViT-B-16"
        config = open_clip.get_model_config(params.name)
    vision = config.get("vision_cfg", {})
    patch, first = vision.get("patch_size"), file.shapes.get("visual.conv1.weight")
    if patch is None or first is None:
        return ""
    found = (first[0], first[-1], _depth(file, "visual.transformer.resblocks."))
    wanted = (vision.get("width"), patch, vision.get("layers"))
    if found == wanted:
        return ""
    return "width {}, patches of {} and {} layers".format(*found) + (
        f", but {params.name} has {wanted[0]}, {wanted[1]} and {wanted[2]}"
    )


def _activation(name: str, key: str, params: Any) -> Iterator[Finding]:
    """OpenAI trained with QuickGELU; open_clip's plain names mean another GELU, and the step refuses."""
    path, quick = params.checkpoint, "quickgelu" in params.name
    if params.name == "tiny" or not path.exists():
        return
    if is_of_transformers(look_at(path).shapes):
        trained_quick, _ = described(weight_files(path)[0])
        found = f"{path} was trained {'with' if trained_quick else 'without'} QuickGELU by its config.json"
    else:
        published = _openai_files()
        trained_quick = path.name in published or (path.is_file() and sha256_file(path) in published.values())
        trained_quick |= quick  # nothing tells: whoever chose the name knows
        found = f"{path} is OpenAI's, trained with QuickGELU"
    if trained_quick != quick:
        other = f"{params.name}-quickgelu" if trained_quick else params.name.removesuffix("-quickgelu")
        yield Finding(name, "fail", f"{found}; {params.name} has another GELU", f"set {key} to {other}")


def _openai_files() -> dict[str, str]:
    """OpenAI's CLIP file -> SHA-256."""
    from pipeline.backbones.clip_weights import openai_hashes

    return openai_hashes()


def vinvl_problem(file: WeightsFile, path: Path) -> str:
    """Why these tensors are no VinVL detector of the size beside them (true size without), or ""."""
    from pipeline.regions.vinvl.checkpoint import config_of

    config = config_of(path)
    wanted = {
        "stem.conv1.weight": (config.stem_channels, 3, 7, 7),
        "box.predictor.cls_score.weight": (config.num_classes, config.feature_size),
    }
    for suffix, shape in wanted.items():
        found = [size for name, size in file.shapes.items() if name.endswith(suffix)]
        if not found:
            return f"no VinVL detector: no tensor ends in {suffix}; it has {_some(file)}"
        if found[0] != shape:
            return f"{suffix} has shape {found[0]}, this detector needs {shape}"
    blocks = {name.split("layer3.")[1].split(".")[0] for name in file.shapes if "body.layer3." in name}
    if blocks and len(blocks) != config.blocks[2]:
        return f"layer3 has {len(blocks)} blocks, this detector needs {config.blocks[2]}"
    return ""


def _language_model(context: Context) -> Iterator[Finding]:
    """The folder as training reads it: no code, config, weights of any format, tokenizer."""
    name, key = "language_model", "backbones.language_model"
    folder = context.section("backbones").language_model
    if not folder.is_dir():
        yield Finding(name, "fail", f"{folder} is no folder", f"set {key}. It is {WHERE[name]}")
        return
    problem = ""
    try:
        if look_at(folder).kind in LOADABLE:  # else it is said below
            read_gpt2(folder, device="meta")
        load_tokenizer(folder)
    except UserError as error:
        problem = str(error)
    if problem:
        yield Finding(name, "fail", problem, f"fetch the whole folder again. It is {WHERE[name]}")
    else:
        yield from _file(name, key, folder, lambda f: "")


def _depth(file: WeightsFile, prefix: str) -> int:
    return len({name.removeprefix(prefix).split(".")[0] for name in file.shapes if name.startswith(prefix)})


def _some(file: WeightsFile) -> str:
    return ", ".join(sorted(file.shapes)[:3])


def _json(path: Path) -> dict[str, Any]:
    """A JSON object. Raises `NotChecked` for anything else."""
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise NotChecked(f"{path} cannot be read ({error})") from None
    if not isinstance(values, dict):
        raise NotChecked(f"{path} holds no JSON object")
    return values


CHECKS: dict[str, Check] = {
    "sam": offering(_sam, WHERE),
    "clip": offering(_clip, WHERE),
    "detector": offering(_detector, WHERE),
    "language_model": offering(_language_model, WHERE),
    "score.clip": offering(_score_clip, WHERE),
}
