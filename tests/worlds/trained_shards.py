"""A world small enough to train on in a test: random SAM and GPT-2 weights, and shards of random features.

What there is to learn: an emotion brightens a channel of its own in a quarter of the artwork; the quarter
is its mask.
"""

import hashlib
import json
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pyarrow as pa
import torch
from safetensors.torch import save_file
from tokenizers import ByteLevelBPETokenizer
from transformers import GPT2Config, GPT2LMHeadModel, PreTrainedTokenizerFast

from pipeline.backbones.sam import SamConfig, build_sam
from pipeline.common.emotions import EMOTIONS, prompt
from pipeline.common.files import write_json, write_parquet
from pipeline.common.params import Paths
from pipeline.common.schema import INDEX, shard_stem
from pipeline.common.tars import list_members, npy_bytes, write_tar
from pipeline.features.encoders import quantise

SAM = SamConfig(
    img_size=32,
    patch_size=4,
    embed_dim=16,
    depth=1,
    num_heads=2,
    window_size=4,
    global_attn_indexes=(0,),
    out_chans=32,
    mask_in_chans=8,
    decoder_num_heads=4,
    decoder_mlp_dim=32,
    iou_head_hidden_dim=16,
)
END = "<|endoftext|>"
WIDTH = 32
"""Of the language model and of CLIP's patch tokens."""
SENTENCES = [f"the {thing} fills me with {emotion}" for thing in ("house", "snake") for emotion in EMOTIONS]


def backbones(folder: Path) -> tuple[Path, Path]:
    """(SAM checkpoint, GPT-2 folder), random but the same every time."""
    torch.manual_seed(3)
    state = {name: tensor.contiguous() for name, tensor in build_sam(SAM).state_dict().items()}
    folder.mkdir(parents=True, exist_ok=True)
    save_file(state, folder / "sam.safetensors")
    write_json(folder / "sam.json", vars(SAM))

    bpe = ByteLevelBPETokenizer()
    texts = [
        *(" " + sentence for sentence in SENTENCES),
        *(prompt(e) for e in EMOTIONS if e != "contentment"),
    ]
    bpe.train_from_iterator(
        [text.replace("contentment", "") for text in texts] * 3,
        vocab_size=400,
        special_tokens=[END],
        show_progress=False,
    )
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=bpe._tokenizer, eos_token=END)
    tokenizer.save_pretrained(folder / "gpt2")
    config = GPT2Config(
        vocab_size=len(tokenizer),
        n_positions=64,
        n_embd=WIDTH,
        n_layer=2,
        n_head=4,
        embd_pdrop=0.1,
        bos_token_id=0,
        eos_token_id=0,
    )
    model = GPT2LMHeadModel(config)
    with torch.no_grad():
        model.transformer.wte.weight.mul_(10)  # trained embeddings are not as faint as GPT-2's first ones
    model.save_pretrained(folder / "gpt2")
    return folder / "sam.safetensors", folder / "gpt2"


def shards(
    folder: Path, splits: dict[str, int], sizes: tuple[int, int] = (24, 32), sam_dtype: str = "float16"
) -> Paths:
    """Features, masks and index of random artworks, so many of each split, of one input size."""
    paths = Paths(data=folder / "data", runs=folder / "runs", metrics=folder / "metrics")
    rng = np.random.default_rng(5)
    features: list[tuple[str, dict[str, bytes]]] = []
    masks: list[tuple[str, dict[str, bytes]]] = []
    rows: list[dict[str, Any]] = []
    names = [(split, number) for split, count in splits.items() for number in range(count)]
    for at, (split, number) in enumerate(names):
        key = f"{at:016x}"
        emotions = sorted(rng.choice(8, size=2, replace=False).tolist())
        quarters = {EMOTIONS[e]: e % 4 for e in emotions}
        features.append((key, _features(rng, quarters, sizes, sam_dtype)))
        words = {
            emotion: {
                "utterances": [s for s in SENTENCES if s.endswith(emotion)][: 1 + number % 2],
                "area": 0.2,
            }
            for emotion in quarters
        }
        about = {"key": key, "split": split, "emotions": words}
        pictures = {f"{emotion}.png": _mask(quarter, sizes) for emotion, quarter in quarters.items()}
        masks.append((key, pictures | {"json": json.dumps(about).encode()}))
        counts = [len(words[emotion]["utterances"]) for emotion in quarters]
        rows.append(
            {"key": key, "shard": 0, "split": split, "emotions": list(quarters), "utterance_counts": counts}
        )
    for name, samples in (("features", features), ("masks", masks)):
        tar = paths.step(name) / f"{shard_stem(0)}.tar"
        write_tar(tar, samples)
        for row in rows:
            row["members"] = row.get("members", []) + [
                {"file": name, "name": m.name, "offset": m.offset, "size": m.size}
                for m in list_members(tar)
                if m.key == row["key"]
            ]
    for row in rows:
        digest = hashlib.sha256()
        for member in row["members"]:
            data = (paths.step(member["file"]) / f"{shard_stem(0)}.tar").read_bytes()
            digest.update(data[member["offset"] :][: member["size"]])
        row["sha256"] = digest.hexdigest()
    write_parquet(paths.step("shards") / "index.parquet", pa.Table.from_pylist(rows, schema=INDEX))
    return paths


def _features(
    rng: np.random.Generator, quarters: dict[str, int], sizes: tuple[int, int], sam_dtype: str
) -> dict[str, bytes]:
    sam = rng.normal(0, 0.1, (SAM.out_chans, 8, 8)).astype(np.float16)
    for emotion, quarter in quarters.items():
        y, x = (quarter // 2) * sizes[0] // 8, (quarter % 2) * sizes[1] // 8
        sam[EMOTIONS.index(emotion), y : y + sizes[0] // 8, x : x + sizes[1] // 8] += 2
    clip = rng.normal(size=(16, WIDTH)).astype(np.float16)
    about = {"height": 300, "width": 400, "sam": {"input_size": sizes}}
    grids = {"sam.npy": sam}
    if sam_dtype == "int8":
        codes, scales = quantise(torch.from_numpy(sam)[None].float())
        grids = {"sam.npy": codes[0].numpy(), "sam_scale.npy": scales[0].numpy()}
    return {
        **{name: npy_bytes(array) for name, array in grids.items()},
        "clip.npy": npy_bytes(clip),
        "json": json.dumps(about).encode(),
    }


def _mask(quarter: int, sizes: tuple[int, int]) -> bytes:
    """A quarter of the artwork in white, its long side 256 pixels."""
    height, width = (256 * size // max(sizes) for size in sizes)
    mask = np.zeros((height, width), dtype=np.uint8)
    y, x = (quarter // 2) * height // 2, (quarter % 2) * width // 2
    mask[y : y + height // 2, x : x + width // 2] = 255
    return bytes(cv2.imencode(".png", mask)[1])
