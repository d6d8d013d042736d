"""The review page in a real browser, its server in a process of its own."""

import hashlib
import json
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from pipeline.common import rle
from pipeline.common.params import Paths
from pipeline.masks.reviewed import mask_of_runs
from pipeline.reader.index import Index
from pipeline.reviews.verdicts import Verdict, read_reviews
from pipeline.shard_stats.labels import Labels, ShardStatsParams
from tests.pipeline.review.world import COUNT, EACH, HOSTILE, Running, serving, write_reviewed

sync_api = pytest.importorskip("playwright.sync_api")
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="no Chromium is installed")
Page = Any
SETTLED = "body[aria-busy=false]"
ANSWERED = """() => performance.getEntriesByType('resource')
    .filter((entry) => entry.name.endsWith('verdict') && entry.responseStatus === 200).length"""
UNCOVERED = """() => {
    const canvas = document.getElementById('canvas'), pen = canvas.getContext('2d');
    const read = () => pen.getImageData(0, 0, canvas.width, canvas.height).data.slice();
    const covered = read();
    at('shade').click();
    const bare = read();
    at('shade').click();
    let same = 0;
    for (let n = 0; n < bare.length; n += 4)
        same += covered[n] === bare[n] && covered[n + 1] === bare[n + 1];
    return same;
}"""


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with sync_api.sync_playwright() as playwright:
        options = ["--no-sandbox", "--disable-gpu"]
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=options)
        yield browser
        browser.close()


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Paths:
    return write_reviewed(tmp_path_factory.mktemp("reviewed"))


@pytest.fixture
def paths(made: Paths) -> Paths:
    shutil.rmtree(made.reviews, ignore_errors=True)
    return made


@pytest.fixture
def server(paths: Paths) -> Iterator[Running]:
    with serving(paths.data.parent) as running:
        yield running


@pytest.fixture
def page(browser: Any, server: Running) -> Iterator[Page]:
    with_page = browser.new_page(viewport={"width": 1440, "height": 900})
    asked: list[str] = []
    with_page.on("request", lambda request: asked.append(request.url))
    with_page.goto(server.address)
    settle(with_page)
    yield with_page
    with_page.close()
    foreign = [url for url in asked if not url.startswith((server.address, "data:"))]
    assert not foreign


def settle(page: Page) -> None:
    page.wait_for_selector(SETTLED)


def press(page: Page, key: str) -> None:
    """Press a key and wait until what it does is done."""
    page.keyboard.press(key)
    settle(page)


def shown(page: Page) -> tuple[str, str]:
    """(key, emotion) of the mask on the page, by its address."""
    found = re.search(r"at=([0-9a-f]{16})\.([a-z]+)", page.url)
    assert found
    return found[1], found[2]


def verdicts(paths: Paths) -> dict[tuple[str, str, str], Verdict]:
    return {(v.by, v.key, v.emotion): v for v in read_reviews(paths.reviews).verdicts}


def test_keys_judge_worst_first_and_undo_takes_back(page: Page, paths: Paths) -> None:
    labels = Labels.read(paths.step("shards"), ShardStatsParams())
    order = labels.worst_first()
    expected = list(zip(labels.texts("key")[order], labels.texts("emotion")[order], strict=True))
    given = {"1": "good", "2": "wrong-place", "3": "too-big", "4": "not-visible", "s": "skip"}
    for place, key in enumerate(given):
        assert shown(page) == expected[place]
        press(page, key)
    index = Index.load(paths.step("shards"))
    found = verdicts(paths)
    assert [found["anna", *pair].verdict for pair in expected[:5]] == list(given.values())
    for (_, key, emotion), verdict in found.items():
        assert verdict.mask == hashlib.sha256(index.read(key, f"{emotion}.png")).hexdigest()
    press(page, "u")
    assert shown(page) == expected[4] and ("anna", *expected[4]) not in verdicts(paths)
    press(page, "u")
    assert shown(page) == expected[3] and len(verdicts(paths)) == 3
    assert page.inner_text("#progress") == f"3 of {COUNT * EACH} judged by you"
    press(page, "ArrowLeft")
    assert shown(page) == expected[2] and page.inner_text("#mine") == "You said: too-big"
    press(page, "1")  # a second thought
    assert verdicts(paths)["anna", *expected[2]].verdict == "good" and shown(page) == expected[3]


def test_reload_and_kill_lose_nothing(page: Page, paths: Paths, server: Running, browser: Any) -> None:
    for _ in range(3):
        press(page, "1")
    here = shown(page)
    page.reload()
    settle(page)
    assert shown(page) == here and page.inner_text("#progress").startswith("3 of ")
    press(page, "2")
    noted = verdicts(paths)
    server.kill()
    place = shown(page)
    page.keyboard.press("1")
    page.wait_for_selector("#message:not([hidden])")
    assert "does not answer" in page.inner_text("#message") and shown(page) == place
    assert verdicts(paths) == noted and len(noted) == 4
    with serving(paths.data.parent) as again:
        other = browser.new_page()
        other.goto(again.address)
        settle(other)
        assert shown(other) == place and other.inner_text("#progress").startswith("4 of ")
        other.close()


def test_killed_at_any_moment_every_answered_verdict_is_there(browser: Any, paths: Paths) -> None:
    """The page counts what was answered; the server dies in the middle of a volley."""
    with serving(paths.data.parent) as running:
        page = browser.new_page()
        page.goto(running.address)
        settle(page)
        for number in range(12):
            if number == 9:
                page.keyboard.press("1")
                running.kill()
                break
            press(page, "1")
        page.wait_for_timeout(300)
        count = page.evaluate(ANSWERED)
        page.close()
    found = read_reviews(paths.reviews)
    assert 9 <= count <= len(found.verdicts) <= 10 and not found.bad


def test_two_reviewers_at_once(page: Page, paths: Paths, server: Running, browser: Any) -> None:
    other = browser.new_page()
    other.goto(f"{server.address}#by=Žofie")
    settle(other)
    assert shown(other) == shown(page)  # both see everything
    for turn in range(6):
        press(page, "1" if turn % 2 else "2")
        press(other, "1" if turn else "3")
    other.click("#numbers summary")
    other.get_by_text("(anna 6, Žofie 6)").wait_for()
    other.close()
    assert len(verdicts(paths)) == 12 and len(list(paths.reviews.glob("*.jsonl"))) == 2
    page.select_option("[name=show]", "disputed")
    settle(page)
    seen = set()
    for _ in range(3):  # the three on which they differ
        seen.add(shown(page))
        press(page, "ArrowRight")
    assert len(seen) == 3


def test_filters_choose(page: Page, paths: Paths) -> None:
    labels = Labels.read(paths.step("shards"), ShardStatsParams())
    page.select_option("[name=emotion]", "awe")
    settle(page)
    page.select_option("[name=split]", "train")
    settle(page)
    wanted = {
        key
        for key, emotion, split in zip(*(labels.texts(n) for n in ("key", "emotion", "split")), strict=True)
        if (emotion, split) == ("awe", "train")
    }
    seen = set()
    for _ in wanted:
        assert shown(page)[1] == "awe"
        seen.add(shown(page)[0])
        press(page, "1")
    assert seen == wanted
    assert page.inner_text("#message") == "No mask is left for these filters."
    page.select_option("[name=flag]", "nothing")
    settle(page)
    assert page.inner_text("#progress") == "0 of 0 judged by you"
    page.reload()
    settle(page)
    assert page.input_value("[name=emotion]") == "awe"


def lit_pixels(page: Page) -> int:
    """Pixels of the canvas that the mask leaves in their colours, against the bare picture."""
    count: int = page.evaluate(UNCOVERED)
    return count


def test_the_slider_moves_the_mask(page: Page, paths: Paths) -> None:
    key, emotion = shown(page)
    data = Index.load(paths.step("shards")).read(key, f"{emotion}.png")
    mask = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_GRAYSCALE)
    areas = []
    for threshold in ("0.2", "0.35", "0.7"):
        page.locator("#threshold").fill(threshold)
        assert page.inner_text("#threshold-value") == f"{float(threshold):.2f}"
        inside = (mask > int(float(threshold) * 255)).astype(np.uint8)
        own = cv2.erode(inside, np.array([[0, 1, 0], [1, 1, 1], [0, 1, 0]], np.uint8), borderValue=0)
        areas.append(own.mean())
        assert lit_pixels(page) / (180 * 240) == pytest.approx(own.mean(), abs=0.02)
    assert areas == sorted(areas, reverse=True) and areas[0] > areas[2] + 0.02


def test_the_brush_corrects_the_mask(page: Page, paths: Paths) -> None:
    pair = shown(page)
    frame = page.locator("#canvas").bounding_box()
    page.locator("#threshold").fill("1")  # nothing is inside: the correction begins empty
    page.keyboard.press("b")
    page.locator("#size").fill("10")
    across = lambda share: frame["x"] + share * frame["width"]  # noqa: E731
    middle = frame["y"] + frame["height"] / 2
    page.mouse.move(across(0.25), middle)
    page.mouse.down()
    page.mouse.move(across(0.75), middle, steps=4)
    page.mouse.up()
    press(page, "1")
    assert "say what was wrong" in page.inner_text("#message") and not verdicts(paths)
    press(page, "2")
    noted = verdicts(paths)["anna", *pair]
    assert noted.verdict == "wrong-place" and noted.corrected is not None
    runs = rle.decode(noted.corrected, 192, 256)
    found = mask_of_runs(runs, 192, 256) > 0
    y, x = np.mgrid[:192, :256] + 0.5
    from_line = np.hypot(np.maximum(np.abs(x - 128) - 64, 0), y - 96)
    assert (found == (from_line <= 10)).mean() > 0.995  # a line of round dabs
    page.keyboard.press("e")
    assert page.get_attribute("[data-tool=eraser]", "aria-pressed") == "true"
    page.mouse.click(across(0.5), middle)
    page.keyboard.press("z")
    assert page.is_disabled("#clear")
    press(page, "1")
    assert len(verdicts(paths)) == 2


def test_hostile_text_stays_text(page: Page) -> None:
    assert page.title() == "Review of pseudo-masks"
    assert HOSTILE in page.inner_text("#utterances")
    assert page.locator("#utterances img, #utterances script").count() == 0
    press(page, "ArrowRight")
    assert page.title() == "Review of pseudo-masks"


def test_the_static_page_is_read_only(browser: Any, paths: Paths, tmp_path: Path) -> None:
    from typer.testing import CliRunner

    import cli

    file = tmp_path / "static.html"
    params = str(paths.data.parent / "params.yaml")
    done = CliRunner().invoke(
        cli.app, ["review", "--static", str(file), "--count", "5", "--params", params, "--json"]
    )
    assert done.exit_code == 0, done.output
    assert json.loads(done.stdout)["masks"] == 5
    page = browser.new_page(viewport={"width": 390, "height": 844})
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    page.goto(file.as_uri())
    settle(page)
    first = shown(page)
    press(page, "ArrowRight")
    assert shown(page) != first and HOSTILE in page.inner_text("#utterances")
    press(page, "1")
    assert not page.is_visible("#verdicts") and not verdicts(paths)
    wide = page.evaluate("document.documentElement.scrollWidth")
    assert wide <= 390 and page.title() == "Review of pseudo-masks"
    page.close()
    assert [url for url in asked if not url.startswith("data:")] == [file.as_uri()]


def test_a_lost_picture_does_not_stop_anybody(page: Page, paths: Paths) -> None:
    pictures = sorted(paths.wikiart.iterdir())
    for picture in pictures:
        picture.rename(picture.with_suffix(".gone"))
    page.reload()
    settle(page)
    assert "cannot be shown" in page.inner_text("#message")
    here = shown(page)
    press(page, "ArrowRight")
    assert shown(page) != here
    for picture in pictures:
        picture.with_suffix(".gone").rename(picture)


def test_keys_judge_again_once_a_filter_is_chosen(page: Page, paths: Paths) -> None:
    page.locator("[name=split]").focus()
    page.select_option("[name=split]", "train")
    settle(page)
    press(page, "1")
    assert len(verdicts(paths)) == 1
