"""Strips show what they say, failures are sorted as by hand, and pictures have names and can be enlarged."""

import re
import shutil
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from model.report.quality import row_sentence
from model.report.strips import FAILURES, best_median_worst, kind_of_failure
from pipeline.common.emotions import EMOTIONS
from pipeline.common.errors import UserError
from pipeline.common.params import Paths
from tests.model.report.test_step import Page, assert_loads_nothing, build
from tests.worlds import indexed_shards


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Paths:
    """A world in which every step has run. Read only."""
    return indexed_shards.write_everything(tmp_path_factory.mktemp("strips"))


@pytest.fixture(scope="module")
def text(world: Paths) -> str:
    return build(world, items=2, strip=2, artworks=1)


def box(top: int, bottom: int, left: int, right: int) -> np.ndarray:
    mask = np.zeros((20, 20), dtype=bool)
    mask[top:bottom, left:right] = True
    return mask


@pytest.mark.parametrize(
    "mask, others, kind",
    [
        (box(0, 0, 0, 0), [], "nothing"),
        (box(0, 10, 10, 20), [box(0, 10, 10, 20)], "another emotion's"),
        (box(0, 10, 10, 20), [box(15, 20, 0, 5)], "elsewhere"),
        (box(0, 20, 0, 20), [box(15, 20, 0, 5)], "too large"),
        (box(0, 4, 0, 3), [], "too small"),
        (box(0, 4, 5, 20), [], "partly"),
    ],
)
def test_how_a_mask_fails(mask: np.ndarray, others: list[np.ndarray], kind: str) -> None:
    assert kind_of_failure(box(0, 8, 0, 8), mask, others) == kind
    assert kind in FAILURES


@given(
    st.dictionaries(
        st.tuples(st.text("ab", min_size=3, max_size=6), st.sampled_from(EMOTIONS)), st.floats(0, 1)
    ),
    st.integers(0, 5),
)
def test_best_median_and_worst_are_in_order_and_apart(ious: dict, count: int) -> None:
    strips = best_median_worst(ious, count)
    places = [place for strip in strips.values() for place in strip]
    assert len(places) == len(set(places)) == 3 * min(count, len(ious) // 3)
    values = [ious[place] for place in places]
    assert values == sorted(values, reverse=True)
    left = [value for place, value in ious.items() if place not in places]
    if places and left:
        shown = min(count, len(ious) // 3)
        assert max(left) <= values[shown - 1] and min(left) >= values[-shown]


def test_pictures_say_title_emotion_and_iou_and_can_be_enlarged(text: str) -> None:
    page = Page(text)
    assert_loads_nothing(page, text)
    alts = [value for name, value in page.attributes if name == "alt"]
    assert len(alts) == page.tags["img"] > 12
    assert all(re.match(rf"Title\.\d, ({'|'.join(EMOTIONS)}): \w", alt) for alt in alts), alts
    assert "Title.0, " in " ".join(alts)
    masks = [alt for alt in alts if "EmoSEM single" in alt]
    assert masks and all(re.search(r", IoU [01]\.\d\d$", alt) for alt in masks)
    ids = [value for name, value in page.attributes if name == "id"]
    links = [value.removeprefix("#") for name, value in page.attributes if name == "href"]
    assert len(ids) == len(set(ids))
    assert set(links) <= set(ids)
    assert text.count('class="open"') == text.count('class="close"') == page.tags["img"]


def test_strips_and_grids_are_there_and_leave_the_rest_empty(text: str, world: Paths) -> None:
    for heading in ("Best, median, worst", "How masks fail", "All eight emotions", "Where it comes from"):
        assert f"<h2>{heading}</h2>" in text
    (grid,) = re.findall(r'<table class="eight">(.*?)</table>', text, re.DOTALL)
    assert grid.count("<img") == 2 * 3  # two emotions: truth, pseudo-mask, single
    assert grid.count('aria-label="none"') == 6 * 3
    bare = build(world, items=1)
    assert "Best, median, worst" not in bare and "How masks fail" not in bare


def test_what_it_says_of_the_rows_adds_up() -> None:
    rows = {"in": 1010, "kept": 1000, "in_shards": 990, "something_else": 7, "rejected": {"no-image": 3}}
    said = row_sentence(rows)
    assert "Of 1,010 rows of the csv, 1,000 name" in said and "990 of them are in the shards" in said
    assert said.endswith("and 3 were rejected (3 no-image).")
    assert row_sentence(None) == ""


def test_labels_that_are_not_there_name_the_step(world: Paths, tmp_path: Path) -> None:
    shutil.copytree(world.data.parent, tmp_path / "world")
    paths = indexed_shards.paths_in(tmp_path / "world")
    (paths.step("shards") / "labels.parquet").unlink()
    with pytest.raises(UserError, match="run the shards step"):
        build(paths)
