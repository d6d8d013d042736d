"""Isolated text, by the algorithm of Unicode's annex 9 as far as it decides what a text can reach."""

import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from model.metrics.markdown import escape, table
from model.report.templates import environment
from pipeline.common.bidi import isolated

OVERRIDE, POP_OVERRIDE, ISOLATE, POP = "\u202e", "\u202c", "\u2067", "\u2069"
HOSTILE = st.text(
    st.sampled_from("ab \u05d0\u0627\u0661\u200f\u202a\u202d\u202e\u202c\u2066\u2067\u2068\u2069\n")
)


def open_after(text: str) -> list[str]:
    """Classes of the embeddings and isolates that are open after a text (X1 to X8, without overflow)."""
    stack: list[str] = []
    for letter in text:
        kind = unicodedata.bidirectional(letter)
        if kind == "B":
            stack = []
        elif kind in ("LRE", "RLE", "LRO", "RLO", "LRI", "RLI", "FSI"):
            stack.append(kind)
        elif kind == "PDF" and stack and not stack[-1].endswith("I"):
            stack.pop()
        elif kind == "PDI" and any(one.endswith("I") for one in stack):
            while not stack.pop().endswith("I"):
                pass
    return stack


@given(HOSTILE, HOSTILE)
def test_a_text_reaches_nothing_around_it(one: str, two: str) -> None:
    """Between two words of ours nothing is open, and no mark of a text closes what was open before it."""
    for line in f"{isolated(one)} ours {isolated(two)} ours".split("\n"):
        assert open_after(line) == []
    safe = isolated(one.replace("\n", " "))
    if any(unicodedata.bidirectional(letter) in ("R", "AL", "AN", "RLO") for letter in one):
        assert safe[0] == "\u2068" and safe[-1] == POP
        inside = [open_after("\u2067" + safe[:end]) for end in range(1, len(safe))]
        assert all(stack[:2] == ["RLI", "FSI"] for stack in inside)  # an outer isolate stays open throughout


@given(HOSTILE)
def test_letters_stay_in_their_order(text: str) -> None:
    kept = [letter for letter in text if letter != POP]
    assert [letter for letter in isolated(text) if letter not in (POP, "\u2068")] == [
        letter for letter in kept if letter != "\u2068"
    ]


@pytest.mark.parametrize("text", ["", "plain", "ca\u0301fe \u2014 \u4e2d\u6587 \U0001f3a8", "a\nb"])
def test_other_text_stays_as_it_is(text: str) -> None:
    assert isolated(text) == text


def test_pages_isolate_what_comes_from_data() -> None:
    hostile = f"a{OVERRIDE}b"
    assert open_after(escape(hostile)) == []
    assert open_after(table(["h"], [[hostile, "1"]])) == []
    page = environment().from_string("<p title='{{ text }}'>{{ text }} ours {{ number }}</p>")
    shown = page.render(text=hostile, number=3)
    assert open_after(shown.split(" ours")[0]) == [] and shown.count(OVERRIDE) == 2
    assert page.render(text="<b>", number=1.5) == "<p title='&lt;b&gt;'>&lt;b&gt; ours 1.5</p>"
