"""A small csv in each published layout, with its pictures and an APOLO.

Columns, their order, and how files are combined are as in the releases and their scripts; words are made up.
"""

import json
import unicodedata
from pathlib import Path

import numpy as np
import pandas as pd
from PIL import Image

WORKS = [
    ("Realism", "anna-mill_the-old-mill"),
    ("Realism", "anna-mill_winter.-evening"),
    ("Impressionism", "eugène-port_the-bay"),
    ("Impressionism", "eugène-port_two-boats"),
    ("Ukiyo_e", "hana_crane-in-the-snow"),
    ("Ukiyo_e", "hana_night-rain"),
]
SAID = [
    ("awe", "The sky is so wide, it makes me feel small {}."),
    ("fear", "Something dark waits at the left edge {}"),
    ("something else", "I am confused by the shapes {}"),
]
WORKER = 7


def picture(path: Path, seed: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 256, (48, 40, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(path)


def wikiart(folder: Path) -> Path:
    for number, (style, painting) in enumerate(WORKS):
        picture(folder / "wikiart" / style / f"{painting}.jpg", number)
    return folder / "wikiart"


def release_v0() -> pd.DataFrame:
    rows = [
        (style, painting, emotion, text.format(number), len(SAID))
        for number, (style, painting) in enumerate(WORKS)
        for emotion, text in SAID
    ]
    return pd.DataFrame(rows, columns=["art_style", "painting", "emotion", "utterance", "repetition"])


def contrastive() -> pd.DataFrame:
    """The rows that ArtEmis v2 collected: new words on known paintings."""
    rows = [(*WORKS[at], "sadness", f"Now it seems lonely {at}", 1, *WORKS[at - 1]) for at in range(4)] + [
        (*WORKS[5], "awe", "Now the rain seems grand", 1, *WORKS[0])
    ]
    names = ["art_style", "painting", "emotion", "utterance", "repetition"]
    return pd.DataFrame(rows, columns=[*names, "anchor_art_style", "anchor_painting"])


def combined_v2() -> pd.DataFrame:
    """As its script makes it: new rows first, names decomposed, anchors of old rows the word "nan"."""
    new, old = contrastive().assign(version="new"), release_v0().assign(version="old")
    both = pd.concat([new, old])
    for name in ("painting", "anchor_painting"):
        both[name] = [unicodedata.normalize("NFD", str(value)) for value in both[name]]
    return both


def preprocessed() -> pd.DataFrame:
    """As its script makes it for neural nets: some rows are gone, artworks of split rest come last."""
    table = release_v0()
    split = dict(zip(WORKS, ["rest", "train", "val", "test", "train", "train"], strict=True))
    table["split"] = [split[style, name] for style, name in zip(table.art_style, table.painting, strict=True)]
    table = pd.concat([table[table.split != "rest"], table[table.split == "rest"]]).drop(index=[4, 10])
    table["tokens"] = [repr(text.lower().split()) for text in table.utterance]
    table["tokens_len"] = [len(text.split()) for text in table.utterance]
    table["utterance_spelled"] = table.utterance.str.lower()
    table["tokens_encoded"] = "[1, 5, 2, 0]"
    table["emotion_label"] = 1
    return table.reset_index(drop=True)


def artelingo() -> pd.DataFrame:
    """The lite release: columns by the alphabet; some rows are of no split."""
    rows = []
    for number, (style, painting) in enumerate(WORKS):
        split = ["train", "val", "test", "train", "rest", None][number]
        rows += [
            (style, "awe", "english", painting, split, f"Such wide waters {number}"),
            (style, "contentment", "arabic", painting, split, f"منظر هادئ {number}"),
            (style, "fear", "chinese", painting, split, f"令人不安的黑暗 {number}"),
        ]
    return pd.DataFrame(rows, columns=["art_style", "emotion", "language", "painting", "split", "utterance"])


PHOTOGRAPHS = [
    ("coco_affective", "COCO_train2014_000000000009.jpg", "coco/train2014"),
    ("visual_genome_affective", "2337.jpg", "visual_genome/VG_100K"),
    ("flickr30k_affective", "2337.jpg", "flickr30k"),
    ("emotional_machines_affective", "amusement/a_001.jpg", "emotional_machines"),
    ("you_aaai_affective", "emotion_recognition_AAAI_16/fear/fear_12.jpg", "you"),
]
"""(data set, image_name, the folder that a reader unpacked it into)."""


def photographs(folder: Path) -> Path:
    for number, (_, name, where) in enumerate(PHOTOGRAPHS):
        file = name.removeprefix("emotion_recognition_AAAI_16/")
        picture(folder / "photographs" / where / file, 50 + number)
    return folder / "photographs"


def affection() -> pd.DataFrame:
    rows = [
        (
            WORKER + number,
            f"It looks calm to me {number}",
            ["contentment", "something else"][number % 2],
            *names,
        )
        for number, (*names, _) in enumerate(PHOTOGRAPHS)
    ]
    return pd.DataFrame(rows, columns=["workerid", "utterance", "emotion", "dataset", "image_name"])


def plain(folder: Path) -> pd.DataFrame:
    """image,emotion,utterance beside a flat folder of pictures."""
    for number in range(4):
        picture(folder / "photos" / f"IMG_{number}.jpg", 80 + number)
    rows = [
        (f"IMG_{number}.jpg", ["Awe", "FEAR", "something_else", "joy"][number], f"Oh {number}")
        for number in range(4)
    ]
    return pd.DataFrame(rows, columns=["image", "emotion", "utterance"])


def apolo(folder: Path) -> Path:
    """An APOLO whose ids are rows of `release_v0`."""
    out = folder / "apolo"
    (out / "apolo_pixel_map").mkdir(parents=True)
    table = release_v0()
    records = []
    for row in table[table.emotion != "something else"].itertuples():
        np.save(out / "apolo_pixel_map" / f"{row.painting}_{row.emotion}.npy", np.ones((4, 4), np.uint8))
        records.append({"painting": row.painting, "artemis_id": [row.Index], "split": "test"})
    (out / "apolo.json").write_text(json.dumps(records), encoding="utf-8")
    return out
