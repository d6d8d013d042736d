"""For predictions of one's own pictures: small encoders, a random model trained on them, pictures."""

from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from safetensors.torch import save_file

from model.emosem.pretrained import build_pretrained
from model.emosem.provenance import ClipProvenance, Provenance, SamProvenance
from model.predict.params import PredictParams
from model.pretrain.tokenizers import train_clip_bpe
from pipeline.backbones.clip import BPE, build_clip
from pipeline.backbones.params import BackbonesParams, ClipParams, SamParams
from pipeline.common.files import write_json
from pipeline.common.fingerprint import sha256_file
from tests.worlds import trained_shards
from tests.worlds.backbones import WORDS

PARAMS = PredictParams(batch=3, max_new_tokens=6, device="cpu")
SIZES = {"tall.v2.jpg": (90, 60), "wide.png": (40, 100), "square.webp": (50, 50), "z/deep.png": (33, 47)}
"""(height, width) of the pictures."""


def write_weights(folder: Path) -> BackbonesParams:
    """SAM and GPT-2 of the tiny world, and a CLIP as wide as that GPT-2."""
    sam, language_model = trained_shards.backbones(folder)
    train_clip_bpe(WORDS, folder / BPE, merges=40)
    config = {
        "embed_dim": 16,
        "vision_cfg": {
            "image_size": 32,
            "patch_size": 8,
            "width": trained_shards.WIDTH,
            "layers": 2,
            "head_width": 8,
        },
        "text_cfg": {"context_length": 12, "vocab_size": 600, "width": 16, "heads": 2, "layers": 1},
    }
    torch.manual_seed(8)
    save_file(build_clip(config).state_dict(), folder / "clip.safetensors")
    write_json(folder / "clip.json", config)
    return BackbonesParams(
        SamParams("tiny", sam),
        ClipParams("tiny", folder / "clip.safetensors"),
        language_model=language_model,
        device="cpu",
    )


def provenance_of(backbones: BackbonesParams, **clip: Any) -> Provenance:
    """The provenance that a training on features of these backbones records."""
    sam, visual = (sha256_file(part.checkpoint) for part in (backbones.sam, backbones.clip))
    return Provenance(sam=SamProvenance("tiny", sam), clip=ClipProvenance("tiny", visual, **clip))


def new_run(backbones: BackbonesParams, run: Path, provenance: Provenance | None, seed: int = 1) -> Path:
    torch.manual_seed(seed)
    model = build_pretrained(
        backbones.sam.checkpoint,
        backbones.language_model,
        paradigm="single",
        prefix="mask+prompt",
        finetune="mask-head",
        detach_prompt=False,
        max_tokens=25,
        visual_dim=trained_shards.WIDTH,
    )
    model.provenance = provenance
    model.save_pretrained(run)
    return run


def write_pictures(folder: Path) -> Path:
    """Fill a folder with four pictures, one of them deeper, a broken one and a text."""
    rng = np.random.default_rng(0)
    for name, size in SIZES.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(0, 255, (*size, 3), dtype=np.uint8)).save(folder / name)
    (folder / "broken.jpg").write_bytes(b"no picture")
    (folder / "notes.txt").write_text("ignored")
    return folder
