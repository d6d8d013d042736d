"""Gallery scenes for pretraining, drawn in parallel and made small where they are drawn.

A scene with all its masks weighs several megabytes; a `Canvas` is one small picture, one map of who owns
which pixel, and a few words. Seeds of pretraining start at 1,000,000, those of galleries lie below: no
backbone ever sees the pictures that it is later used on. Imports no torch, so that worker processes start
quickly.
"""

import functools
import multiprocessing
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from typing import TypeVar

import cv2
import numpy as np

from pipeline.common.emotions import EMOTIONS, prompt
from pipeline.common.geometry import frame_size
from pipeline.common.threads import cores
from pipeline.gallery.scenes.scene import scene
from pipeline.gallery.words import grammar
from pipeline.gallery.world import KINDS, SCENERY, Look, Motif, Scene

FIRST_SEED = 1_000_000
CANVAS = 448
"""Side of a canvas, pixels: the picture's long side is resized to it, the rest is padding, as in SAM."""
OWNERS = 256
"""Side of the owner map, pixels; the same frame as the canvas."""
CLASSES = (*KINDS, *SCENERY, "view")
"""What a crop can show: a kind of motif, a part of the scenery, or the whole picture."""
VIEW = len(CLASSES) - 1
FIRST_SCENERY = len(KINDS)
SCENERY_OWNER = 128
"""Owner numbers from here on are `SCENERY` by index; below are motifs from 1; 0 is nobody."""
TEXTS = 8
"""Sentences per crop subject."""

T = TypeVar("T")


@dataclass(frozen=True)
class Subject:
    """Something in a picture that a crop can show and words can name."""

    label: int
    """Into `CLASSES`."""
    box: tuple[float, float, float, float]
    """xyxy, pixels of the canvas."""
    look: tuple[str, str, str]
    """Colour, state and size of a motif; empty strings for what has no look."""
    texts: tuple[str, ...]
    """`TEXTS` sentences that name it, the first the plainest."""


@dataclass(frozen=True)
class Canvas:
    """One scene, small."""

    image: np.ndarray
    """uint8 (CANVAS, CANVAS, 3) RGB, black where padded."""
    size: tuple[int, int]
    """(height, width) of the picture in the canvas, pixels."""
    owner: np.ndarray
    """uint8 (OWNERS, OWNERS): 0 nobody or padding, i + 1 for motif i, `SCENERY_OWNER` + s for scenery."""
    motifs: tuple[Subject, ...]
    scenery: tuple[Subject, ...]
    """Boxes that show one part of the scenery and hardly any motif."""
    view: Subject


def load_scenes(
    seed: int, count: int, workers: int, small: Callable[[Scene, int], T], first: int = 0
) -> list[T]:
    """`small(scene, index)` of the scenes first .. count - 1 of a seed, in this order whatever `workers` is.

    Args:
        seed: at least 1,000,000.
        count: number of scenes, those before `first` included.
        workers: processes that draw; 0 is one per core.
        small: picklable; runs where the scene is drawn, so that only what it returns travels.
        first: index of the first that is drawn.

    Raises:
        ValueError: a seed that a gallery may have.
    """
    if seed < FIRST_SEED:
        raise ValueError(f"seed {seed} is a gallery's; pretraining uses seeds from {FIRST_SEED}")
    draw = functools.partial(_draw, seed=seed, small=small)
    workers = workers or cores()
    if workers == 1:
        return [draw(index) for index in range(first, count)]
    context = multiprocessing.get_context("spawn")  # the parent may already hold a GPU
    with ProcessPoolExecutor(
        workers, mp_context=context, initializer=cv2.setNumThreads, initargs=(1,)
    ) as pool:
        return list(pool.map(draw, range(first, count), chunksize=16))


def _draw(index: int, seed: int, small: Callable[[Scene, int], T]) -> T:
    return small(scene(seed, index), index)


def load_canvases(seed: int, count: int, workers: int, first: int = 0) -> list[Canvas]:
    """The canvases of a seed's scenes first .. count - 1; the words follow from seed and index too."""
    return load_scenes(seed, count, workers, functools.partial(to_canvas, seed=seed), first)


def to_canvas(drawn: Scene, index: int, seed: int) -> Canvas:
    """Make a scene small and put words to it."""
    rng = np.random.default_rng([seed, index, 1])
    full_height, full_width = drawn.image.shape[:2]
    height, width = frame_size(full_height, full_width, CANVAS)
    image = np.zeros((CANVAS, CANVAS, 3), np.uint8)
    image[:height, :width] = cv2.resize(drawn.image, (width, height), interpolation=cv2.INTER_AREA)
    owner = _owners(drawn)
    scale = np.array([width / full_width, height / full_height] * 2)
    motifs = tuple(
        Subject(
            list(KINDS).index(motif.kind),
            tuple((np.array(motif.box) * scale).tolist()),
            (motif.look.colour, motif.look.state, motif.look.size),
            motif_texts(motif, rng),
        )
        for motif in drawn.motifs
    )
    whole = (0.0, 0.0, float(width), float(height))
    view = Subject(VIEW, whole, ("", "", ""), tuple(_about_all(rng) for _ in range(TEXTS)))
    return Canvas(image, (height, width), owner, motifs, _scenery_crops(owner, (height, width), rng), view)


def _owners(drawn: Scene) -> np.ndarray:
    """The owner map of a scene, by nearest neighbour."""
    full_height, full_width = drawn.image.shape[:2]
    full = np.zeros((full_height, full_width), np.uint8)
    for name, mask in drawn.scenery.items():
        full[mask] = SCENERY_OWNER + SCENERY.index(name)
    for number, motif in enumerate(drawn.motifs, 1):
        full[motif.mask] = number
    height, width = frame_size(full_height, full_width, OWNERS)
    owner = np.zeros((OWNERS, OWNERS), np.uint8)
    owner[:height, :width] = cv2.resize(full, (width, height), interpolation=cv2.INTER_NEAREST_EXACT)
    return owner


def _scenery_crops(owner: np.ndarray, size: tuple[int, int], rng: np.random.Generator) -> tuple[Subject, ...]:
    """Random boxes of which one part of the scenery owns at least 0.6 and motifs at most 0.15."""
    ratio = OWNERS / CANVAS
    height, width = size
    found = []
    for _ in range(24):
        w, h = rng.uniform(0.1, 0.5, 2) * max(size)
        if w > width or h > height:
            continue
        x, y = rng.uniform(0, width - w), rng.uniform(0, height - h)
        part = owner[int(y * ratio) : int((y + h) * ratio) + 1, int(x * ratio) : int((x + w) * ratio) + 1]
        counts = np.bincount(part.ravel(), minlength=256) / part.size
        most = int(counts[SCENERY_OWNER:].argmax())
        if counts[SCENERY_OWNER + most] >= 0.6 and counts[1:SCENERY_OWNER].sum() <= 0.15:
            texts = tuple(_pick(_SCENERY_TEXTS, rng).format(SCENERY[most]) for _ in range(TEXTS))
            box = (float(x), float(y), float(x + w), float(y + h))
            found.append(Subject(FIRST_SCENERY + most, box, ("", "", ""), texts))
    return tuple(found[:4])


_SCENERY_TEXTS = (
    "the {}",
    "a piece of the {}",
    "there is only the {} here",
    "i see nothing but the {}",
    "the {} in the background of this painting",
)
_NAMING = (
    "{a}",
    "{a} in a painting",
    "there is {a} in this picture",
    "i see {a} standing there",
    "the artist painted {a}",
    "i notice {a} and nothing else",
)


def _pick(options: tuple[str, ...], rng: np.random.Generator) -> str:
    return options[int(rng.integers(len(options)))]


def motif_texts(motif: Motif, rng: np.random.Generator) -> tuple[str, ...]:
    """`TEXTS` sentences that name a motif: its bare noun, plain namings, and what people say about it."""
    texts = [KINDS[motif.kind].phrase(motif.look, ())]
    texts += [naming(motif.kind, motif.look, rng) for _ in range(3 if motif.emotions else TEXTS - 1)]
    while len(texts) < TEXTS:
        emotion = motif.emotions[int(rng.integers(len(motif.emotions)))]
        texts.append(grammar.utterance(motif, emotion, rng))
    return tuple(texts)


def naming(kind: str, look: Look, rng: np.random.Generator) -> str:
    """A motif named without a feeling: "there is a crooked red house in this picture"."""
    return _pick(_NAMING, rng).format(a=grammar.noun_phrase(kind, look, rng))


def _about_all(rng: np.random.Generator) -> str:
    return grammar.disagreement(EMOTIONS[int(rng.integers(len(EMOTIONS)))], rng)


def corpus(seed: int, count: int) -> list[str]:
    """Sentences to learn a tokenizer from: every kind and emotion in turn, and EmoSEM's eight prompts."""
    rng = np.random.default_rng([seed, 2])
    nothing = np.zeros((1, 1), np.bool_)
    sentences: list[str] = []
    while len(sentences) < count:
        for kind in KINDS.values():
            size = ("small", "large", "")[int(rng.integers(3))]
            look = Look(_pick(kind.colours, rng), _pick(kind.states, rng), size)
            phrase = grammar.noun_phrase(kind.name, look, rng)
            motif = Motif(kind.name, kind.emotions, phrase, nothing, (0, 0, 1, 1), look)
            sentences.append(naming(kind.name, look, rng))
            sentences += [grammar.utterance(motif, emotion, rng) for emotion in kind.emotions]
        sentences += [_pick(_SCENERY_TEXTS, rng).format(name) for name in SCENERY]
        sentences += [_about_all(rng) for _ in range(4)]
        sentences += [prompt(emotion) for emotion in EMOTIONS]
    return sentences
