"""Random small encoders in the built-in file formats, and a few painted files with the tables before them."""

import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import torch
from PIL import Image
from safetensors.torch import save_file

from model.pretrain.tokenizers import train_clip_bpe
from pipeline.backbones.clip import BPE, build_clip
from pipeline.backbones.params import BackbonesParams, ClipParams, SamParams
from pipeline.backbones.sam import SamConfig, build_sam
from pipeline.common import schema
from pipeline.common.files import write_json, write_parquet
from pipeline.common.fingerprint import sha256_file
from pipeline.common.params import Paths
from pipeline.common.schema import shard_stem

SAM = SamConfig(
    img_size=64,
    patch_size=8,
    embed_dim=16,
    depth=2,
    num_heads=2,
    window_size=4,
    global_attn_indexes=(1,),
    out_chans=16,
    mask_in_chans=4,
    decoder_num_heads=2,
    decoder_mlp_dim=16,
    iou_head_hidden_dim=8,
)
CLIP = {
    "embed_dim": 16,
    "vision_cfg": {"image_size": 32, "patch_size": 8, "width": 16, "layers": 2, "head_width": 8},
    "text_cfg": {"context_length": 12, "vocab_size": 0, "width": 16, "heads": 2, "layers": 1},
}
WORDS = ["the crooked red house looks calm", "the stormy sky makes me afraid", "a skull, and nothing else"]
SIZES = [(60, 40), (33, 70), (50, 50), (128, 64), (40, 90)]
"""(width, height) of the world's pictures."""


def write_backbones(folder: Path) -> BackbonesParams:
    """SAM and CLIP files with random weights, the same on every call, and their `sha256.json`."""
    torch.manual_seed(5)
    folder.mkdir(parents=True, exist_ok=True)
    save_file(build_sam(SAM).state_dict(), folder / "sam.safetensors")
    write_json(folder / "sam.json", vars(SAM))
    train_clip_bpe(WORDS, folder / BPE, merges=40)
    from open_clip.tokenizer import SimpleTokenizer

    vocab_size = SimpleTokenizer(str(folder / BPE)).vocab_size
    config = CLIP | {"text_cfg": {**CLIP["text_cfg"], "vocab_size": vocab_size}}  # type: ignore[dict-item]
    save_file(build_clip(config).state_dict(), folder / "clip.safetensors")
    write_json(folder / "clip.json", config)
    names = ["sam.safetensors", "sam.json", "clip.safetensors", "clip.json", BPE]
    write_json(folder / "sha256.json", {n: sha256_file(folder / n) for n in names})
    return BackbonesParams(
        sam=SamParams("tiny", folder / "sam.safetensors"),
        clip=ClipParams("tiny", folder / "clip.safetensors"),
        device="cpu",
    )


def write_world(root: Path, shards: int = 2) -> Paths:
    """Five noise pictures with what `utterances` and `regions` would have written about them.

    The last picture's only utterance is "something else"; the first has two of one emotion.
    """
    paths = Paths(
        artemis=root / "artemis.csv", wikiart=root / "wikiart", data=root / "data", metrics=root / "metrics"
    )
    rng = np.random.default_rng(0)
    works, said, regions = [], [], []
    for number, (width, height) in enumerate(SIZES):
        painting = f"ada_title-{number}"
        key = schema.artwork_key("Drawn", painting)
        path = Path("Drawn") / f"{painting}.png"
        (paths.wikiart / "Drawn").mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(0, 256, (height, width, 3), np.uint8)).save(paths.wikiart / path)
        works.append(
            {
                "key": key,
                "art_style": "Drawn",
                "painting": painting,
                "path": path.as_posix(),
                "width": width,
                "height": height,
                "split": "train",
                "shard": number % shards,
            }
        )
        emotions = ["something else"] if number == len(SIZES) - 1 else ["fear", "awe", "fear"]
        for emotion in emotions:
            said.append((key, emotion, WORDS[len(said) % len(WORDS)]))
        corners = np.sort(rng.uniform(0, 1, (4 + number, 2, 2)), 1) * [width, height]
        regions.append((key, corners.reshape(-1, 4).astype(np.float32)))
    folder = paths.step("utterances")
    write_parquet(folder / "artworks.parquet", pa.Table.from_pylist(works, schema.ARTWORKS))
    write_parquet(folder / "utterances.parquet", _utterances(said))
    shard_of = {work["key"]: work["shard"] for work in works}
    for shard in range(shards):
        table = _regions([(key, boxes) for key, boxes in sorted(regions) if shard_of[key] == shard])
        write_parquet(paths.step("regions") / f"{shard_stem(shard)}.parquet", table)
    return paths


def _utterances(said: list[tuple[str, str, str]]) -> pa.Table:
    """`schema.UTTERANCES` from (key, emotion, utterance)."""
    rows = [
        {
            "key": key,
            "artemis_id": number,
            "emotion": emotion,
            "utterance": utterance,
            "repetition": 3,
            "split": "train",
        }
        for number, (key, emotion, utterance) in enumerate(said)
    ]
    return pa.Table.from_pylist(rows, schema.UTTERANCES)


def _regions(boxed: list[tuple[str, np.ndarray]]) -> pa.Table:
    """`schema.REGIONS` from (key, boxes)."""
    rows = [
        {
            "key": key,
            "boxes": boxes.tolist(),
            "scores": [0.5] * len(boxes),
            "labels": ["thing"] * len(boxes),
            "attributes": None,
            "masks": None,
            "source": "hand",
        }
        for key, boxes in boxed
    ]
    return pa.Table.from_pylist(rows, schema.REGIONS)


def write_torchscript(model: Any, path: Path) -> None:
    """A CLIP as OpenAI published theirs: traced, in half precision, with its sizes among the buffers."""
    size, context = model.visual.image_size, model.context_length
    side = size if isinstance(size, int) else size[0]
    for name, value in {"input_resolution": side, "context_length": context, "vocab_size": 0}.items():
        if not hasattr(model, name):
            model.register_buffer(name, torch.tensor(value))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # tracing is deprecated, and that is how those files are
        example = (torch.zeros(1, 3, side, side), torch.zeros(1, context, dtype=torch.int64))
        traced = torch.jit.trace(model.eval(), example, check_trace=False).half()
        torch.jit.save(traced, path)
