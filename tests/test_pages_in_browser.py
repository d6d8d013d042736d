"""Report, artwork, sheet and statistics pages in a browser: nothing is loaded or runs, and all of it fits."""

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from model.report.contact_sheet import Choice, write_contact_sheet
from model.report.look import look
from model.report.step import ReportParams, build_report
from pipeline.backbones.params import BackbonesParams
from pipeline.shard_stats.command import answer
from pipeline.shard_stats.labels import ShardStatsParams
from tests.worlds import indexed_shards, labelled_shards

sync_api = pytest.importorskip("playwright.sync_api")
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="no Chromium is installed")
WIDTHS = (1440, 390)
PAGES = ("report", "look", "sheet", "stats")


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with sync_api.sync_playwright() as playwright:
        options = ["--no-sandbox", "--disable-gpu"]
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=options)
        yield browser
        browser.close()


@pytest.fixture(scope="module")
def pages(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The four pages, of worlds whose words are hostile."""
    root = tmp_path_factory.mktemp("pages")
    paths = indexed_shards.write_everything(root / "everything", hostile=True)
    build_report(paths, ReportParams(items=4), BackbonesParams())
    artwork = look(paths, indexed_shards.keys(8)[0], root / "look.html")
    labelled = indexed_shards.paths_in(root / "labelled")
    labelled_shards.write_labelled(labelled, count=12)
    labelled_shards.index_labelled(labelled)
    labelled.wikiart.mkdir()
    for _, painting in indexed_shards.artworks(12):
        size = (labelled_shards.HEIGHT, labelled_shards.WIDTH, 3)
        picture = np.random.default_rng(0).integers(0, 255, size, np.uint8)
        cv2.imwrite(str(labelled.wikiart / f"{painting}.jpg"), picture)
    params = ShardStatsParams()
    write_contact_sheet(labelled, Choice(worst=8), params, root / "sheet.html")
    answer(labelled.step("shards"), params, "emotion", 20, None, None, root / "stats.html")
    return {
        "report": paths.report / "index.html",
        "look": artwork,
        "sheet": root / "sheet.html",
        "stats": root / "stats.html",
    }


@pytest.fixture(params=[(name, width) for name in PAGES for width in WIDTHS], ids=lambda p: f"{p[0]}-{p[1]}")
def page(request: pytest.FixtureRequest, browser: Any, pages: dict[str, Path]) -> Iterator[Any]:
    name, width = request.param
    opened = browser.new_page(viewport={"width": width, "height": 900})
    asked: list[str] = []
    said: list[str] = []
    opened.on("request", lambda request: asked.append(request.url))
    opened.on("console", lambda message: said.append(message.text))
    opened.on("pageerror", lambda error: said.append(str(error)))
    opened.on("dialog", lambda dialog: (said.append(dialog.message), dialog.dismiss()))
    opened.goto(pages[name].as_uri())
    yield opened
    opened.close()
    assert not [url for url in asked if not url.startswith(("file:", "data:"))]
    assert said == []


def test_it_fits_and_every_picture_and_link_has_what_it_needs(page: Any) -> None:
    assert page.evaluate("document.documentElement.scrollWidth <= window.innerWidth")
    assert page.locator("h1").count() == 1
    assert page.evaluate("[...document.images].every((image) => image.alt && image.naturalWidth > 0)")
    targets = "[...document.querySelectorAll('a[href^=\"#\"]')].map((link) => link.hash.slice(1))"
    assert page.evaluate(f"{targets}.every((id) => id === '' || document.getElementById(id) !== null)")
    assert page.evaluate("document.scripts.length") == 0


def test_hostile_words_are_words(browser: Any, pages: dict[str, Path]) -> None:
    for name in ("report", "look"):
        opened = browser.new_page()
        opened.goto(pages[name].as_uri())
        assert "<script>alert(1)</script>" in opened.evaluate("document.body.innerText")
        opened.close()


def test_a_mask_is_enlarged_by_keyboard_and_put_back(browser: Any, pages: dict[str, Path]) -> None:
    opened = browser.new_page(viewport={"width": 1440, "height": 900})
    opened.goto(pages["report"].as_uri())
    link = opened.locator("figure a[href^='#']:has(img), a.enlarge").first
    before = link.locator("img").first.bounding_box()["width"]
    link.focus()
    opened.keyboard.press("Enter")
    wide = "Math.max(...[...document.images].map((image) => image.getBoundingClientRect().width))"
    assert opened.evaluate(wide) > 1.5 * before
    opened.go_back()
    assert link.locator("img").first.bounding_box()["width"] == before
    opened.close()
