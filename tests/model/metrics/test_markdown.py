"""Markdown tables as markdown-it, GitHub's dialect, reads them."""

import html
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st
from markdown_it import MarkdownIt

from model.metrics.markdown import Markdown, escape, score_table, table

HOSTILE = "<b>`a|b`</b> \\\\| *x* _y_ ~~z~~ [l](javascript:1) &lt; ``\nnext"
TEXT = st.text(alphabet=st.sampled_from(list("ab1é `|\\\\<>&*_~$#+-.![]()\n\t")), max_size=12)


def cells_of(page: str) -> list[list[str]]:
    """What a reader sees in every cell of the only table of a page; a cell with markup fails."""
    rendered = MarkdownIt("commonmark").enable(["table", "strikethrough"]).render(page)
    rows = re.findall(r"<tr>(.*?)</tr>", rendered, re.S)
    cells = [re.findall(r"<t[hd][^>]*>(.*?)</t[hd]>", row, re.S) for row in rows]
    assert not [cell for row in cells for cell in row if "<" in cell], rendered
    return [[html.unescape(cell) for cell in row] for row in cells]


def shown(text: str) -> str:
    return " ".join(text.split())


@given(st.lists(st.lists(TEXT, min_size=3, max_size=3), min_size=1, max_size=4))
def test_any_text_is_read_back_from_its_cell(rows: list[list[str]]) -> None:
    page = table(["one", HOSTILE, "three"], rows, left=2)
    wanted = [["one", shown(HOSTILE), "three"], *([shown(text) for text in row] for row in rows)]
    assert cells_of(page) == wanted


def test_columns_are_aligned_and_markdown_goes_in_as_it_is() -> None:
    page = table(["a", "b"], [[Markdown("**x**"), "1.0"]])
    assert page == "| a | b |\n|---|---:|\n| **x** | 1.0 |"
    assert table(["a", "b"], [], left=2).endswith("|---|---|")


def test_a_sentence_may_keep_its_code() -> None:
    assert escape("run `x --y` <now>", code=True) == "run `x --y` &lt;now&gt;"
    assert escape("see `a_b_ <c>`", code=True) == "see `a_b_ <c>`"


@given(TEXT, st.booleans())
def test_a_line_of_a_list_is_a_plain_line(text: str, code: bool) -> None:
    """No heading, list, rule or markup comes of it; with `code`, code spans may."""
    tokens = MarkdownIt("commonmark").enable(["table", "strikethrough"]).parse(f"- {escape(text, code)}")
    assert [token.type for token in tokens if token.nesting == 1] in (
        ["bullet_list_open", "list_item_open", "paragraph_open"],
        ["bullet_list_open", "list_item_open"],  # of an empty text
    )
    inside = [child for token in tokens if token.type == "inline" for child in token.children or ()]
    assert {child.type for child in inside} <= {"text", "text_special", *(["code_inline"] if code else [])}
    assert "".join(child.content for child in inside).replace("`", "") == shown(text).replace("`", "") or code


def test_a_row_of_scores_has_a_cell_per_column() -> None:
    row = {"method": "mine|<i>", "items": 4, "seg_pr25": 12.345, "ea": 50.0, "ea_sd": 1.25}
    [head, cells] = cells_of(score_table([row]))
    found = dict(zip(head, cells, strict=True))
    assert (found["Method"], found["Items"], found["EA"]) == ("mine|<i>", "4", "50.0 ± 1.2")
    assert found["Seg Pr@25"] == f"{12.345:.2f}" and found["METEOR"] == "-"


@pytest.mark.parametrize("text", ["", "plain-name:no-prefix", "SCA_base + GPT2", "50 % ± 1.0", "#1"])
def test_plain_text_stays_as_it_is(text: str) -> None:
    assert escape(text) == text
