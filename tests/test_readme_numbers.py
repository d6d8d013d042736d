"""The README's table says what this checkout's own run of the gallery found, where one has been made."""

import json
import re

import pytest
import yaml

from tests.imports import ROOT

COLUMNS = ("seg_pr25", "seg_pr50", "box_pr25", "box_pr50", "ea")
ROW = re.compile(r"^\| (?:\*control\* )?([a-z+-]+(?::[a-z-]+)?)(?: \([^|]*\))? \|(.+)\|$", re.MULTILINE)
CELL = re.compile(r"\s*([\d.]+) \[([\d.]+), ([\d.]+)\]\s*")


def printed() -> dict[str, list[tuple[float, float, float] | None]]:
    """Method -> (value, interval) of the README's first table of results."""
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    start = text.index("| method | Seg Pr@25")
    found = {}
    for name, cells in ROW.findall(text[start : text.index("\n\n", start)]):
        if name != "method":
            matches = [CELL.fullmatch(cell) for cell in cells.split("|")]
            found[name] = [tuple(map(float, match.groups())) if match else None for match in matches]
    return found


def test_every_row_has_a_value_within_its_interval() -> None:
    rows = printed()
    assert {"clip+vinvl", "emosem-single", "emosem-multi"} <= rows.keys()
    for name, cells in rows.items():
        assert len(cells) == len(COLUMNS), name
        for cell in cells:
            assert cell is None or cell[1] <= cell[0] <= cell[2], (name, cell)


def test_the_run_of_this_checkout_lies_within_the_printed_intervals() -> None:
    score = ROOT / "metrics" / "score.json"
    if not score.is_file():
        pytest.skip("no gallery run here: make repro")
    gallery = yaml.safe_load((ROOT / "params.yaml").read_text(encoding="utf-8"))["gallery"]
    if gallery != {"artworks": 600, "seed": 7}:
        pytest.skip("another gallery than the README's")
    found = {row["method"]: row for row in json.loads(score.read_text(encoding="utf-8"))["rows"]}
    for name, cells in printed().items():
        for column, cell in zip(COLUMNS, cells, strict=True):
            if cell is not None:
                assert cell[1] <= found[name][column] <= cell[2], (name, column, found[name][column])
