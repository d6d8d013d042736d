"""Artists and titles as WikiArt's file names spell them, with their accents, dots and broken encodings."""

import numpy as np

_FIRST = (
    "eugène", "eugã¨ne", "anna", "jean-baptiste", "katsu", "théa", "m.c.", "vasily", "josé", "josã©", "j.m.",
    "lucía", "otto", "søren", "wilhelmina", "édith",
)  # fmt: skip
_LAST = (
    "valmont", "brandt", "de-la-tour-rouge", "ishikawa", "lindqvist", "o'hara-moss", "petrov", "müller-hain",
    "marchetti", "aguado", "van-der-wiel", "delorme", "novák", "st.-clair",
)  # fmt: skip
_LEAD = (
    "the", "study-of-the", "view-with-the", "at-the", "song-of-the", "st.-john-and-the",
    "still-life-with-the", "la-journée,-the", "dr.-gachet-s", "the-forgotten", "les-rêves-the", "unfinished",
)  # fmt: skip
_TAIL = (
    "", "", "-by-the-river", "-after-rain", "-in-provence", "-at-étretat", "-(sketch)", "-fragment",
    "-before-winter", "-of-my-father", "-no.-7",
)  # fmt: skip


def artist(rng: np.random.Generator) -> str:
    """An invented painter: "eugène-valmont"."""
    return f"{rng.choice(_FIRST)}-{rng.choice(_LAST)}"


def title(kinds: tuple[str, ...], index: int, rng: np.random.Generator) -> str:
    """A title that ends in the artwork's number, so that no two artworks of a gallery share one."""
    noun = str(rng.choice(kinds)).replace(" ", "-")
    year = f"-{rng.integers(1780, 1935)}" if rng.random() < 0.7 else ""
    end = str(rng.choice(["-{}", "-no.-{}", "-op.{}", "-plate-{}"])).format(index)
    return f"{rng.choice(_LEAD)}-{noun}{rng.choice(_TAIL)}{year}{end}"
