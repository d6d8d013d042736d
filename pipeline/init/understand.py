"""What a csv and its pictures are, in words and as params."""

import dataclasses
import itertools
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

from pipeline.common.emotions import ALL_EMOTIONS
from pipeline.common.errors import UserError
from pipeline.init.columns import SUGGESTED, guess_columns
from pipeline.init.dialect import Sample, sniff_csv
from pipeline.init.pictures import Pictures, find_folder
from pipeline.releases.apolo_ids import load_items_of_csv
from pipeline.releases.artemis import Annotation, Reject, read_csv, read_layout
from pipeline.releases.csv_rows import escaped
from pipeline.releases.layouts import LAYOUTS
from pipeline.releases.names import shown
from pipeline.releases.source import Emotion, Role, Source
from pipeline.releases.words import plain_word, read_emotion

ROWS = 5000
"""Of the csv, read to see what is in it; its end can be different."""
MAX_CHARS = 2000
"""As `UtterancesParams.max_chars`."""
SHOWN = 8
"""Words listed in a line."""


@dataclasses.dataclass(frozen=True)
class Understood:
    """What `init` writes down, and what it says."""

    csv: Path
    source: Source
    """All that the csv needs; its layout is never auto."""
    pictures: Pictures
    unknown: Counter[str]
    """Words that are no emotion -> rows of the sample."""
    lines: list[tuple[str, str]]
    """(what, what it is), for people."""


def understand(csv: Path, images: Path, apolo: Path | None) -> Understood:
    """Look at the csv's start and its pictures. Raises `UserError` where they cannot be used together."""
    sample = sniff_csv(csv)
    layout, columns = guess_columns(sample.header, sample.rows)
    source = dataclasses.replace(sample.source, layout=layout, columns=columns)
    words = _column(sample, source, csv, "emotion")
    mapped: dict[str, Emotion | None] = {
        word: SUGGESTED[plain_word(word)] for word in words if plain_word(word) in SUGGESTED
    }
    source = dataclasses.replace(source, emotion_map=mapped)
    unknown = Counter({word: n for word, n in words.items() if read_emotion(word, mapped) is None})
    languages = _column(sample, source, csv, "language")
    rows = list(itertools.islice(read_csv(csv, MAX_CHARS, source), ROWS))
    kept = [row for row in rows if isinstance(row, Annotation)]
    if not kept:
        raise UserError(_none_kept(csv, rows))
    pictures = find_folder(images, kept)
    if pictures.by_name:
        source = dataclasses.replace(
            source, columns={**columns, "image": source.columns.get("painting") or "painting"}
        )
    lines = [
        ("csv", f"{csv}: {_dialect_text(sample)}"),
        ("layout", f"{layout}: {LAYOUTS[layout].about}"),
        ("columns", _columns_text(csv, source)),
        ("rows", _rows_text(rows)),
        ("emotions", _emotions_text(kept, mapped, unknown)),
        *([("languages", _languages_text(languages, source))] if languages else []),
        ("pictures", _pictures_text(pictures)),
        ("apolo", _apolo_text(apolo, csv, source)),
    ]
    return Understood(csv, source, pictures, unknown, lines)


def _column(sample: Sample, source: Source, csv: Path, role: Role) -> Counter[str]:
    """Words of a column -> how many of the sample's rows have them; empty where there is no such column."""
    place = read_layout(csv, source).place
    if role not in place:
        return Counter()
    return Counter(row[place[role]].strip() for row in sample.rows)


def _none_kept(csv: Path, rows: Sequence[Annotation | Reject]) -> str:
    rejects = [row for row in rows if isinstance(row, Reject)]
    if not rejects:
        return f"--artemis {csv} has a header and no rows"
    reasons = Counter(row.reason for row in rejects)
    example = next(row for row in rejects if row.reason == reasons.most_common(1)[0][0])
    words = example.reason == "unknown-emotion"
    way = "; other words go into utterances.emotion_map of a params file (docs/your_data.md)" if words else ""
    first = f"row {example.row}: {example.detail}"
    return f"none of the first {len(rows)} rows of {csv} can be used: {_counts(reasons)}; {first}{way}"


def _dialect_text(sample: Sample) -> str:
    source = sample.source
    names = {",": "commas", ";": "semicolons", "\t": "tabs"}
    mark = " with a byte-order mark" if sample.mark else ""
    quote = "" if source.quote == '"' else f", {source.quote} round fields"
    between = names.get(source.delimiter, escaped(source.delimiter))
    return f"{source.encoding.upper()}{mark}, {between}, {len(sample.header)} columns{quote}"


def _columns_text(csv: Path, source: Source) -> str:
    columns = read_layout(csv, source)
    ignored = columns.width - len(set(columns.place.values()))
    return str(columns) + f"; {ignored} not used" * bool(ignored)


def _rows_text(rows: Sequence[Annotation | Reject]) -> str:
    rejects = [row for row in rows if isinstance(row, Reject)]
    text = f"{len(rows) - len(rejects)} of the first {len(rows)} can be used"
    if not rejects:
        return text
    example = f"; row {rejects[0].row}: {rejects[0].detail}"
    return f"{text}; left out: {_counts(Counter(row.reason for row in rejects))}{example}"


def _emotions_text(
    kept: Sequence[Annotation], mapped: Mapping[str, Emotion | None], unknown: Counter[str]
) -> str:
    found = Counter(row.emotion for row in kept)
    text = _counts(Counter({name: found[name] for name in ALL_EMOTIONS if found[name]}))
    if mapped:
        text += "; read as: " + ", ".join(
            f"{shown(word)} {name}" for word, name in list(mapped.items())[:SHOWN]
        )
    if unknown:
        text += f"; not understood: {_counts(unknown)}: name them in utterances.emotion_map"
    return text


def _languages_text(languages: Counter[str], source: Source) -> str:
    return f"{_counts(languages)}; {source.language} is read (utterances.language)"


def _pictures_text(pictures: Pictures) -> str:
    named = "by their files' names alone" if pictures.by_name else "in the places that the csv names"
    found = f"{pictures.found} of {pictures.looked_up} artworks found, {named}"
    text = f"{pictures.folder}: {pictures.files} files; {found}"
    return f"{text}; {pictures.missing}" if pictures.missing else text


def _apolo_text(apolo: Path | None, csv: Path, source: Source) -> str:
    """How many of APOLO's items the csv has the words of. `UserError` where its ids are of another csv."""
    if apolo is None:
        return "none: everything up to training runs; scoring needs one (--apolo)"
    if not (apolo / "apolo.json").is_file():
        raise UserError(f"--apolo {apolo} has no apolo.json; name the folder of the APOLO release")
    items, rejects = load_items_of_csv(apolo, csv, source)
    text = f"{apolo}: {len(items)} of {len(items) + len(rejects)} items found in the csv"
    return f"{text}; left out: {_counts(Counter(reject.reason for reject in rejects))}" if rejects else text


def _counts(counts: Counter[str]) -> str:
    listed = [f"{shown(name, 30)[1:-1] or 'empty'} {count:,}" for name, count in counts.most_common(SHOWN)]
    return ", ".join(listed) + f", and {len(counts) - SHOWN} more" * (len(counts) > SHOWN)
