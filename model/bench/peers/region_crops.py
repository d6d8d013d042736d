"""Region crops, alone and into CLIP, against open_clip with Pillow and against clip-retrieval's way."""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import open_clip
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from open_clip.transform import image_transform
from PIL import Image
from torch.utils.data import DataLoader, Dataset

from model.bench.peers.pair import Differ, Job, Pair, same_directions
from model.bench.peers.pictures import write
from model.bench.true_size_weights import random_clip
from pipeline.backbones.clip import Clip, build_clip
from pipeline.backbones.decode_ahead import pictures
from pipeline.releases.wikiart import BadImage

SMALL = {
    "embed_dim": 32,
    "vision_cfg": {"image_size": 32, "layers": 2, "width": 64, "patch_size": 8},
    "text_cfg": {"context_length": 16, "vocab_size": 100, "width": 32, "heads": 2, "layers": 1},
}
BATCH = 256
"""Crops encoded at once; the default of clip-retrieval as well."""
COSINE = 0.999
"""Least cosine between the two sides: crops are within a few levels of 255 of Pillow's."""
LEVELS = 1.0
"""Largest mean difference between a crop and Pillow's, of 255."""


class Crops:
    """Artworks in files, boxes of each, and a random CLIP on both sides."""

    def __init__(self, job: Job, artworks: int, regions: int) -> None:
        self.folder = job.folder
        self.rows, self.boxes = write(job.folder, artworks, regions, job.tiny)
        torch.manual_seed(0)
        self.model: Any = build_clip(SMALL) if job.tiny else random_clip()
        self.clip = Clip(self.model, open_clip.tokenize, job.device)
        self.transform: Callable[[Image.Image], torch.Tensor] = image_transform(
            self.clip.size, is_train=False, resize_mode="shortest", interpolation="bicubic"
        )
        self.count = sum(map(len, self.boxes))

    def work(self, what: str) -> str:
        """A turn, for people."""
        return f"{self.count} regions of {len(self.rows)} artworks, from the JPEG files to {what}"

    def cut(self) -> torch.Tensor:
        """Ours: uint8 (crops, 3, size, size)."""
        found = []
        for (_, image), boxes in zip(pictures(self.folder, self.rows), self.boxes, strict=True):
            if isinstance(image, BadImage):
                raise image
            found.append(self.clip.crop(image, boxes, "center"))
        return torch.cat(found)

    def encoded(self) -> torch.Tensor:
        """Ours: (crops, D), full batches across artworks."""
        return torch.cat([self.clip.encode_pixels(part) for part in self.cut().split(BATCH)]).cpu()

    def opened(self, number: int) -> list[Image.Image]:
        """Pillow's crops of an artwork."""
        with Image.open(self.folder / self.rows[number]["path"]) as file:
            whole = file.convert("RGB")
        return [whole.crop(tuple(box)) for box in self.boxes[number].astype(int).tolist()]


def prepare_crops(job: Job) -> Pair:
    """Crops alone, without CLIP."""
    crops = Crops(job, 4, 36)

    def theirs() -> torch.Tensor:
        return torch.stack([crops.transform(one) for n in range(len(crops.rows)) for one in crops.opened(n)])

    def check() -> str:
        ours = crops.clip.normalise(crops.cut()).cpu()
        apart = (ours - theirs()).abs() * crops.clip.std.cpu() * 255
        each = float(apart.flatten(1).mean(1).max())
        if not each <= LEVELS:
            raise Differ(f"a crop differs from Pillow's by {each:.2f} of 255 levels on average")
        return f"crops within {each:.2f} of 255 levels on average"

    def ours() -> torch.Tensor:
        return crops.clip.normalise(crops.cut()).cpu()

    return Pair(crops.work("CLIP's input"), "crops", crops.count, ours, theirs, check)


def _few(job: Job) -> Crops:
    """A processor takes a third of a second a crop."""
    return Crops(job, 2, 16) if job.device == "cpu" else Crops(job, 16, 36)


def prepare_open_clip(job: Job) -> Pair:
    """open_clip as its README has it: an artwork's crops by Pillow, one batch, the next artwork."""
    crops = _few(job)

    @torch.no_grad()
    def theirs() -> torch.Tensor:
        found = []
        for number in range(len(crops.rows)):
            batch = torch.stack([crops.transform(one) for one in crops.opened(number)]).to(job.device)
            features = crops.model.encode_image(batch)
            found.append((features / features.norm(dim=-1, keepdim=True)).cpu())
        return torch.cat(found)

    check = lambda: same_directions(crops.encoded(), theirs(), COSINE)  # noqa: E731
    return Pair(crops.work("embeddings"), "crops", crops.count, crops.encoded, theirs, check)


class ImageDataset(Dataset[dict[str, Any]]):
    """clip-retrieval's: image files of a folder by name, decoded and preprocessed."""

    def __init__(self, folder: Path, transform: Callable[[Image.Image], torch.Tensor]) -> None:
        self.files = sorted(folder.glob("**/*.bmp"))
        self.transform = transform

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, number: int) -> dict[str, Any]:
        file = self.files[number]
        return {"image_filename": str(file), "image_tensor": self.transform(Image.open(file))}


def prepare_clip_retrieval(job: Job) -> Pair:
    """clip-retrieval's `FilesReader`, `ClipMapper` and `NumpyWriter`, written out.

    Its package needs NumPy 1. It reads images, not regions, so the crops are written as files first, as BMP,
    which costs least. One process prepares them, as one thread of ours decodes.
    """
    crops = _few(job)

    @torch.no_grad()
    def theirs() -> np.ndarray:
        folder = job.folder / "crops"
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir()
        for number in range(len(crops.rows)):
            for region, one in enumerate(crops.opened(number)):
                one.save(folder / f"{number:06d}_{region:03d}.bmp")
        loader = DataLoader(
            ImageDataset(folder, crops.transform), BATCH, num_workers=1, pin_memory=job.device != "cpu"
        )
        embeddings, names = [], []
        for batch in loader:
            features = crops.model.encode_image(batch["image_tensor"].to(job.device))
            features /= features.norm(dim=-1, keepdim=True)
            embeddings.append(features.cpu().to(torch.float16).numpy())
            names += batch["image_filename"]
        found = np.concatenate(embeddings)
        np.save(folder / "img_emb_0.npy", found)
        pq.write_table(pa.table({"image_path": names}), folder / "metadata_0.parquet")
        return found

    check = lambda: same_directions(crops.encoded(), theirs(), COSINE)  # noqa: E731
    return Pair(crops.work("embeddings"), "crops", crops.count, crops.encoded, theirs, check)
