"""What `external_maps.score_external_maps` found, for people: one screen of text."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from model.metrics.columns import COLUMNS, CONTROLS
from model.score.external_rows import LEFT_OUT, MISSING, NO_LABEL, SCORED, UNUSABLE
from model.score.statistics.page import p_value
from pipeline.releases.names import UNPRINTABLE

NAMED = 20
"""Names shown at most; the csv and the JSON hold all."""
MASKS = ("seg_pr25", "seg_pr50", "box_pr25", "box_pr50")
WORDS = ("ea", "bleu1", "bleu2", "bleu3", "bleu4", "meteor", "rouge_l", "clipscore", "clip_own", "motif")
HEADINGS = {column: heading for column, heading, _ in (*COLUMNS, *CONTROLS)}
DECIMALS = {column: decimals for column, _, decimals in (*COLUMNS, *CONTROLS)}
STATUSES = (SCORED, MISSING, UNUSABLE, NO_LABEL, LEFT_OUT)
FEW = 30
"""Items below which a share says little."""


def scores_text(report: Mapping[str, Any]) -> str:
    """The report for people; the first lines are counts that add up."""
    parts = [
        [f"{report['data']}; items from {report['source']}"],
        list(_counts(report)),
        *([_table(report, columns)] for columns in (MASKS, WORDS) if _has(report["rows"], columns)),
        list(_warnings(report)),
        *_statistics(report["statistics"], report["rows"]),
        list(_listed(report)),
    ]
    return "\n\n".join("\n".join(map(_one_line, part)) for part in parts if part)


def _one_line(text: str) -> str:
    """Text of ours with names of others in it: no control character of theirs reaches the terminal."""
    return UNPRINTABLE.sub(lambda found: "\n" if found[0] == "\n" else ascii(found[0])[1:-1], text)


# ---- counts ----------------------------------------------------------------------------------------


def _counts(report: Mapping[str, Any]) -> Iterable[str]:
    counts = report["counts"]
    yield _sum("records in apolo.json", counts["records"])
    for method in counts["methods"]:
        name = method["method"]
        items = {key: method["items"][key] for key in STATUSES if key in method["items"]}
        yield _sum(f"items for {name}", items)
        if "files" in method:
            yield _sum(f"files in {name}", method["files"])
        if "texts" in method:
            yield _sum(f"explanations of {name}", method["texts"])


def _sum(what: str, parts: Mapping[str, int]) -> str:
    terms = " + ".join(f"{count:,} {name}" for name, count in parts.items())
    return f"{sum(parts.values()):,} {what} = {terms}"


def _warnings(report: Mapping[str, Any]) -> Iterable[str]:
    if report["drawn"]:
        yield "These items are drawn (the built-in gallery): nothing here compares with published numbers."
    rows, counts = report["rows"], report["counts"]["methods"]
    if unusable := report["counts"]["records"]["unusable"]:
        yield (
            f"NOT COMPARABLE with published rows: {unusable} records of apolo.json cannot be used, and are "
            "not scored; the reasons stand below"
        )
    if rows[0].get("left_out"):
        yield (
            f"NOT COMPARABLE with published rows: {rows[0]['left_out']} items without a map or a text are "
            "left out, as --allow-missing asks"
        )
    for row, method in zip(rows, counts, strict=True):
        for count, why in (
            (row.get("missing", 0), "without a map: IoU 0"),
            (method["items"].get(UNUSABLE, 0), "with a map that cannot be used: IoU 0"),
            (method.get("unexplained", 0), "without an explanation: an empty one, wrong in every metric"),
            (method.get("fewer", 0), "with fewer explanations than others: theirs are repeated in turn"),
        ):
            if count and not ("left_out" in row and why.startswith("without")):
                yield f"{row['method']}: {count} items {why}"
    yield from report["judges"]
    yield from report["absent"]
    if rows[0]["items"] < FEW:
        yield f"{rows[0]['items']} items are few: look at the intervals before the numbers"


# ---- tables ----------------------------------------------------------------------------------------


def _has(rows: Sequence[Mapping[str, Any]], columns: Sequence[str]) -> bool:
    return any(column in row for row in rows for column in columns)


def _table(report: Mapping[str, Any], columns: Sequence[str]) -> str:
    """Every method's numbers with their intervals; masks also at the threshold of the val items."""
    wanted = [column for column in columns if _has(report["rows"], [column])]
    estimates, protocol = report["statistics"]["methods"], report["protocol"]
    lines = []
    for row in report["rows"]:
        own = estimates.get(row["method"], {})
        masks = columns is MASKS
        fixed = f"> {protocol['threshold']:g}" if masks else ""
        lines.append([row["method"], fixed, str(row["items"]), *(_cell(own, row, c, "") for c in wanted)])
        if masks and "threshold_val" in row:
            chosen = f"> {row['threshold_val']:g} (best on {row['val_items']} val items)"
            lines.append(["", chosen, str(row["items"]), *(_cell(own, row, c, "_val") for c in wanted)])
    threshold = "threshold" if columns is MASKS else ""
    return aligned([["method", threshold, "items", *(HEADINGS[column] for column in wanted)], *lines], left=2)


def _cell(own: Mapping[str, Any], row: Mapping[str, Any], column: str, suffix: str) -> str:
    name, decimals = f"{column}{suffix}", DECIMALS[column]
    return _estimate(own[name], decimals) if name in own else _plain(row.get(name), decimals)


def _plain(value: float | None, decimals: int) -> str:
    return "-" if value is None else f"{value:.{decimals}f}"


def _estimate(estimate: Mapping[str, float] | None, decimals: int) -> str:
    if estimate is None:
        return "-"
    return f"{estimate['value']:.{decimals}f} [{estimate['low']:.1f}, {estimate['high']:.1f}]"


def aligned(rows: Sequence[Sequence[str]], left: int = 1) -> str:
    """Rows of cells as columns, the first `left` of them left-aligned."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return "\n".join(
        "  ".join(
            cell.ljust(width) if place < left else cell.rjust(width)
            for place, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    )


def _statistics(statistics: Mapping[str, Any], rows: Sequence[Mapping[str, Any]]) -> Iterable[list[str]]:
    """Breakdowns of the first method and, with a second, the paired tests."""
    params, first = statistics["params"], rows[0]["method"]
    shown = [column for column in (*MASKS, "ea", "meteor", "clipscore") if column in rows[0]]
    for what, key in (("emotion", "by_emotion"), ("style", "by_style")):
        groups = statistics[key]
        if key == "by_style" and set(groups) == {"unknown"}:
            yield [
                "By style: not known. It stands in the ArtEmis csv (--artemis), and is the pictures' folder"
            ]
            continue
        cells = [
            [group, str(part["items"])]
            + [_estimate(part["methods"].get(first, {}).get(column), DECIMALS[column]) for column in shown]
            for group, part in groups.items()
        ]
        yield [f"{first} by {what}", aligned([["", "items", *(HEADINGS[c] for c in shown)], *cells])]
    if len(rows) > 1:
        yield _pairs(statistics["pairs"], first, rows[1]["method"])
    yield [
        f"[low, high]: {100 * params['level']:g} % intervals, bootstrap of {params['resamples']} resamples "
        f"by {params['unit']}, seed {params['seed']}"
    ]


def _pairs(pairs: Sequence[Mapping[str, Any]], first: str, second: str) -> list[str]:
    lines = [
        [
            HEADINGS[pair["column"]],
            f"{pair['difference']:+.2f} [{pair['low']:+.2f}, {pair['high']:+.2f}]",
            pair["test"],
            p_value(pair["p"]),
        ]
        for pair in pairs
        if pair["column"] in HEADINGS
    ]
    if not lines:
        return [f"{first} and {second} have no metric in common"]
    return [f"{first} minus {second}", aligned([["", "points", "test", "p"], *lines])]


# ---- by name ---------------------------------------------------------------------------------------


def _listed(report: Mapping[str, Any]) -> Iterable[str]:
    counted = "left out" if "left_out" in report["rows"][0] else "IoU 0"
    for key, meaning in (
        ("missing", f"items without a map ({counted})"),
        ("extra", "maps of no usable APOLO item (not scored)"),
        ("duplicates", "second maps of an item (not scored; the first by name was)"),
    ):
        if report[key]:
            yield f"{len(report[key])} {meaning}: {_first(report[key])}"
    lines = [*report["flagged"], *report["problems"]]
    yield from (f"- {_name(line)}" for line in lines[:NAMED])
    if len(lines) > NAMED:
        yield f"- and {len(lines) - NAMED} more; --csv FILE and --json have all of them"


def _first(names: Sequence[str]) -> str:
    rest = f" and {len(names) - NAMED} more" if len(names) > NAMED else ""
    return f"{', '.join(map(_name, names[:NAMED]))}{rest}"


def _name(text: str) -> str:
    return text.replace("\n", "\\n")
