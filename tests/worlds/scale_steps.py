"""One step on a world of `scale_world`, with networks that take no time; run as a process of its own.

    python -m tests.worlds.scale_steps STEP ROOT SHARDS   # one line of JSON: seconds, peak memory, counts

Of the encoders only the network is replaced: files, shards, fingerprints, tables and tars are the steps' own.
The stand-ins answer by looking up numbers, so that the scores of regions differ as real ones do.
"""

import argparse
import json
import resource
import time
import zlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from pipeline.backbones.params import BackbonesParams
from pipeline.common.params import Paths
from pipeline.parallel.map_shards import ParallelParams
from tests.worlds.scale_world import STEPS, paths_in

BOXES = 36
"""Regions per artwork, the mean of VinVL's."""
BACKBONES = BackbonesParams(device="cpu")
HERE = ParallelParams()
RNG = np.random.default_rng(1)
CORNERS = np.sort(RNG.uniform(0, 1, (256, BOXES, 2, 2)), axis=2).reshape(256, BOXES, 4).astype(np.float32)
"""x1 y1 x2 y2 in shares of the picture, of 256 made-up artworks."""


class Detector:
    """In place of VinVL: 36 boxes, by the picture's first pixels."""

    def propose(self, images: Sequence[np.ndarray], **_: Any) -> list[Any]:
        """As `vinvl.AttrRCNN.propose`."""
        from pipeline.regions.vinvl.detector import Regions

        answers = []
        for image in images:
            height, width = image.shape[:2]
            boxes = CORNERS[zlib.crc32(image[0].tobytes()) % 256] * np.float32([width, height, width, height])
            scores = np.linspace(0.9, 0.2, BOXES, dtype=np.float32)
            answers.append(
                Regions(boxes, scores, np.ones(BOXES, np.int64), ["thing"] * BOXES, None, [[]] * BOXES)
            )
        return answers


def clip_stand_in() -> Any:
    """In place of CLIP: the small one's object, with crops of 4 x 4 pixels and looked-up features."""
    import torch

    from pipeline.backbones import clip

    model = clip.load_clip(BACKBONES.clip.name, BACKBONES.clip.checkpoint, "cpu")
    table = torch.nn.functional.normalize(torch.randn(256, 16, generator=torch.Generator().manual_seed(1)))
    model.size = 4

    def crop(_image: np.ndarray, boxes: np.ndarray, *_: Any, **__: Any) -> Any:
        values = torch.from_numpy(np.asarray(boxes).sum(1).astype(np.int64) % 256).to(torch.uint8)
        return values[:, None, None, None].expand(-1, 3, 4, 4)

    model.crop = crop
    model.encode_pixels = lambda pixels, *_, **__: table[pixels[:, 0, 0, 0].long()]
    model.encode_text = lambda texts, *_, **__: table[[zlib.crc32(text.encode()) % 256 for text in texts]]
    model.patch_tokens = lambda images, *_, **__: torch.zeros(len(images), 4, 8)
    return model


def sam_stand_in() -> Any:
    """In place of SAM: the small one's object, with a grid of zeros."""
    import torch

    from pipeline.backbones import sam

    encoder = sam.load_sam(BACKBONES.sam.arch, BACKBONES.sam.checkpoint, "cpu")
    encoder.encode = lambda images, *_, **__: torch.zeros(len(images), 4, 4, 4)
    return encoder


def utterances(paths: Paths, shards: int) -> dict[str, Any]:
    from pipeline.utterances.step import UtterancesParams, build_utterances

    return build_utterances(paths, UtterancesParams(num_shards=shards))


def regions(paths: Paths, _shards: int) -> dict[str, Any]:
    from pipeline.regions.params import RegionsParams
    from pipeline.regions.step import build_regions
    from pipeline.regions.vinvl import detector

    detector.load_vinvl = lambda *_, **__: Detector()
    return build_regions(paths, RegionsParams(source="vinvl"), BACKBONES, HERE)


def similarity(paths: Paths, _shards: int) -> dict[str, Any]:
    from pipeline.similarity import step
    from pipeline.similarity.step import SimilarityParams, build_similarity

    model = clip_stand_in()
    step.clip.load_clip = lambda *_, **__: model
    return build_similarity(paths, SimilarityParams(), BACKBONES, HERE)


def masks(paths: Paths, _shards: int) -> dict[str, Any]:
    from pipeline.masks.recipe import MasksParams
    from pipeline.masks.step import build_masks

    return build_masks(paths, MasksParams(), HERE)


def features(paths: Paths, _shards: int) -> dict[str, Any]:
    from pipeline.features import encoders
    from pipeline.features.params import FeaturesParams
    from pipeline.features.step import build_features

    encoder, model = sam_stand_in(), clip_stand_in()
    encoders.sam.load_sam = lambda *_, **__: encoder
    encoders.load_clip = lambda *_, **__: model
    return build_features(paths, FeaturesParams(), BACKBONES, HERE)


def shards(paths: Paths, _shards: int) -> dict[str, Any]:
    from pipeline.shards.step import ShardsParams, build_shards

    return build_shards(paths, ShardsParams(), HERE)


def verify(paths: Paths, _shards: int) -> dict[str, Any]:
    from pipeline.shards.verify import verify_shards

    return {"problems": [str(problem) for problem in verify_shards(paths.step("shards"))]}


BUILD: dict[str, Callable[[Paths, int], dict[str, Any]]] = {
    "utterances": utterances,
    "regions": regions,
    "similarity": similarity,
    "masks": masks,
    "features": features,
    "shards": shards,
    "verify": verify,
}


def peak_mib() -> int:
    """The most memory that this process has held, MiB.

    Linux's own line for it: getrusage also counts what the parent held before the program was started.
    """
    status = Path("/proc/self/status")
    if status.exists():
        line = next(line for line in status.read_text().splitlines() if line.startswith("VmHWM"))
        return int(line.split()[1]) // 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024


def main() -> None:
    """Run one step."""
    parser = argparse.ArgumentParser(prog="python -m tests.worlds.scale_steps", description=__doc__)
    parser.add_argument("step", choices=STEPS)
    parser.add_argument("root", type=Path)
    parser.add_argument("shards", type=int)
    arguments = parser.parse_args()
    start, busy = time.monotonic(), time.process_time()
    counts = BUILD[arguments.step](paths_in(arguments.root), arguments.shards)
    found = {
        "seconds": time.monotonic() - start,
        "cpu_seconds": time.process_time() - busy,
        "peak_mib": peak_mib(),
        "counts": {name: value for name, value in counts.items() if not isinstance(value, dict)},
    }
    print(json.dumps(found))


if __name__ == "__main__":
    main()
