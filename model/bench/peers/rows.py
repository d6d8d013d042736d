"""The rows of the table: who is compared, what it takes, and where its code is. Imports nothing heavy."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from model.bench.peers.pair import Job, Pair

MOSAICML = (
    "pip install --no-deps mosaicml-streaming && pip install boto3 brotli catalogue python-snappy xxhash zstd"
)
"""It asks for NumPy before 2.2 and transformers before 5, and works with later ones."""


@dataclass(frozen=True)
class Row:
    """One comparison."""

    ours: str
    """What we do."""
    peer: str
    """Who does the same."""
    module: str = ""
    """Package that the peer needs beyond the toolkit's own, by the name it is imported by."""
    distribution: str = ""
    """The same by the name it is installed by; of those in the toolkit too, for its version."""
    install: str = ""
    """How to get it."""


def _shards(peer: str, module: str, distribution: str, install: str, workers: int) -> Row:
    ours = f"feature shards to batches, {f'{workers} threads' if workers else 'read when asked'}"
    loader = f"DataLoader of {workers} workers" if workers else "DataLoader without workers"
    return Row(ours, f"{peer}, {loader}", module, distribution, install)


ROWS = {
    "sam": Row("SAM ViT-B encoding", "segment_anything's SamPredictor", "", "segment-anything"),
    "crops": Row("regions to CLIP's input", "open_clip's transform on Pillow crops", "", "pillow"),
    "open-clip": Row(
        "regions to CLIP embeddings", "open_clip with Pillow, artwork by artwork", "", "open_clip_torch"
    ),
    "clip-retrieval": Row(
        "regions to CLIP embeddings", "clip-retrieval's way, written out (crops as files, DataLoader)"
    ),
    "masks": Row("pseudo-masks from boxes", "NumPy, a loop over emotions and boxes", "", "numpy"),
    **{
        f"{name}{f'-{workers}' if workers else ''}": _shards(*which, workers)
        for name, which in {
            "webdataset": ("webdataset", "webdataset", "webdataset", "pip install webdataset"),
            "litdata": ("LitData", "litdata", "litdata", "pip install litdata"),
            "mosaicml": ("MosaicML streaming", "streaming", "mosaicml-streaming", MOSAICML),
        }.items()
        for workers in (0, 2)
    },
    "training": Row("training step on cached features", "the same step, encoders in the loop"),
    "generation": Row("explanations, most likely words", "transformers' generate", "", "transformers"),
    "apolo": Row(
        "APOLO's protocol",
        "the released script's arithmetic (a confusion matrix a mask)",
        "sklearn",
        "scikit-learn",
        "pip install scikit-learn",
    ),
}


def preparation(name: str) -> Callable[[Job], Pair]:
    """What makes both sides of a row ready. Imports torch, and the peer when it is called."""
    kind, _, workers = name.partition("-")
    if kind in ("webdataset", "litdata", "mosaicml"):
        from model.bench.peers import shard_formats

        how: Callable[..., Pair] = getattr(shard_formats, f"prepare_{kind}")
        return partial(how, workers=int(workers or 0))
    if name in ("crops", "open-clip", "clip-retrieval"):
        from model.bench.peers import region_crops

        crops: Callable[[Job], Pair] = getattr(region_crops, f"prepare_{name.replace('-', '_')}")
        return crops
    if name == "sam":
        from model.bench.peers.sam_encoding import prepare
    elif name == "masks":
        from model.bench.peers.mask_painting import prepare
    elif name == "training":
        from model.bench.peers.training_step import prepare
    elif name == "generation":
        from model.bench.peers.generation import prepare
    else:
        from model.bench.peers.apolo_scoring import prepare
    return prepare
