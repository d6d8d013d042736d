"""Data: the ArtEmis csv, the WikiArt pictures and the APOLO release, by samples that take seconds."""

import itertools
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from pipeline.backbones.weights_file import sniff
from pipeline.common.emotions import EMOTIONS
from pipeline.common.errors import UserError
from pipeline.doctor.finding import Check, Context, Finding, NotChecked, Status
from pipeline.releases import apolo, apolo_arrays, artemis, wikiart
from pipeline.releases.apolo_json import read_records
from pipeline.releases.artemis import Annotation, Reject
from pipeline.releases.names import shown
from pipeline.releases.picture_folder import PictureFolder
from pipeline.releases.wikiart import BadImage

ROWS = 5000
"""Of the csv, read by its own reader."""
DECODED = 12
"""Pictures decoded, spread over those rows."""
MAPS = 25
"""APOLO masks and boxes opened."""
REJECTS = 0.05
"""Share of unusable rows that is worth a word; ArtEmis itself has almost none."""
ARTEMIS = (
    "ArtEmis is given out for a form at artemisdataset.org (code: github.com/optas/artemis); "
    "without it: python cli.py gallery data/gallery"
)
WIKIART = "WikiArt with the names that ArtEmis uses is wikiart.zip, linked in github.com/cs-chan/ArtGAN"
APOLO = "APOLO is linked in the README of github.com/Tianwei3989/apolo"
KNOWN_BAD = (
    ("Baroque", "rembrandt_woman-standing-with-raised-hands"),
    ("Post_Impressionism", "vincent-van-gogh_l-arlesienne-portrait-of-madame-ginoux-1890"),
)
"""Damaged in the official wikiart.zip (ArtGAN issue 14): two expected rejects."""


def _rows(context: Context) -> list[Annotation | Reject]:
    """The csv's first rows. Raises `NotChecked` when there are none to be had."""
    params = context.section("utterances")
    try:
        return list(itertools.islice(artemis.read_csv(context.paths.artemis, params.max_chars, params), ROWS))
    except UserError:
        raise NotChecked("the ArtEmis csv cannot be read") from None


def _artemis(context: Context) -> Iterator[Finding]:
    path = context.paths.artemis
    kind, detail = sniff(path)
    if kind not in ("unknown", "empty"):  # a csv is unknown to `sniff`; the csv reader speaks of an empty one
        found = f"{path} {detail or f'is a {kind} file'}"
        yield Finding("artemis", "fail", found, f"set paths.artemis. {ARTEMIS}")
        return
    params = context.section("utterances")
    try:
        next(artemis.read_csv(path, 1, params), None)
    except UserError as error:
        yield Finding("artemis", "fail", str(error), ARTEMIS)
        return
    rows = _rows(context)
    rejects = [row for row in rows if isinstance(row, Reject)]
    if len(rejects) == len(rows):
        first = f", the first because {rejects[0].reason}: {rejects[0].detail}" if rejects else ""
        yield Finding(
            "artemis", "fail", f"none of the first {len(rows)} rows of {path} can be used{first}", ARTEMIS
        )
    elif len(rejects) > REJECTS * len(rows):
        reasons = ", ".join(f"{why} {n}" for why, n in Counter(r.reason for r in rejects).most_common(3))
        found = f"{len(rejects)} of the first {len(rows)} rows of {path} cannot be used ({reasons})"
        example = f"row {rejects[0].row}: {rejects[0].detail}"
        yield Finding("artemis", "warn", found, f"they are left out, with the reason on record; {example}")
    else:
        yield Finding(
            "artemis", "ok", f"{len(rows) - len(rejects)} of the first {len(rows)} rows can be used"
        )


def _wikiart(context: Context) -> Iterator[Finding]:
    folder = context.paths.wikiart
    if not folder.is_dir():
        zips = [path.name for path in folder.parent.glob("*.zip")] if folder.parent.is_dir() else []
        way_out = f"unpack {zips[0]}" if zips else f"set paths.wikiart. {WIKIART}"
        yield Finding("wikiart", "fail", f"{folder} is no folder", way_out)
        return
    works = dict.fromkeys(
        (row.art_style, row.painting, row.image) for row in _rows(context) if isinstance(row, Annotation)
    )
    if not works:
        raise NotChecked("the ArtEmis csv has no usable row")
    found: list[Path] = []
    missing: list[str] = []
    pictures = PictureFolder(folder)
    for style, painting, image in works:
        try:
            found.append(pictures.find(style, painting, image))
        except BadImage:
            missing.append(image or f"{style}/{painting}")
    if not found:
        yield _no_picture(folder, next(iter(works)))
        return
    if missing:
        part = (
            f"{len(missing)} of {len(works)} artworks have no picture in {folder}, for example {missing[0]}"
        )
        yield Finding("wikiart", "warn", part, "they are left out, with the reason on record")
    yield from _decode(folder, found, context.section("utterances").max_pixels)
    yield from _known_bad(folder)


def _no_picture(folder: Path, work: tuple[str, str, str]) -> Finding:
    """No artwork was found: perhaps the folder is one level off."""
    style, painting, image = work
    if image:
        looked = f"{folder} has no {image}, nor any other picture asked for, nor has a folder in it"
        return Finding("wikiart", "fail", looked, "set paths.wikiart to the folder of the csv's pictures")
    looked = f"{folder / style / painting}.jpg does not exist, nor any other picture asked for"
    nested = next((path.parent for path in sorted(folder.glob(f"*/{style}")) if path.is_dir()), None)
    if nested is not None:
        return Finding(
            "wikiart", "fail", looked, f"the styles lie one folder deeper: set paths.wikiart to {nested}"
        )
    if folder.name == style:
        return Finding("wikiart", "fail", looked, f"that is one style: set paths.wikiart to {folder.parent}")
    if any(folder.glob("*.jpg")):
        return Finding("wikiart", "fail", looked, f"sort the pictures into ART_STYLE folders. {WIKIART}")
    return Finding("wikiart", "fail", looked, f"set paths.wikiart. {WIKIART}")


def _decode(folder: Path, found: list[Path], max_pixels: int) -> Iterator[Finding]:
    """Decode pictures spread over those found."""
    chosen = found[:: max(1, len(found) // DECODED)][:DECODED]
    bad: list[BadImage] = []
    for path in chosen:
        try:
            wikiart.verify_picture(path, max_pixels)
        except BadImage as error:
            bad.append(error)
    styles = len({path.parent for path in found})
    if len(bad) == len(chosen):
        found_what = f"none of {len(chosen)} pictures can be decoded, for example {bad[0]}"
        yield Finding("wikiart", "fail", found_what, f"fetch them again. {WIKIART}")
    elif bad:
        found_what = f"{len(bad)} of {len(chosen)} pictures cannot be decoded, for example {bad[0]}"
        yield Finding("wikiart", "warn", found_what, "such artworks are left out, with the reason on record")
    else:
        found_what = f"{len(found)} pictures of {styles} styles looked up, {len(chosen)} decoded, in {folder}"
        yield Finding("wikiart", "ok", found_what)


def _known_bad(folder: Path) -> Iterator[Finding]:
    for style, painting in KNOWN_BAD:
        path = folder / style / f"{painting}.jpg"
        if not path.is_file():
            continue
        try:
            wikiart.verify_picture(path)
        except BadImage as error:
            known = f"{style}/{painting}.jpg is {error.reason}, as in the official zip: one expected reject"
            yield Finding("wikiart", "ok", known)


def _apolo(context: Context) -> Iterator[Finding]:
    folder, file = context.paths.apolo, context.paths.apolo / "apolo.json"
    if not file.is_file():
        found = f"{file} does not exist: steps up to training run, scoring does not"
        yield Finding("apolo", "warn", found, f"set paths.apolo. {APOLO}")
    else:
        yield from _items(folder, file)
    try:
        index = apolo.load_index(folder)
    except UserError as error:
        yield Finding("apolo", "fail", str(error), APOLO)
    else:
        if index is None and file.is_file():
            found = f"{folder / apolo.INDEX} has no index files: splits are drawn as in ArtEmis"
            yield Finding("apolo", "warn", found, f"put train, val and test_index.json there. {APOLO}")
    yield from _boxes(context)


def _items(folder: Path, file: Path) -> Iterator[Finding]:
    records = [r for r in read_records(file) if isinstance(r, dict) and r.get("painting")]
    splits = Counter(str(record.get("split"))[:20] for record in records)
    maps = folder / apolo_arrays.MAPS
    if not records:
        yield Finding("apolo", "fail", f"{file} has no record with a painting", APOLO)
    elif not maps.is_dir():
        zipped = folder / f"{apolo_arrays.MAPS}.zip"
        way_out = f"unpack {zipped}" if zipped.is_file() else APOLO
        yield Finding("apolo", "fail", f"{maps} is no folder", way_out)
    else:
        chosen = records[:: max(1, len(records) // MAPS)][:MAPS]
        lost = [r["painting"] for r in chosen if not _has_map(folder, str(r["painting"]))]
        counts = ", ".join(f"{split} {count}" for split, count in sorted(splits.most_common(5)))
        found = f"{len(records)} items ({counts}); {len(chosen) - len(lost)} of {len(chosen)} have a mask"
        if len(lost) == len(chosen):
            yield Finding("apolo", "fail", found, f"{maps} must hold PAINTING_EMOTION.npy. {APOLO}")
        elif lost:
            yield Finding(
                "apolo",
                "warn",
                found,
                f"items without one are left out, for example {shown(str(lost[0]))}",
            )
        else:
            yield Finding("apolo", "ok", found)


def _has_map(folder: Path, painting: str) -> bool:
    return any(apolo_arrays.map_path(folder, painting, emotion) for emotion in EMOTIONS)


def _boxes(context: Context) -> Iterator[Finding]:
    """APOLO's released boxes, where regions come from them."""
    if context.region_source != "apolo":
        return
    folder = context.paths.apolo / apolo_arrays.BOXES
    files = sorted(itertools.islice(folder.glob("*.npy"), 10 * MAPS)) if folder.is_dir() else []
    if not files:
        zipped = folder.with_suffix(".zip")
        way_out = f"unpack {zipped}" if zipped.is_file() else f"{APOLO}; or set regions.source to vinvl"
        yield Finding("apolo boxes", "fail", f"{folder} holds no .npy file", way_out)
        return
    bad = []
    for path in files[:MAPS]:
        try:
            apolo_arrays.load_boxes(path)
        except apolo_arrays.BadArray as error:
            bad.append(str(error))
    status: Status = "fail" if len(bad) == len(files[:MAPS]) else "warn" if bad else "ok"
    found = f"{len(files[:MAPS]) - len(bad)} of {len(files[:MAPS])} opened in {folder} can be used"
    way_out = f"for example {bad[0]}" if bad else ""
    yield Finding("apolo boxes", status, found, way_out)


CHECKS: dict[str, Check] = {"artemis": _artemis, "wikiart": _wikiart, "apolo": _apolo}
