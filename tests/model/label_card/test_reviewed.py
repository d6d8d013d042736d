"""The card's part about reviews: corrections that are APOLO's own truth must end at an IoU of 1."""

import hashlib

import numpy as np
import pytest

from model.label_card.card import make_card
from model.label_card.page import card_text
from pipeline.common import rle
from pipeline.common.params import Paths
from pipeline.masks.png import png_bytes
from pipeline.masks.recipe import MasksParams
from pipeline.reviews.edits import ReviewsParams
from pipeline.reviews.verdicts import Verdict, append
from tests.model.label_card.test_card import (
    FEW,
    FRAME,
    MASKS,
    SCORE,
    artworks,
    items_of,
    plain_maps,
    write_world,
)
from tests.worlds.indexed_shards import paths_in, truth_of

USED = MasksParams(
    long_side=FRAME,
    reviews=ReviewsParams(wrong_place="replace", not_visible="exclude", too_big="down-weight"),
)


@pytest.fixture
def paths(tmp_path_factory: pytest.TempPathFactory) -> Paths:
    folder = tmp_path_factory.mktemp("reviewed")
    paths = Paths(**{**vars(paths_in(folder)), "reviews": folder / "reviews"})
    write_world(paths)
    return paths


def test_the_card_compares_judged_items_before_and_after(paths: Paths) -> None:
    without = make_card(paths, MASKS, SCORE, FEW)
    assert "reviews" not in without
    items, keys = items_of("test"), [key for key, _ in artworks(8)]
    maps, truths = plain_maps(paths, "test", MASKS)
    kinds = ["wrong-place", "not-visible", "too-big", "good", "wrong-place"]
    for place, kind in enumerate(kinds):
        number, emotion = items[place]
        digest = hashlib.sha256(png_bytes(maps[place])).hexdigest()
        if place == 4:
            digest = "0" * 64  # of a mask that is painted no more
        drawn = rle.encode(truth_of(number, emotion)[None])[0] if kind == "wrong-place" else None
        at = "2026-11-22T12:00:00.000Z"
        append(paths.reviews, [Verdict(f"i{place}", keys[number], emotion, kind, "anna", at, digest, drawn)])
    card = make_card(paths, USED, SCORE, FEW)
    assert {name: value for name, value in card.items() if name != "reviews"} == without
    found = card["reviews"]
    ious = []
    for map_, truth in zip(maps[:5], truths[:5], strict=True):
        inside = map_ > 0.35 * 255
        ious.append(100 * (inside & truth).sum() / (inside | truth).sum())
    assert found["judged"] == 5
    assert {name: row["items"] for name, row in found["verdicts"].items()} == {
        "another mask": 1, "good": 1, "not-visible": 1, "too-big": 1, "wrong-place": 1
    }  # fmt: skip
    assert found["edits"]["replaced"] == {
        "items": 1, "mean_iou": pytest.approx(ious[0], abs=1e-6), "after": pytest.approx(100)
    }  # fmt: skip
    assert found["edits"]["excluded"]["after"] is None
    assert found["before"]["mean_iou"] == pytest.approx(np.mean(ious), abs=1e-6)
    left = [100.0, ious[2], ious[3], ious[4]]
    assert found["after"] == {"items": 4, "mean_iou": pytest.approx(np.mean(left), abs=1e-6)}
    assert "People's verdicts" in card_text(card)
