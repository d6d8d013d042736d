"""Every page is filled by one environment, which escapes words and keeps their direction to themselves."""

from pathlib import Path

from markupsafe import Markup

from pipeline.common.page_templates import environment
from tests.imports import ROOT

OF_NO_PAGE = {"model/emosem/model_card.py"}
"""Fills Markdown, with escapes of its own."""


def test_words_are_escaped_and_isolated_and_markup_is_kept(tmp_path: Path) -> None:
    (tmp_path / "t.html").write_text("{{ word }}|{{ markup }}", encoding="utf-8")
    page = environment(tmp_path).get_template("t.html").render(word="<b>\u202e", markup=Markup("<i>x</i>"))
    assert page == "\u2068&lt;b&gt;\u202e\u2069|<i>x</i>"


def test_no_page_has_an_environment_of_its_own() -> None:
    files = [file for package in ("pipeline", "model") for file in (ROOT / package).rglob("*.py")]
    own = {f.relative_to(ROOT).as_posix() for f in files if " Environment(" in f.read_text(encoding="utf-8")}
    assert own - OF_NO_PAGE == {"pipeline/common/page_templates.py"}
