"""The numbers of `shard-stats` as tables, for a terminal and for a page."""

import io
import math
import shutil
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from pipeline.shard_stats.labels import FLAGS
from pipeline.shard_stats.summary import PERCENTILES, By

BLOCKS = " ▁▂▃▄▅▆▇█"
TITLES = {
    "area": "area, share of the artwork above the threshold",
    "entropy": "entropy of the similarities; 1: all regions alike",
    "own_rank": "own rank: share of other artworks that the utterances fit less well; 0.5: chance",
    "agreement": "agreement of the stored mask with its recipe",
}


@dataclass(frozen=True)
class Grid:
    """A table of texts; all columns but the first are numbers, unless named as words."""

    title: str
    columns: Sequence[str]
    rows: Sequence[Sequence[str]]
    words: Sequence[str] = ()


def render(grids: Sequence[Grid], lines: Sequence[str] = ()) -> str:
    """Lines, then grids, as a terminal shows them."""
    width = max(100, shutil.get_terminal_size((200, 24)).columns)  # a file or a pipe is wide
    out = io.StringIO()
    console = Console(file=out, width=width, highlight=False, markup=False, emoji=False)
    for line in lines:
        console.print(Text(line))
    for grid in grids:
        table = Table(title=Text(grid.title), title_justify="left", box=None, pad_edge=False)
        for place, name in enumerate(grid.columns):
            words = place == 0 or name in grid.words
            table.add_column(name, justify="left" if words else "right", no_wrap=name not in grid.words)
        for row in grid.rows:
            table.add_row(*(Text(cell) for cell in row))  # Text: brackets in data are no markup
        console.print()
        console.print(table)
    return out.getvalue()


def summary_lines(found: Mapping[str, Any]) -> list[str]:
    """Rows in, kept and left out; totals; lineage."""
    totals, rows = found["totals"], found["rows"]
    size = sum(totals["bytes"].values()) / 2**20
    lines = [
        f"{totals['artworks']:,} artworks, {totals['masks']:,} masks, {totals['utterances']:,} utterances in "
        f"{totals['shards']:,} shards, {size:,.1f} MiB; {totals['flagged']:,} masks have a flag"
    ]
    if rows is not None:
        rejected = sum(rows["rejected"].values())
        lines.append(
            f"rows of the csv: {rows['in']:,} = {rows['kept']:,} kept + {rows['something_else']:,} "
            f'"something else" + {rejected:,} rejected; {rows["in_shards"]:,} of the kept are in the shards'
        )
        lines += [f"  rejected: {reason}: {count:,}" for reason, count in rows["rejected"].items()]
    for step, reasons in sorted(found["rejects"].items()):
        if step != "utterances":
            lines += [
                f"  left out by {step}: {reason}: {count:,}" for reason, count in sorted(reasons.items())
            ]
    lines += _duplicate_lines(found["duplicates"])
    for step, recipes in found["lineage"]["recipes"].items():
        if len(recipes) > 1:
            lines.append(f"  {step}: MIXED, {len(recipes)} recipes: {recipes}; run the step again")
    for entry in found["lineage"]["masks"]:
        lines.append(f"  {entry['artworks']:,} artworks made by {_lineage(entry['made_by'])}")
    lines += [f"  flag {flag}: {count:,}" for flag, count in found["flags"].items() if count]
    return lines


def _duplicate_lines(found: Mapping[str, Any] | None) -> list[str]:
    if found is None:
        return []
    lines = [
        f"  pictures with the same bytes as another: {found['same_bytes']:,}; pairs that look alike: "
        f"{found['near_pairs']:,}, {found['across_splits']:,} of them across splits, "
        f"{found['train_and_test']:,} between train and val or test"
    ]
    if found["crowds"]:
        lines.append(f"  {found['crowds']:,} groups of pictures were too large to compare by their looks")
    for pair in found["examples"][:3]:
        lines.append(f"    {pair['left']} ({pair['splits'][0]}) ~ {pair['right']} ({pair['splits'][1]})")
    return lines


def _lineage(made_by: Any) -> str:
    """A lineage of KEY.json on one line: detector, CLIP, and what was set of each step."""
    if not isinstance(made_by, dict):
        return str(made_by)
    parts = [str(made_by.get("detector"))]
    if isinstance(relabel := made_by.get("relabel"), dict):
        before = _lineage(made_by.get("labels"))
        return f"round {made_by.get('round')} of self-training ({_rule(relabel)}) on {before}"
    for step in ("similarity", "masks"):
        settings = dict(made_by.get(step) or {})
        clip = settings.pop("clip", None)
        if isinstance(clip, dict):
            parts.append(f"CLIP {clip.get('name')} {str(clip.get('sha256'))[:12]}")
        parts += [f"{step}.{name} {value}" for name, value in settings.items()]
    return ", ".join(parts)


def _rule(relabel: Mapping[str, Any]) -> str:
    """What was set of a round of self-training, and its students by their weights."""
    students = [f"{one.get('method')} {str(one.get('sha256'))[:12]}" for one in relabel.get("students", ())]
    rule = [f"{name} {value}" for name, value in relabel.items() if name != "students"]
    return ", ".join([*students, *rule])


def summary_grids(found: Mapping[str, Any], by: By) -> list[Grid]:
    """The table asked for, and the distributions."""
    grids = [shard_grid(found)] if by == "shard" else [group_grid(found, by)]
    return [*grids, distribution_grid(found)]


def shard_grid(found: Mapping[str, Any]) -> Grid:
    """A row a shard."""
    rows = [
        [
            row["shard"],
            f"{row['artworks']:,}",
            f"{row['masks']:,}",
            f"{row['bytes'] / 2**20:,.1f}",
            ", ".join(f"{reason} {count}" for reason, count in row["rejected"].items()) or "0",
            f"{row['flagged']:,}",
        ]
        for row in found["shards"]
    ]
    return Grid("by shard", ("shard", "artworks", "masks", "MiB", "left out", "flagged"), rows)


def group_grid(found: Mapping[str, Any], by: By) -> Grid:
    """A row an emotion, or a style."""
    low, middle, high = PERCENTILES
    columns = (
        *(by, "masks", "train/val/test", "utt./mask", f"area p{low}", f"p{middle}", f"p{high}"),
        *("contrast", "entropy", "own rank", "flagged as", "regions that win"),
    )
    rows = []
    for name, part in found["by"][by].items():
        flags = ", ".join(f"{flag} {part['flags'][flag]}" for flag in FLAGS if part["flags"][flag])
        rows.append(
            [
                name,
                f"{part['masks']:,}",
                "/".join(f"{part['splits'].get(split, 0):,}" for split in ("train", "val", "test")),
                f"{part['utterances_per_mask']:.1f}",
                *(_percent(value) for value in part["area"]),
                *(_number(part[column]) for column in ("contrast", "entropy", "own_rank")),
                flags or "–",
                ", ".join(region for region, _ in part["best_regions"][:3]) or "–",
            ]
        )
    return Grid(f"by {by}", columns, rows, ("flagged as", "regions that win"))


def distribution_grid(found: Mapping[str, Any]) -> Grid:
    """Histograms as rows of blocks."""
    rows = []
    for name, drawn in found["distributions"].items():
        low, high = drawn["edges"][0], drawn["edges"][-1]
        rows.append([TITLES[name], f"{low:g} {bars(drawn['counts'])} {high:g}", f"{sum(drawn['counts']):,}"])
    return Grid("distributions", ("of", "", "masks"), rows, ("",))


def worst_grid(rows: Sequence[Mapping[str, Any]]) -> Grid:
    """The most suspicious labels."""
    columns = (
        "key",
        "emotion",
        "split",
        "style",
        "flags",
        "area",
        "agreement",
        "twin",
        "contrast",
        "own rank",
    )
    cells = [
        [
            row["key"],
            row["emotion"],
            row["split"],
            row["art_style"],
            ", ".join(row["flags"]) or "–",
            _percent(row["area"]),
            _number(row["agreement"]),
            f"{_number(row['twin'])} {row['twin_emotion'] or ''}".strip(),
            _number(row["contrast"]),
            _number(row["own_rank"]),
        ]
        for row in rows
    ]
    title = "worst first; look at one by: python cli.py look KEY"
    return Grid(title, columns, cells, ("emotion", "split", "style", "flags"))


def bars(counts: Sequence[int]) -> str:
    """Counts as blocks of eight heights; any count above 0 shows."""
    top = max(counts, default=0)
    return "".join(BLOCKS[0 if not count else max(1, math.ceil(8 * count / top))] for count in counts)


def csv_rows(found: Mapping[str, Any], by: By) -> Iterator[dict[str, Any]]:
    """The table asked for, flat, for a spreadsheet."""
    if by == "shard":
        for row in found["shards"]:
            yield {**row, "rejected": sum(row["rejected"].values())}
        return
    for name, part in found["by"][by].items():
        flat = {f"area_p{p}": value for p, value in zip(PERCENTILES, part["area"], strict=True)}
        flags = {f"flag_{flag}": count for flag, count in part["flags"].items()}
        splits = {split: part["splits"].get(split, 0) for split in ("train", "val", "test", "rest")}
        plain = {
            key: part[key] for key in ("masks", "utterances_per_mask", "contrast", "entropy", "own_rank")
        }
        regions = "; ".join(f"{region} {count}" for region, count in part["best_regions"])
        yield {by: name, **plain, **splits, **flat, **flags, "best_regions": regions}


def _percent(value: float | None) -> str:
    return "–" if value is None or math.isnan(value) else f"{value:.1%}"


def _number(value: float | None) -> str:
    return "–" if value is None or math.isnan(value) else f"{value:.2f}"
