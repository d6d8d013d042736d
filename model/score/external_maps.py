"""Anyone's maps and explanations by the APOLO protocol: how every other method gets its row.

Nothing is silently scored or left out: every record of apolo.json, every map and every line of explanations
is a row with what became of it (`external_rows`), and the counts on the screen are counts of those rows.
"""

import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from model.maps.method import Method
from model.score.explanations import (
    MethodExplanations,
    ReferenceItems,
    begin_texts,
    score_explanations,
)
from model.score.external_judges import find_pictures, open_judges
from model.score.external_masks import MapNotes, kept_items, part_of, score_submitted_maps
from model.score.external_rows import Submission, explained, find_styles, make_rows
from model.score.items import ReleasedItems, describe_release, item_name, read_released_items
from model.score.motifs.judge import open_motif_judge
from model.score.named_maps import NamedMaps, open_maps
from model.score.named_texts import NamedTexts, open_texts
from model.score.params import ScoreParams
from model.score.score_masks import MapTable
from model.score.scores import Scores, find_draws
from model.score.statistics.bootstrap import summarise
from model.score.statistics.cells import score_cells
from pipeline.backbones.params import BackbonesParams
from pipeline.common.errors import UserError
from pipeline.common.fingerprint import as_json
from pipeline.common.params import Paths
from pipeline.releases.apolo import ApoloItem
from pipeline.releases.gallery_mark import read_mark
from pipeline.releases.source import PLAIN, Source


@dataclass(frozen=True)
class Files:
    """Where one method's results lie; none, one or both."""

    maps: Path | None = None
    """Folder, or WESD's test_result.json, see `open_maps`."""
    explanations: Path | None = None
    """See `open_texts`."""

    def __bool__(self) -> bool:
        return self.maps is not None or self.explanations is not None


@dataclass(frozen=True)
class ExternalScores:
    """What was found."""

    report: dict[str, Any]
    """See `score_external_maps`."""
    rows: list[dict[str, Any]]
    """One per method and record, and one per file or line that belongs to none, see `external_rows`."""


def score_external_maps(
    files: Files,
    apolo: Path,
    split: str,
    paths: Paths,
    params: ScoreParams,
    *,
    allow_missing: bool = False,
    against: Files | None = None,
    source: Source = PLAIN,
    artemis: Path | None = None,
    backbones: BackbonesParams | None = None,
) -> ExternalScores:
    """Score anyone's maps (any size, any range) and explanations by the APOLO protocol; masks also at the
    threshold that suits a method's maps of val items (``val_items`` of them) best.

    Args:
        files: the method's maps, explanations or both.
        apolo: the APOLO release.
        split: APOLO's, val or test.
        paths: where the ArtEmis csv, pictures and the emotion classifier lie, if anywhere.
        params: the protocol, and the bootstrap.
        allow_missing: leave out items that a method does not answer, for all; rows say how many.
        against: a second method, on the same items: paired tests.
        source, artemis: how an ArtEmis csv is read, and the csv; see `read_released_items`.
        backbones: the CLIP of CLIPScore where the params name none, and the device.

    Returns:
        ``rows``, one per method; ``statistics``, see `bootstrap.summarise`; ``counts``, see `make_rows`;
        ``absent``, metrics that could not be run. And of the first method by name: ``missing`` (no map),
        ``extra`` (maps of no item), ``duplicates`` (second maps), ``flagged`` (scored, but they look
        transposed) and ``problems`` (what could not be used).

    Raises:
        UserError: files or the release cannot be read, or nothing that was handed in is of an item.
    """
    entries = _open([files, *([against] if against else [])])
    released = read_released_items(apolo, split, paths, source, artemis)
    _check_names(entries, released)
    masks, sweeps, notes = score_submitted_maps(entries, released, params, allow_missing)
    kept = kept_items(entries, released.items, masks, allow_missing)
    items = [item for item, keep in zip(released.items, kept, strict=True) if keep]
    pictures = find_pictures(paths.wikiart, released.items)
    texts, absent, judges = _score_texts(
        entries, items, apolo, paths, params, backbones or BackbonesParams(), pictures
    )
    scores = Scores(items, [entry.title for entry in entries], part_of(masks, kept), sweeps, texts, absent)
    styles = find_styles(released.items, pictures)
    rows, counts = make_rows(entries, released, masks, scores, styles)
    report = {
        "data": f"{describe_release(apolo)}, {split}",
        "drawn": read_mark(apolo) is not None,
        "protocol": {k: v for k, v in as_json(params).items() if k not in ("clip", "split")},
        "counts": counts,
        "judges": judges,
        "statistics": _summary(scores, styles, params),
        **_described(entries, released, masks, scores, allow_missing),
        **_named(entries[0], released, masks, notes[0]),
    }
    return ExternalScores(report, rows)


# ---- reading ---------------------------------------------------------------------------------------


def _open(several: Sequence[Files]) -> list[Submission]:
    """The methods, under names that differ. Raises `UserError`."""
    entries = []
    for files in several:
        maps = None if files.maps is None else open_maps(files.maps)
        texts = None if files.explanations is None else open_texts(files.explanations)
        title = maps.title if maps is not None else texts.title if texts is not None else ""
        entries.append(Submission(title, maps, texts))
    if len({entry.title for entry in entries}) < len(entries):  # runs/a/maps and runs/b/maps
        parents = [(files.maps or files.explanations or Path()).resolve().parent.name for files in several]
        wholes = [f"{parent}/{entry.title}" for parent, entry in zip(parents, entries, strict=True)]
        if len(set(wholes)) < len(wholes):
            wholes = [f"{name} ({number})" for number, name in enumerate(wholes, start=1)]
        entries = [replace(entry, title=name) for entry, name in zip(entries, wholes, strict=True)]
    return entries


def _check_names(entries: Sequence[Submission], released: ReleasedItems) -> None:
    """Raise `UserError` where nothing that was handed in is of an item: wrong names, or wrong data."""
    handed_in: list[tuple[str, str, NamedMaps | NamedTexts | None]] = []
    for entry in entries:
        handed_in += [("maps", entry.title, entry.maps), ("explanations", entry.title, entry.texts)]
    for kind, title, names in handed_in:
        if names is None:
            continue
        strangers = names.of_no_item(released.items)
        total = len(names.readers if isinstance(names, NamedMaps) else names.texts)
        if len(strangers) == total:
            first = released.items[0]
            raise UserError(
                f"none of the {total} {kind} in {title} is named after one of the {len(released.items)} "
                f"{first.split} items: expected names like {item_name(first)}, found "
                f"{next(iter(strangers.values()))}"
            )


# ---- the report ------------------------------------------------------------------------------------


def _score_texts(
    entries: Sequence[Submission],
    items: Sequence[ApoloItem],
    apolo: Path,
    paths: Paths,
    params: ScoreParams,
    backbones: BackbonesParams,
    pictures: Mapping[str, Path],
) -> tuple[dict[str, MethodExplanations], list[str], list[str]]:
    """Judged explanations of the methods that explain, and lines: metrics that are absent, what judged."""
    methods = [Method(entry.title, _no_map, explanations=explained(entry, items)) for entry in entries]
    draws = find_draws(items, methods)
    if not draws:
        return {}, [], []
    references = ReferenceItems.of(items)
    with begin_texts(references, draws) as java:  # at work while torch is imported
        judges = open_judges(paths, params.clip, backbones, pictures)
        count = len(items) * sum(map(len, draws.values()))
        print(f"score: {count:,} explanations are judged", file=sys.stderr, flush=True)
        motifs, unjudged = open_motif_judge(apolo, items, methods, params)
        found, absent = score_explanations(
            references, draws, java, judges.classifier, judges.pictures, motifs
        )
    return found, [*judges.absent, *unjudged, *absent], judges.used


def _no_map(item: ApoloItem, height: int, width: int) -> None:
    return None


def _summary(scores: Scores, styles: Mapping[str, str], params: ScoreParams) -> dict[str, Any]:
    """Intervals, tests and breakdowns. Raises `UserError` where no metric has a value."""
    if not score_cells(scores).cells:
        raise UserError(f"nothing could be scored: {'; '.join(scores.absent)}")
    return summarise(scores, styles, params.statistics)


def _described(
    entries: Sequence[Submission],
    released: ReleasedItems,
    masks: MapTable,
    scores: Scores,
    allow_missing: bool,
) -> dict[str, Any]:
    """What was scored, the methods' rows, and the metrics that none has."""
    counted = int(masks.counted.sum())
    rows = []
    for m, entry in enumerate(entries):
        row = _row(scores, m, entry)
        if entry.maps is not None:
            row["missing"] = len(_missing(released, masks, m))
        rows.append(row | ({"left_out": counted - len(scores.items)} if allow_missing else {}))
    return {
        "source": released.source,
        "items": {
            "apolo": len(released.items),
            "counted": counted,
            "rejected": len(released.rejects),
        },
        "rows": rows,
        "absent": list(scores.absent),
    }


def _row(scores: Scores, m: int, entry: Submission) -> dict[str, Any]:
    """One method's numbers."""
    row: dict[str, Any] = {"method": entry.title, **scores.masks.rates(m), "items": len(scores.items)}
    sweep, own = scores.sweeps[m], scores.explanations.get(entry.title)
    if sweep is not None:
        row["val_items"] = len(sweep.ious)
    return row | (own.row if own else {})


def _named(entry: Submission, released: ReleasedItems, masks: MapTable, noted: MapNotes) -> dict[str, Any]:
    """What is listed by name of the first method's maps."""
    names = [item_name(item) for item in released.items]
    labels = [
        f"{name}: label: {why}" for name, why in zip(names, masks.labels, strict=True) if why is not None
    ]
    problems = [
        f"{name}: {why}"
        for name, why in zip(names, masks.problems[0], strict=True)
        if why is not None and why != "missing"
    ]
    val = [
        f"{name} (val): unusable map: {noted.broken[name]}"
        for name in sorted(noted.broken.keys() - set(names))
    ]
    return {
        "missing": _missing(released, masks, 0),
        "extra": list(entry.maps.of_no_item(released.every).values()) if entry.maps else [],
        "duplicates": entry.maps.duplicates if entry.maps else [],
        "flagged": [f"{name}: {noted.flagged[name]}" for name in names if name in noted.flagged],
        "problems": released.notes + labels + problems + val,
    }


def _missing(released: ReleasedItems, masks: MapTable, m: int) -> list[str]:
    """Names of the items, with a usable label, that have no map of a method."""
    problems = zip(released.items, masks.problems[m], strict=True)
    return [item_name(item) for item, why in problems if why == "missing"]
