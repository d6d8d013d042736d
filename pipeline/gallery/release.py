"""The gallery on disk: an ArtEmis csv, a WikiArt folder and an APOLO release, each laid out as released.

    OUT/artemis/artemis_dataset_release_v0.csv                    one row per utterance
    OUT/wikiart/ART_STYLE/ARTIST_TITLE.jpg
    OUT/apolo/apolo.json                                          painting, artemis_id, split
    OUT/apolo/artemis_index/{train,val,test}_index.json           artemis_id, by (painting, emotion)
    OUT/apolo/apolo_pixel_map/ARTIST_TITLE_EMOTION.npy            uint8 0/1 (H, W): the truth
    OUT/apolo/arts_features_vinvl_bbox_col/ARTIST_TITLE.npy       float32 (N, 4), normalised xyxy
    OUT/apolo/motifs/motifs.parquet                               in val and test artworks: `motif_table`
    OUT/gallery.json, and one in each of these                    the mark: drawn, and with which params

The same params give the same bytes, whatever the number of processes.
"""

import csv
import io
import json
import multiprocessing
import shutil
from collections import Counter
from collections.abc import Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from PIL import Image

from pipeline.common.emotions import EMOTIONS, SOMETHING_ELSE
from pipeline.common.errors import UserError
from pipeline.common.files import write_bytes
from pipeline.common.fingerprint import as_json
from pipeline.common.lock import lock_file, writes
from pipeline.common.progress import Meter
from pipeline.common.tars import npy_bytes
from pipeline.common.threads import cores
from pipeline.gallery.motif_table import motif_rows, write_motifs
from pipeline.gallery.scenes.scene import scene
from pipeline.gallery.words import grammar
from pipeline.gallery.world import GalleryParams, Scene
from pipeline.releases import apolo, apolo_arrays
from pipeline.releases.artemis import COLUMNS
from pipeline.releases.gallery_mark import MARK, read_mark, write_mark

CSV_NAME = "artemis_dataset_release_v0.csv"
_FOLDERS = ("artemis", "wikiart", "apolo")
_WORDS, _BOXES, _SPLIT = 1, 2, 3
"""Streams of random numbers, so that a change in one does not shift another."""
_TOO_FEW_FOR_PROCESSES = 24
"""Fewer artworks than this are drawn sooner than worker processes start."""


@dataclass(frozen=True)
class _Drawn:
    """What the tables need of one artwork; its picture, boxes and masks are already written."""

    style: str
    painting: str
    said: tuple[tuple[str, str], ...]
    """(emotion, utterance) per annotator."""
    truths: tuple[str, ...]
    """Emotions that something in the picture evokes, and that an annotator named."""
    num_boxes: int
    motifs: tuple[dict[str, Any], ...]
    """Rows of `motif_table`; of train artworks none."""


@writes(lambda out, *_: [out])
def draw_gallery(out: Path, params: GalleryParams) -> dict[str, Any]:
    """Draw `params.artworks` artworks and write the three releases under `out`; returns counts.

    A gallery that is already there is replaced. Raises `UserError` when `out` holds anything else.
    """
    _clear(out)
    for folder in (out, *(out / name for name in _FOLDERS)):
        write_mark(folder, as_json(params))
    splits = _splits(params)
    draw = partial(_draw, out=out, params=params, splits=splits)
    drawn = list(_mapped(draw, params.artworks))
    names = Counter(artwork.painting for artwork in drawn)
    if len(names) != len(drawn):
        raise AssertionError(f"two artworks share a name: {names.most_common(1)[0][0]}")
    records = _write_csv(out / "artemis" / CSV_NAME, drawn)
    items = _write_apolo(out / "apolo", drawn, splits, records)
    write_motifs(out / "apolo", [row for artwork in drawn for row in artwork.motifs])
    emotions = Counter(emotion for artwork in drawn for emotion, _ in artwork.said)
    return {
        "artworks": len(drawn),
        "utterances": emotions.total(),
        "distinct_utterances": len({text for artwork in drawn for _, text in artwork.said}),
        "emotions": emotions,
        "splits": Counter(splits),
        "apolo_items": items,
        "boxes_per_artwork": round(sum(artwork.num_boxes for artwork in drawn) / len(drawn), 1),
    }


def _clear(out: Path) -> None:
    """Remove an older gallery from `out`; refuse a folder with other things, or a real release, in it."""
    if out.exists() and not out.is_dir():
        raise UserError(f"{out} is a file; name a folder for the gallery")
    own = lock_file(out)  # it lies inside where the folder above may not be written to
    others = out.is_dir() and any(path.resolve() != own for path in out.iterdir())
    if others and read_mark(out) is None:
        raise UserError(
            f"{out} is not empty and holds no {MARK} of a gallery; name an empty folder for the gallery"
        )
    for name in _FOLDERS:
        if (out / name).is_dir() and any((out / name).iterdir()) and read_mark(out / name) is None:
            raise UserError(f"{out / name} has no {MARK} of a gallery and may be real; move it away first")
    for name in _FOLDERS:
        _remove(out / name)


def _remove(folder: Path) -> None:
    """Remove a release, its mark last: a removal that is killed leaves no folder that looks real."""
    for path in folder.iterdir() if folder.is_dir() else ():
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path, ignore_errors=True)
        elif path.name != MARK:
            path.unlink(missing_ok=True)
    shutil.rmtree(folder, ignore_errors=True)


def _splits(params: GalleryParams) -> list[str]:
    """Split of each artwork: a random val and test share, at least one of each where there are three."""
    count = params.artworks
    least = 1 if count >= 3 else 0
    num_val = max(least, round(params.val_share * count))
    num_test = max(least, round(params.test_share * count))
    splits = ["train"] * count
    order = np.random.default_rng([params.seed, _SPLIT]).permutation(count)
    for position, index in enumerate(order[: num_val + num_test]):
        splits[index] = "val" if position < num_val else "test"
    return splits


def _mapped(draw: Any, count: int) -> Iterator[_Drawn]:
    """`draw` over 0..count-1 in order, on every core this process may use."""
    workers = min(cores(), count)
    meter = Meter("gallery", count, unit="artwork")
    if workers == 1 or count < _TOO_FEW_FOR_PROCESSES:
        yield from _counted(map(draw, range(count)), meter)
        return
    # spawned, not forked: OpenCV's thread pool does not survive a fork
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(workers, context, initializer=cv2.setNumThreads, initargs=(1,)) as pool:
        yield from _counted(pool.map(draw, range(count), chunksize=8), meter)


def _counted(drawn: Iterable[_Drawn], meter: Meter) -> Iterator[_Drawn]:
    for each in drawn:
        meter.add()
        yield each


def _draw(index: int, out: Path, params: GalleryParams, splits: list[str]) -> _Drawn:
    """Draw artwork `index`, write its picture, boxes and (val, test) truth masks."""
    world = scene(params.seed, index, params)
    painting = f"{world.artist}_{world.title}"
    said = _annotate(world, np.random.default_rng([params.seed, _WORDS, index]), params)
    boxes = proposals(world, np.random.default_rng([params.seed, _BOXES, index]), params)
    buffer = io.BytesIO()
    Image.fromarray(world.image).save(buffer, format="JPEG", quality=params.jpeg_quality, subsampling=0)
    write_bytes(out / "wikiart" / world.style / f"{painting}.jpg", buffer.getvalue())
    # the release spells mojibake names plainly here, and only here
    boxes_path = out / "apolo" / apolo_arrays.BOXES / f"{apolo_arrays.without_mojibake(painting)}.npy"
    write_bytes(boxes_path, npy_bytes(boxes))
    named = {emotion for emotion, _ in said}
    truths = tuple(e for e in EMOTIONS if e in named and any(e in motif.emotions for motif in world.motifs))
    motifs: list[dict[str, Any]] = []
    if splits[index] != "train":
        motifs = motif_rows(painting, world)
        for emotion in truths:
            path = out / "apolo" / apolo_arrays.MAPS / f"{painting}_{emotion}.npy"
            write_bytes(path, npy_bytes(truth(world, emotion).astype(np.uint8)))
    return _Drawn(world.style, painting, said, truths, len(boxes), tuple(motifs))


def truth(world: Scene, emotion: str) -> np.ndarray:
    """What evokes `emotion` in a scene, bool (H, W): the visible pixels of every motif that does."""
    inside = np.zeros(world.image.shape[:2], dtype=bool)
    for motif in world.motifs:
        if emotion in motif.emotions:
            inside |= motif.mask
    return inside


def _annotate(world: Scene, rng: np.random.Generator, params: GalleryParams) -> tuple[tuple[str, str], ...]:
    """(emotion, utterance) of each annotator, all different.

    Most name the feeling of one evoking motif. Some answer "something else". Some disagree: they name an
    emotion that nothing in the picture evokes, and speak of the whole, so no truth mask ever rests on them.
    """
    evoking = [motif for motif in world.motifs if motif.emotions]
    evoked = {emotion for motif in evoking for emotion in motif.emotions}
    strange = [emotion for emotion in EMOTIONS if emotion not in evoked]
    count = int(rng.integers(params.least_annotators, params.most_annotators + 1))
    said: dict[tuple[str, str], None] = {}
    while len(said) < count:
        chance = rng.random()
        if chance < params.something_else:
            said[SOMETHING_ELSE, grammar.something_else(world, rng)] = None
        elif chance < params.something_else + params.disagreement and strange:
            emotion = strange[int(rng.integers(len(strange)))]
            said[emotion, grammar.disagreement(emotion, rng)] = None
        else:
            motif = evoking[int(rng.integers(len(evoking)))]
            emotion = motif.emotions[int(rng.integers(len(motif.emotions)))]
            said[emotion, grammar.utterance(motif, emotion, rng)] = None
    return tuple(said)


def proposals(world: Scene, rng: np.random.Generator, params: GalleryParams) -> np.ndarray:
    """What a detector might propose: float32 (N, 4) xyxy, normalised to [0, 1], in random order.

    Every motif's box with its edges jittered, the boxes of the scenery, and boxes of nothing in particular.
    """
    height, width = world.image.shape[:2]
    size = np.array([width, height, width, height], dtype=np.float64)
    boxes = [motif.box / size + _jitter(motif.box / size, rng, params.box_jitter) for motif in world.motifs]
    for mask in world.scenery.values():
        rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
        if len(rows):
            boxes.append(np.array([columns[0], rows[0], columns[-1] + 1, rows[-1] + 1]) / size)
    for _ in range(params.noise_boxes):
        extent = rng.uniform(0.1, 0.7, 2)
        corner = rng.uniform(0, 1 - extent)
        boxes.append(np.concatenate([corner, corner + extent]))
    return rng.permutation(np.clip(np.stack(boxes), 0.0, 1.0)).astype(np.float32)


def _jitter(box: np.ndarray, rng: np.random.Generator, share: float) -> np.ndarray:
    """Offsets of a box's four edges, up to `share` of its width or height."""
    extent = np.array([box[2] - box[0], box[3] - box[1]])
    return rng.uniform(-share, share, 4) * np.tile(extent, 2)


def _write_csv(path: Path, drawn: list[_Drawn]) -> list[dict[str, list[int]]]:
    """The ArtEmis csv; returns for each artwork emotion -> the ids (row numbers) that name it."""
    text = io.StringIO(newline="")
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(COLUMNS)
    ids: list[dict[str, list[int]]] = []
    row = 0
    for artwork in drawn:
        by_emotion: dict[str, list[int]] = {}
        for emotion, utterance in artwork.said:
            writer.writerow([artwork.style, artwork.painting, emotion, utterance, len(artwork.said)])
            by_emotion.setdefault(emotion, []).append(row)
            row += 1
        ids.append(by_emotion)
    write_bytes(path, text.getvalue().encode())
    return ids


def _write_apolo(
    folder: Path, drawn: list[_Drawn], splits: list[str], ids: list[dict[str, list[int]]]
) -> dict[str, int]:
    """apolo.json and the index files; returns the number of items by split.

    As in the release, the index files group ids by (painting, emotion) and leave "something else" out.
    """
    items = []
    indices: dict[str, list[dict[str, list[int]]]] = {"train": [], "val": [], "test": []}
    for artwork, split, by_emotion in zip(drawn, splits, ids, strict=True):
        indices[split] += [{"artemis_id": by_emotion[e]} for e in EMOTIONS if e in by_emotion]
        if split != "train":
            items += [
                {"painting": artwork.painting, "artemis_id": by_emotion[emotion], "split": split}
                for emotion in artwork.truths
            ]
    for split, index in indices.items():
        write_bytes(folder / apolo.INDEX / f"{split}_index.json", json.dumps(index).encode())
    write_bytes(folder / "apolo.json", (json.dumps(items, indent=1) + "\n").encode())
    return Counter(str(item["split"]) for item in items)
