"""Weights: is each file there, whole, of the size that the params name, and the one its authors published."""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pipeline.backbones.weight_hashes import HASHES, verify_weights
from pipeline.common.errors import UserError
from pipeline.common.fingerprint import sha256_file
from pipeline.common.machine import shown_bytes
from pipeline.doctor.finding import Check, Context, Finding, NotChecked
from pipeline.doctor.weights_file import LOADABLE, WAY_OUT, WeightsFile, look_at

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
    "github.com/facebookresearch/segment-anything",
    "clip": "CLIP by OpenAI: github.com/openai/CLIP (clip/clip.py lists ViT-B-16.pt and the others), or on "
    "the Hugging Face hub timm/vit_base_patch16_clip_224.openai (open_clip_model.safetensors) and its like",
    "vinvl": "VinVL by Microsoft: vinvl_vg_x152c4.pth and VG-SGG-dicts-vgoi6-clipped.json, in the model zoo "
    "of github.com/microsoft/scene_graph_benchmark; where its links are dead, both are mirrored as "
    "michelecafagna26/vinvl_vg_x152c4 on the Hugging Face hub. APOLO's released boxes do without it "
    "(regions.source: apolo)",
    "faster_rcnn": "torchvision's COCO weights, named in its documentation: "
    "fasterrcnn_resnet50_fpn_coco-258fb6c6.pth, fasterrcnn_resnet50_fpn_v2_coco-dd69338a.pth",
    "language_model": "DistilGPT-2: distilbert/distilgpt2 on the Hugging Face hub; the folder needs "
    "config.json, model.safetensors and tokenizer.json (or vocab.json and merges.txt)",
    "score.clip": "CLIP ViT-B/32 by OpenAI, for CLIPScore: github.com/openai/CLIP (ViT-B-32.pt), or "
    "timm/vit_base_patch32_clip_224.openai on the Hugging Face hub",
}
"""What each file is, and where its authors publish it."""
_HUB_NAME = re.compile(r"-([0-9a-f]{8,64})\.pth?$")
"""torch.hub's habit: the first digits of the SHA-256 end the name."""


def _sam(context: Context) -> Iterator[Finding]:
    params = context.section("backbones").sam
    yield from _file("sam", "backbones.sam.checkpoint", params.checkpoint, lambda f: sam_problem(f, params))


def _clip(context: Context) -> Iterator[Finding]:
    params = context.section("backbones").clip
    yield from _file(
        "clip", "backbones.clip.checkpoint", params.checkpoint, lambda f: clip_problem(f, params)
    )
    yield from _activation("clip", "backbones.clip.name", params)


def _score_clip(context: Context) -> Iterator[Finding]:
    params = context.section("score").clip
    if params is None or params == context.section("backbones").clip:
        return
    yield from _file(
        "score.clip", "score.clip.checkpoint", params.checkpoint, lambda f: clip_problem(f, params)
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


def _file(name: str, key: str, path: Path, problem_of: Any) -> Iterator[Finding]:
    """One weights file, down to its hash; `problem_of` says what is wrong with its tensors, or ""."""
    file = look_at(path)
    if file.kind not in LOADABLE:
        way_out = WAY_OUT[file.kind].format(key=key)
        yield Finding(name, "fail", f"{path} {file.detail}", f"{way_out}. It is {WHERE[name]}")
        return
    problem = problem_of(file)
    if problem:
        yield Finding(name, "fail", f"{path}: {problem}", f"change {key}, or what names its size beside it")
        return
    size = shown_bytes(path.stat().st_size)
    try:
        digest = verify_weights(path)  # against the list beside it, where there is one
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
        if any(name.startswith("vision_encoder.") for name in file.shapes):
            return "this is transformers' copy of SAM, with other names; the official .pth is needed"
        return f"no SAM: it has no image_encoder.pos_embed, but {_some(file)}"
    depth = _depth(file, "image_encoder.blocks.")
    size = (position[-1], depth)
    if params.arch == "tiny":
        sizes = _json(params.checkpoint.with_suffix(".json"))
        wanted = (sizes.get("embed_dim"), sizes.get("depth"))
    else:
        wanted = SAM_SIZES[params.arch]
    if size == wanted:
        return ""
    named = next(
        (arch for arch, other in SAM_SIZES.items() if other == size), f"width {size[0]}, depth {size[1]}"
    )
    return f"this is {named}, but backbones.sam.arch says {params.arch}"


def clip_problem(file: WeightsFile, params: Any) -> str:
    """Why these tensors are no CLIP of `params.name`, or ""; models without a plain ViT are not compared."""
    if any(name.startswith("vision_model.") for name in file.shapes):
        return "this is transformers' copy of CLIP, with other names; OpenAI's or open_clip's file is needed"
    if "token_embedding.weight" not in file.shapes and not any("visual." in name for name in file.shapes):
        return f"no CLIP: it has neither visual.* nor token_embedding.weight, but {_some(file)}"
    if params.name == "tiny":
        config = _json(params.checkpoint.with_suffix(".json"))
    else:
        import open_clip

        config = open_clip.get_model_config(params.name) or {}
        if not config:
            return f"open_clip has no model {params.name!r}; try ViT-B-16"
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
    path = params.checkpoint
    if params.name == "tiny" or "quickgelu" in params.name or not path.is_file():
        return
    if path.name in _openai_files() or sha256_file(path) in _openai_files().values():
        found = f"{path} is OpenAI's, trained with QuickGELU; {params.name} has another GELU"
        yield Finding(name, "fail", found, f"set {key} to {params.name}-quickgelu")


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
    name, key = "language_model", "backbones.language_model"
    folder = context.section("backbones").language_model
    if not folder.is_dir():
        yield Finding(name, "fail", f"{folder} is no folder", f"set {key}. It is {WHERE[name]}")
        return
    names = {path.name for path in folder.iterdir()}
    has_tokenizer = "tokenizer.json" in names or {"vocab.json", "merges.txt"} <= names
    lacking = [file for file in ("config.json", "model.safetensors") if file not in names]
    lacking += [] if has_tokenizer else ["tokenizer.json"]
    if lacking:
        binary = (
            " It has pytorch_model.bin: load and save_pretrained it once."
            if "pytorch_model.bin" in names
            else ""
        )
        found = f"{folder} lacks {', '.join(lacking)}"
        yield Finding(name, "fail", found, f"fetch the whole folder.{binary} It is {WHERE[name]}")
        return
    yield from _file(
        name, key, folder / "model.safetensors", lambda f: gpt2_problem(f, folder / "config.json")
    )


def gpt2_problem(file: WeightsFile, config_file: Path) -> str:
    """Why these tensors are no GPT-2 of that config.json, or ""."""
    config = _json(config_file)
    if config.get("model_type") != "gpt2":
        return f"{config_file} says model_type {config.get('model_type')!r}; the language model is a GPT-2"
    found = next((size for name, size in file.shapes.items() if name.endswith("wte.weight")), None)
    wanted = (config.get("vocab_size"), config.get("n_embd"))
    if found is None:
        return f"no GPT-2: no tensor ends in wte.weight; it has {_some(file)}"
    if wanted[0] is not None and found != wanted:
        return f"wte.weight has shape {found}, {config_file} says {wanted}"
    return ""


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
    "sam": _sam,
    "clip": _clip,
    "detector": _detector,
    "language_model": _language_model,
    "score.clip": _score_clip,
}
