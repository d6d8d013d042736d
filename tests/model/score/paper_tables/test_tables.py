"""The paper's tables: the printed numbers, against what the paper says of them elsewhere; and our rows."""

import csv
import html
import io
import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from model.metrics.columns import COLUMNS
from model.score.paper_tables import formats
from model.score.paper_tables.formats import PaperTable, TableCell, TableRow
from model.score.paper_tables.tables import build_tables, published, write_tables
from model.score.protocol_check import PRINTED
from tests.worlds.indexed_shards import paths_in

PRINT = published()
METRICS = [column for column, _, _ in COLUMNS]


def printed(table: str, name: str) -> dict[str, Any]:
    return next(row for row in PRINT["tables"][table]["rows"] if row["name"] == name)


# ---- the printed numbers ---------------------------------------------------------------------------


def test_every_row_of_the_paper_is_there() -> None:
    names = {name: [row["name"] for row in table["rows"]] for name, table in PRINT["tables"].items()}
    assert names == {
        "table1": [
            *("Entire artwork", "FasterRCNN", "VinVL", "CASNet", "CASNet II", "VilBERT", "12-in-1"),
            *("CLIP+VinVL", "CLIP+SAM", "TRIS", "WESR", "SCA_base", "EmoSEM"),
        ],
        "table2": ["SCA_base", "SCA_huge-FT", "EmoSEM"],
        "table3": ["SCA_base", "SCA_huge-FT", "EmoSEM"],
        "table4": ["#1", "#2", "#3", "EmoSEM"],
        "table5": ["Ambiguity-Aware", "Ambiguity-Unaware"],
        "table6": ["Single-Mask", "Multi-Masks"],
        "figure7": ["FT-MH (mask head)", "FT-MD (mask decoder)"],
    }


SPOT: tuple[tuple[str, str, dict[str, Any]], ...] = (
    (
        "table1",
        "Entire artwork",
        {"box_pr25": 82.37, "box_pr50": 63.81, "seg_pr50": 37.70},
    ),
    ("table1", "12-in-1", {"box_pr25": 72.51, "box_pr50": 50.71, "seg_pr25": 63.90, "seg_pr50": 31.87}),
    ("table1", "TRIS", {"box_pr25": 84.97, "box_pr50": 65.67, "seg_pr25": 75.28, "seg_pr50": 34.72}),
    ("table1", "WESR", {"box_pr25": 84.30, "box_pr50": 66.66, "seg_pr25": 75.89, "seg_pr50": 44.97}),
    ("table1", "SCA_base", {"ea": 42.6, "bleu1": 16.2, "meteor": 6.7, "rouge_l": 17.7, "clipscore": 55.1}),
    ("table2", "SCA_huge-FT", {"params": 1499.21, "box_pr50": 68.13, "seg_pr25": 78.15, "clipscore": 60.0}),
    ("table3", "SCA_huge-FT", {"training": "125h, 10 epochs", "flops": 3018.16, "fps": 1.58}),
    ("table3", "EmoSEM", {"backbone": "SAM_base + GPT2", "gpu": "1×RTX 4090", "params": 276.62, "fps": 6.11}),
    ("table4", "#3", {"mask_prefix": False, "prompt_prefix": True, "seg_pr50": 44.64, "bleu3": 3.5}),
    ("table4", "#2", {"mask_prefix": True, "prompt_prefix": False, "ea": 52.6, "bleu4": 1.8, "meteor": 8.3}),
    ("table5", "Ambiguity-Aware", {"box_pr50": 68.22, "seg_pr50": 45.15, "bleu1": 21.4, "clipscore": 56.3}),
    (
        "table6",
        "Multi-Masks",
        {"box_pr25": 86.09, "seg_pr50": 46.68, "ea": 54.6, "bleu1": 22.2, "bleu4": 1.9},
    ),
)


@pytest.mark.parametrize(("table", "name", "values"), SPOT, ids=[f"{t} {n}" for t, n, _ in SPOT])
def test_spot_values(table: str, name: str, values: Mapping[str, Any]) -> None:
    row = printed(table, name)
    assert {column: row[column] for column in values} == values


def test_apolos_own_percentages_are_whole_numbers_of_its_5441_items() -> None:
    """Nine methods of the APOLO paper, four percentages each: k / 5441, rounded to two decimals."""
    assert PRINT["items"] == PRINTED.items == 5441
    possible = {f"{100 * k / 5441:.2f}" for k in range(5442)}
    assert len(possible) < 5500  # of 10,001: a wrong digit has every second chance to be seen
    apolo = [row for row in PRINT["tables"]["table1"]["rows"] if "ea" not in row and "reproduced" not in row]
    values = [f"{row[c]:.2f}" for row in apolo for c in METRICS if c in row]
    assert len(values) == 36
    assert [value for value in values if value not in possible] == []
    entire = printed("table1", "Entire artwork")
    wanted = dict(zip(("seg_pr25", "seg_pr50", "box_pr25", "box_pr50"), PRINTED.counts, strict=True))
    assert {c: f"{100 * k / 5441:.2f}" for c, k in wanted.items()} == {c: f"{entire[c]:.2f}" for c in wanted}


DIFFERENCES = (  # the paper's text, R1 to R8
    ("table1", "EmoSEM", "WESR", {"seg_pr25": 2.17, "seg_pr50": 0.48}),
    ("table1", "EmoSEM", "SCA_base", {"meteor": 1.7, "ea": 14.0}),
    ("table2", "EmoSEM", "SCA_huge-FT", {"box_pr50": 0.52, "seg_pr50": 0.46, "ea": 6.7}),
    ("table4", "#2", "#1", {"ea": 40.2}),
    ("table4", "#3", "#1", {"ea": 40.4}),
    ("table4", "EmoSEM", "#1", {"seg_pr50": 2.26, "bleu4": 0.8, "ea": 44.2}),
    ("table5", "Ambiguity-Unaware", "Ambiguity-Aware", {"ea": 1.0, "rouge_l": 0.4}),
    ("table6", "Multi-Masks", "Single-Mask", {"box_pr50": 0.33, "seg_pr50": 1.23, "ea": -2.0}),
    ("figure7", "FT-MH (mask head)", "FT-MD (mask decoder)", {"seg_pr50": 2.63}),
)


@pytest.mark.parametrize(("table", "first", "second", "gains"), DIFFERENCES)
def test_differences_that_the_text_names(
    table: str, first: str, second: str, gains: Mapping[str, float]
) -> None:
    a, b = printed(table, first), printed(table, second)
    assert {c: round(a[c] - b[c], 2) for c in gains} == gains


def test_ratios_that_the_text_names() -> None:
    ours, huge = printed("table3", "EmoSEM"), printed("table3", "SCA_huge-FT")
    assert round(100 * ours["params"] / huge["params"], 1) == 18.5
    assert round(100 * ours["flops"] / huge["flops"], 1) == 16.9
    assert round(ours["fps"] / huge["fps"], 1) == 3.9
    assert round(100 * 36 / 125, 1) == 28.8 and ours["training"].startswith("36h")


def test_a_method_has_the_same_numbers_in_every_table() -> None:
    seen: dict[tuple[str, str], float] = {}
    for table in PRINT["tables"].values():
        for row in table["rows"]:
            for column in METRICS:
                if column in row:
                    assert seen.setdefault((row["method"], column), row[column]) == row[column]


def test_numbers_are_possible() -> None:
    for table in PRINT["tables"].values():
        for row in table["rows"]:
            assert set(row) <= {"name", "method", "reproduced", "elsewhere", *table["columns"]}
            assert all(0 < row[c] < 100 for c in METRICS if c in row)
            for more, less in (("box_pr25", "box_pr50"), ("seg_pr25", "seg_pr50"), ("box_pr50", "seg_pr50")):
                assert more not in row or row[more] > row[less]
            bleu = [row[f"bleu{n}"] for n in range(1, 5) if f"bleu{n}" in row]
            assert bleu == sorted(bleu, reverse=True)


def test_what_is_counted_here_prints_as_the_paper_does() -> None:
    for row in PRINT["tables"]["table3"]["rows"]:
        counted = PRINT["counted"][row["method"]]
        assert f"{counted['parameters'] / 1e6:.2f}" == f"{row['params']:.2f}"
        assert f"{counted['multiply_adds'] / 1e9:.2f}" == f"{row['flops']:.2f}"


@pytest.mark.slow
def test_what_is_counted_here_is_what_flops_counts() -> None:
    from model.bench.flops import published

    names = {"EmoSEM": "emosem-single", "SCA_base": "sca-base", "SCA_huge-FT": "sca-untied"}
    found = {
        names[name]: {
            "parameters": sum(part.parameters for part in parts.values()),
            "multiply_adds": sum(part.multiply_adds for part in parts.values()),
        }
        for name, parts in published().items()
    }
    assert found == PRINT["counted"]


# ---- our rows --------------------------------------------------------------------------------------

SCORES: dict[str, Any] = {
    "data": "built-in gallery",
    "backbones": "tiny (not the paper's)",
    "split": "test",
    "items": {"counted": 214},
    "rows": [
        {"method": "entire-artwork", "items": 214, "seg_pr25": 1.0, "seg_pr50": 0.0, "box_pr25": 4.206},
        {"method": "emosem-single", "items": 214, "seg_pr50": 20.094, "ea": 91.56, "bleu1": 32.14},
        {"method": "emosem-single:ft-md", "items": 214, "seg_pr50": 11.0},
        {"method": "emosem-single:other-emotion", "items": 214, "seg_pr50": 1.0},
        {"method": "our-own", "items": 214, "seg_pr50": 99.0, "bleu1": 5.0, "bleu1_sd": 0.26},
    ],
}


def find(table: PaperTable, method: str) -> TableRow:
    return next(row for row in table.rows if row.method == method and row.source == "here")


def test_ours_stand_below_the_printed_and_say_what_they_are_of() -> None:
    found = build_tables(SCORES, {}, {})
    order = [(row.source, row.method) for row in found["table1"].rows]
    assert order[:3] == [("paper", "entire-artwork"), ("here", "entire-artwork"), ("paper", "faster-rcnn")]
    assert order[-3:] == [("paper", "emosem-single"), ("here", "emosem-single"), ("here", "our-own")]
    assert len(order) == 13 + 3  # a control is nowhere, an ablation in its own table
    ours = find(found["table1"], "emosem-single").cells
    assert ours["seg_pr50"] == TableCell(20.094, "built-in gallery", "tiny (not the paper's)", "†‡")
    assert ours["emo_rel"].value is True and "box_pr25" not in ours
    assert find(found["figure7"], "emosem-single:ft-md").cells["seg_pr50"].value == 11.0
    assert [row.method for row in found["table4"].rows if row.source == "here"] == ["emosem-single"]
    page = formats.markdown(found["table1"])
    assert "| emosem-single | here | yes | - | - | - | 20.09†‡ | 91.6†‡ |" in page
    assert "| our-own | here | - | - | - | - | 99.00†‡ | - | 5.0 ± 0.3†‡ |" in page


def test_only_all_5441_test_items_and_the_papers_backbones_go_unmarked() -> None:
    full = SCORES | {
        "data": "APOLO release at apolo",
        "backbones": "SAM vit_b, CLIP ViT-B-16-quickgelu, distilgpt2",
        "items": {"counted": 5441},
    }

    def marks(scores: Mapping[str, Any]) -> str:
        return find(build_tables(scores, {}, {})["table1"], "emosem-single").cells["ea"].marks

    assert marks(full) == ""
    assert marks(full | {"items": {"counted": 5440}}) == "†"
    assert marks(full | {"split": "val"}) == "†"
    assert marks(full | {"backbones": "SAM vit_l, CLIP ViT-B-16, distilgpt2"}) == "‡"


def test_intervals_are_printed_where_there_are_some() -> None:
    estimate = {"value": 91.56, "low": 87.4, "high": 95.04}
    statistics = {"params": {"level": 0.9}, "methods": {"emosem-single": {"ea": estimate}}}
    page = formats.markdown(build_tables(SCORES, statistics, {})["table1"])
    assert "91.6 [87.4, 95.0]†‡" in page and "bootstrap 90 % interval" in page
    assert "| 32.1†‡ |" in page  # a cell without an interval
    assert "bootstrap" not in formats.markdown(build_tables(SCORES, {}, {})["table1"])


def test_methods_that_are_not_run_here_keep_their_row_and_say_the_way_in() -> None:
    table = build_tables(SCORES, {}, {})["table1"]
    assert {row.method for row in table.rows if row.source == "paper"} >= {
        *("casnet", "casnet-ii", "vilbert", "12-in-1", "tris"),
    }
    note = next(note for note in table.notes if "Not part of this code" in note)
    assert "TRIS (tris)" in note and "score --maps DIR --json" in note and "WESR" not in note


def test_anyones_maps_get_a_row(tmp_path: Path) -> None:
    """What `score --maps --json` prints, kept in metrics/maps/; files that are something else are named."""
    paths = paths_in(tmp_path)
    folder = paths.metrics / "maps"
    folder.mkdir(parents=True)
    content = {
        "data": "apolo, test",
        "items": {"counted": 5441},
        "rows": [{"method": "folder", "items": 5441, "seg_pr25": 75.0, "seg_pr50": 30.0, "missing": 0}],
    }
    (folder / "tris.json").write_text(json.dumps(content))
    content["rows"][0]["left_out"] = 3  # type: ignore[index]
    (folder / "mine.json").write_text(json.dumps(content))
    (folder / "broken.json").write_text("[]")
    write_tables(paths, SCORES, {})
    table = json.loads((paths.metrics / "tables" / "table1.json").read_text())
    rows = {row["method"]: row for row in table["rows"] if row["source"] == "here"}
    assert rows["tris"]["cells"]["seg_pr25"] == {
        "value": 75.0,
        "data": "apolo, test",
        "weights": "those behind the maps of tris",
    }
    assert rows["mine"]["cells"]["seg_pr25"]["marks"] == "†"
    assert any("broken.json" in note for note in table["notes"])
    assert not any("TRIS (tris)" in note for note in table["notes"])


def test_every_file_of_every_table_is_written_and_the_same_again(tmp_path: Path) -> None:
    paths = paths_in(tmp_path)
    pages = write_tables(paths, SCORES, {})
    names = {f"{name}.{suffix}" for name in PRINT["tables"] for suffix in ("md", "csv", "json", "tex")}
    first = {path.name: path.read_bytes() for path in (paths.metrics / "tables").iterdir()}
    assert set(first) == names and {page.name for page in pages} == {n for n in names if n.endswith(".md")}
    write_tables(paths, SCORES, {})
    assert {path.name: path.read_bytes() for path in (paths.metrics / "tables").iterdir()} == first


def test_the_csv_has_a_line_per_cell() -> None:
    table = build_tables(SCORES, {}, {})["table1"]
    lines = list(csv.DictReader(io.StringIO(formats.as_csv(table))))
    assert len(lines) == sum(len(row.cells) for row in table.rows)
    mine = [line for line in lines if line["source"] == "here" and line["column"] == "ea"]
    assert [(line["method"], line["value"], line["data"]) for line in mine] == [
        ("emosem-single", "91.56", "built-in gallery")
    ]


HOSTILE = (
    '=<script>alert("1")</script> & 50 % of_#1 {x} \\input{y} | ~^ `code` $x$ *b* [l](javascript:1)\nnext'
)


def test_names_from_data_are_shown_as_they_are() -> None:
    cells = {"ea": TableCell(1.0, HOSTILE, HOSTILE, "†"), "bleu1": TableCell(2.0)}
    table = PaperTable(
        "Table 0", "t", "Method", ("ea", "bleu1"), [TableRow(HOSTILE, HOSTILE, "here", cells)], [HOSTILE]
    )
    page = formats.markdown(table)
    assert "<" not in page.replace("&lt;", "") and HOSTILE.count("|") == 1
    line = next(line for line in page.splitlines() if "script" in line)
    assert len(re.split(r"(?<!\\)\|", line)) == 6  # four cells between five bars
    name = re.split(r"(?<!\\)\|", line)[1].strip()
    assert html.unescape(re.sub(r"\\(.)", r"\1", name)).split() == HOSTILE.split()
    [first, _] = list(csv.DictReader(io.StringIO(formats.as_csv(table))))
    assert first["name"] == "'" + HOSTILE  # no formula for a spreadsheet
    assert json.loads(formats.as_json(table))["rows"][0]["name"] == HOSTILE


def test_latex_is_escaped_and_balanced() -> None:
    cells = {"ea": TableCell(1.0, HOSTILE, HOSTILE, "†‡", 0.5, 2.0), "params": TableCell(276.6, marks="§")}
    table = PaperTable(
        "Table 0", "t", "Method", ("ea", "params"), [TableRow(HOSTILE, "m", "here", cells)], [HOSTILE]
    )
    source = formats.latex(table)
    body = source.split("\\midrule\n")[1].split("\\bottomrule")[0]
    assert body.count(" \\\\\n") == 1 and len(re.findall(r"(?<!\\)&", body)) == 3
    assert "1.0 [0.5, 2.0]$^{\\dagger}$$^{\\ddagger}$" in body and "276.60$^{\\S}$" in body
    ours = {r"\dagger", r"\ddagger", r"\S", r"\textbackslash", r"\textless", r"\textgreater"}
    ours |= {r"\textasciitilde", r"\textasciicircum", r"\\"} | {f"\\{c}" for c in "&%$#_{}"}
    assert set(re.findall(r"\\(?:[A-Za-z]+|.)", body)) <= ours  # \input is text
    plain = re.sub(r"\\[{}]", "", source)
    assert plain.count("{") == plain.count("}")
    assert len(re.findall(r"(?<!\\)\$", source)) % 2 == 0
    assert source.count("\\begin{") == source.count("\\end{") == 2
