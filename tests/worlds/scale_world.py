"""ArtEmis at its true size, made up: the steps' time and memory can be measured without its data and weights.

    python -m tests.worlds.scale_world      # 8,003 and 80,031 artworks: a table, about 20 minutes
    python -m tests.worlds.scale_world --artworks 2000      # one size of your own

Every step is the real one and runs in a process of its own; of the backbones only the network is replaced, by
a stand-in that takes no time (`tests.worlds.scale_steps`). Pictures are small real JPEG files.
"""

import argparse
import csv
import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from pipeline.common.emotions import ALL_EMOTIONS, EMOTIONS
from pipeline.common.files import write_json
from pipeline.common.params import Paths

ARTWORKS, UTTERANCES = 80_031, 454_684
"""Of ArtEmis."""
PER_SHARD = 200
"""Artworks in a shard: 400 shards at full size."""
OFTEN = 701 / ARTWORKS
"""Share of the artworks with 41 annotations or more."""
SHARE_OF = dict(zip(ALL_EMOTIONS, (0.105, 0.17, 0.28, 0.065, 0.018, 0.055, 0.095, 0.095, 0.117), strict=True))
"""Emotions as in ArtEmis: 62 % positive, 26 % negative, 12 % something else."""
STYLES = {
    "Impressionism": 13060,
    "Realism": 10733,
    "Romanticism": 7019,
    "Expressionism": 6736,
    "Post_Impressionism": 6450,
    "Symbolism": 4528,
    "Art_Nouveau_Modern": 4334,
    "Baroque": 4240,
    "Abstract_Expressionism": 2782,
    "Northern_Renaissance": 2552,
    "Naive_Art_Primitivism": 2405,
    "Cubism": 2235,
    "Rococo": 2089,
    "Color_Field_Painting": 1615,
    "Pop_Art": 1483,
    "Ukiyo_e": 1167,
    "Fauvism": 934,
}
"""Art styles by their number of artworks in WikiArt; the smaller ones are left out."""
APOLO_ITEMS = 6_781 / ARTWORKS
STEPS = ("utterances", "regions", "similarity", "masks", "features", "shards", "verify")


@dataclass(frozen=True)
class Measured:
    """One step at one size."""

    step: str
    artworks: int
    seconds: float
    cpu_seconds: float
    """Of all its threads; close to `seconds` on one free core."""
    peak_mib: int
    counts: dict[str, Any]


def paths_in(root: Path) -> Paths:
    """Folders of a world."""
    return Paths(
        artemis=root / "artemis.csv",
        wikiart=root / "wikiart",
        apolo=root / "apolo",
        data=root / "data",
        metrics=root / "metrics",
    )


def write(root: Path, artworks: int, seed: int = 0) -> Paths:
    """Draw a csv, pictures and an APOLO release with ArtEmis's proportions for so many artworks."""
    paths = paths_in(root)
    rng = np.random.default_rng(seed)
    styles = rng.choice(list(STYLES), artworks, p=np.array(list(STYLES.values())) / sum(STYLES.values()))
    works = [(str(style), _title(number)) for number, style in enumerate(styles)]
    _write_pictures(paths.wikiart, works, rng)
    repetitions = _repetitions(artworks, rng)
    owners = np.repeat(np.arange(artworks), repetitions)
    emotions = rng.choice(ALL_EMOTIONS, len(owners), p=list(SHARE_OF.values()))
    with paths.artemis.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(("art_style", "painting", "emotion", "utterance", "repetition"))
        sentences = _sentences(len(owners), rng)
        for owner, emotion, sentence in zip(owners.tolist(), emotions.tolist(), sentences, strict=True):
            writer.writerow((*works[owner], emotion, sentence, repetitions[owner]))
    _write_apolo(paths.apolo, works, owners, emotions, rng)
    return paths


def _title(number: int) -> str:
    """A painting's name, with the dots, accents and mojibake of WikiArt's."""
    artist = ("vincent-van-gogh", "j.m.w.-turner", "eugã¨ne-boudin", "édouard-manet", "katsushika-hokusai")
    return f"{artist[number % 5]}_study-no.-{number}-{1800 + number % 150}"


def _repetitions(artworks: int, rng: np.random.Generator) -> np.ndarray:
    """Annotations of each artwork, int (N,): five or six of most, 41 or more of a few; ArtEmis's total."""
    counts = np.full(artworks, 5)
    counts[: round(OFTEN * artworks)] += 41
    more = round(artworks * UTTERANCES / ARTWORKS) - int(counts.sum())
    np.add.at(counts, rng.integers(0, artworks, more), 1)
    return rng.permutation(counts)


def _sentences(count: int, rng: np.random.Generator) -> Iterator[str]:
    """Sentences of ArtEmis's lengths from 15,000 words, the frequent ones far more often than the rare."""
    syllables = [a + b for a in "bdfglmnprst" for b in ("a", "e", "i", "o", "u", "en", "ar", "ing")]
    words = [f"{x}{y}" for x in syllables for y in ["", *syllables]] + [
        f"{x}{y}{z}" for x in syllables[:9] for y in syllables for z in syllables[:9]
    ]
    words[500:560] = [f"caf\u00e9{i}" if i % 2 else f"\u98a8{i}" for i in range(60)]
    vocabulary = np.array(words[:15_000])
    weights = 1.0 / np.arange(2, len(vocabulary) + 2)
    lengths = np.clip(rng.lognormal(2.68, 0.42, count), 3, 120).astype(int)
    for start in range(0, count, 20_000):
        part = lengths[start : start + 20_000]
        drawn = rng.choice(vocabulary, int(part.sum()), p=weights / weights.sum()).tolist()
        ends = np.cumsum(part).tolist()
        for begin, end in zip([0, *ends], ends, strict=False):
            comma = begin + (end - begin) // 2 if begin % 3 == 0 else begin
            first = " ".join(drawn[begin:comma])
            yield f"{first}, {' '.join(drawn[comma:end])}" if first else " ".join(drawn[begin:end])


def _write_pictures(wikiart: Path, works: Sequence[tuple[str, str]], rng: np.random.Generator) -> None:
    """A small JPEG for every artwork: hard links to forty files of different sizes and contents."""
    samples = wikiart.parent / "samples"
    samples.mkdir(parents=True, exist_ok=True)
    for number in range(40):
        blots = Image.fromarray(rng.integers(0, 256, (6, 5, 3), dtype=np.uint8))
        blots.resize(tuple(rng.integers(200, 401, 2).tolist())).save(samples / f"{number}.jpg")
    for style in STYLES:
        (wikiart / style).mkdir(parents=True, exist_ok=True)
    for number, (style, painting) in enumerate(works):
        os.link(samples / f"{number % 40}.jpg", wikiart / style / f"{painting}.jpg")


def _write_apolo(
    apolo: Path,
    works: Sequence[tuple[str, str]],
    owners: np.ndarray,
    emotions: np.ndarray,
    rng: np.random.Generator,
) -> None:
    """Index files for every row and an item for the share of artworks that APOLO has; maps are hard links."""
    maps = apolo / "apolo_pixel_map"
    maps.mkdir(parents=True)
    split_of = rng.choice(["train", "val", "test"], len(works), p=[0.85, 0.05, 0.10])
    rows = split_of[owners]
    for split in ("train", "val", "test"):
        records = [{"artemis_id": [row]} for row in np.flatnonzero(rows == split).tolist()]
        write_json(apolo / "artemis_index" / f"{split}_index.json", records)
    np.save(apolo / "map.npy", np.eye(8, dtype=np.uint8))
    starts = np.searchsorted(owners, np.arange(len(works) + 1))
    items = []
    for owner in rng.permutation(len(works))[: round(APOLO_ITEMS * len(works))].tolist():
        row = int(starts[owner])
        emotion = str(emotions[row])
        if emotion in EMOTIONS:
            painting = works[owner][1]
            items.append({"painting": painting, "artemis_id": [row], "split": "test" if row % 5 else "val"})
            os.link(apolo / "map.npy", maps / f"{painting}_{emotion}.npy")
    write_json(apolo / "apolo.json", items)


def measure(root: Path, step: str, artworks: int) -> Measured:
    """Run one step in a new process; its seconds and the largest memory it held."""
    command = [
        sys.executable,
        "-m",
        "tests.worlds.scale_steps",
        step,
        str(root),
        str(-(-artworks // PER_SHARD)),
    ]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    return Measured(step, artworks, **json.loads(done.stdout.splitlines()[-1]))


def table(rows: Sequence[Measured]) -> str:
    """Markdown: a line a step; time, rate per core and peak memory at each size, and the memory's growth."""
    sizes = sorted({row.artworks for row in rows})
    head = " | ".join(f"{size:,}: s | CPU s | artworks/s a core | peak MiB" for size in sizes)
    lines = [f"| step | {head} | memory |", "| --- |" + " ---: |" * (4 * len(sizes) + 1)]
    for step in dict.fromkeys(row.step for row in rows):
        here = [row for row in rows if row.step == step]
        cells = [
            f"{r.seconds:.1f} | {r.cpu_seconds:.1f} | {r.artworks / r.cpu_seconds:,.0f} | {r.peak_mib:,}"
            for r in here
        ]
        lines.append(f"| {step} | {' | '.join(cells)} | {here[-1].peak_mib / here[0].peak_mib:.2f}x |")
    return "\n".join(lines)


def main() -> None:
    """Measure every step at one or two sizes; progress on stderr, the table on stdout."""
    parser = argparse.ArgumentParser(prog="python -m tests.worlds.scale_world", description=__doc__)
    parser.add_argument("--artworks", type=int, nargs="+", default=[ARTWORKS // 10, ARTWORKS])
    parser.add_argument("--steps", nargs="+", choices=STEPS, default=STEPS, help="each needs those before it")
    parser.add_argument("--root", type=Path, help="keep the worlds here, and what is in them already")
    arguments = parser.parse_args()
    rows = []
    for artworks in arguments.artworks:
        root = Path(arguments.root or tempfile.mkdtemp(prefix="scale-")) / str(artworks)
        if not root.exists():
            print(f"drawing {artworks:,} artworks in {root}", file=sys.stderr)
            write(root, artworks)
        try:
            for step in arguments.steps:
                rows.append(measure(root, step, artworks))
                print(rows[-1], file=sys.stderr)
        finally:
            if arguments.root is None:
                shutil.rmtree(root.parent)
    print(table(rows))


if __name__ == "__main__":
    main()
