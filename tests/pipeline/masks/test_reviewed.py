"""What verdicts do to the masks step's files: those of other masks stay as they are, byte by byte."""

import hashlib
import json
from pathlib import Path

import cv2
import numpy as np
import pytest

from pipeline.common import rle
from pipeline.common.errors import RunFailed
from pipeline.common.params import Paths
from pipeline.common.tars import read_tar
from pipeline.masks import step
from pipeline.masks.recipe import MasksParams
from pipeline.masks.reviewed import mask_of_runs
from pipeline.masks.step import build_masks
from pipeline.parallel.map_shards import ParallelParams
from pipeline.reviews.edits import ReviewsParams
from pipeline.reviews.verdicts import Verdict, append
from tests.worlds import labelled_shards

HERE = ParallelParams()
ALL = ReviewsParams(
    wrong_place="replace",
    uncorrected="exclude",
    too_big="down-weight",
    not_visible="exclude",
    splits=("train", "val", "test"),
)
USED = MasksParams(reviews=ALL)


@pytest.fixture
def paths(tmp_path: Path) -> Paths:
    paths = Paths(data=tmp_path / "data", reviews=tmp_path / "reviews")
    labelled_shards.write_labelled(paths, count=12, shards=3)
    return paths


def files(paths: Paths) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(paths.step("masks").iterdir())}


def members(paths: Paths) -> dict[str, bytes]:
    tars = sorted(paths.step("masks").glob("*.tar"))
    return {
        f"{key}.{name}": data for tar in tars for key, entry in read_tar(tar) for name, data in entry.items()
    }


def pngs(paths: Paths) -> list[tuple[str, str, bytes]]:
    """(key, emotion, PNG) of all masks."""
    found = ([*name.split("."), data] for name, data in members(paths).items() if name.endswith(".png"))
    return [(key, emotion, data) for key, emotion, _, data in found]  # type: ignore[misc]


def judge(paths: Paths, place: int, verdict: str, corrected: str | None = None, by: str = "anna") -> None:
    """A verdict on the mask of that number, as it is stored now."""
    key, emotion, data = pngs(paths)[place]
    append(paths.reviews, [verdict_on(key, emotion, data, verdict, corrected, by)])


def verdict_on(
    key: str, emotion: str, data: bytes, verdict: str, corrected: str | None = None, by: str = "anna"
) -> Verdict:
    digest = hashlib.sha256(data).hexdigest()
    name = hashlib.sha256(f"{key}{emotion}{verdict}{by}{digest}".encode()).hexdigest()[:20]
    return Verdict(name, key, emotion, verdict, by, "2026-11-22T12:00:00.000Z", digest, corrected)


def drawn(height: int, width: int) -> tuple[np.ndarray, str]:
    mask = np.zeros((height, width), bool)
    mask[height // 4 : height // 2, width // 3 :] = True
    return mask, rle.encode(mask[None])[0]


def test_good_verdicts_change_no_byte_and_redo_nothing(paths: Paths) -> None:
    before = files(paths)
    judge(paths, 0, "good")
    judge(paths, 1, "wrong-place")
    assert build_masks(paths, MasksParams(), HERE)["skipped"] == 3  # not used, by default
    counts = build_masks(paths, MasksParams(reviews=ReviewsParams(too_big="exclude")), HERE)
    assert counts["skipped"] == 3 and files(paths) == before
    assert (counts["reviews"]["judged"], counts["reviews"]["keep"]) == (2, 2)


def test_each_verdict_changes_its_mask_alone(paths: Paths, capsys: pytest.CaptureFixture[str]) -> None:
    before, masks = members(paths), pngs(paths)
    mask, text = drawn(192, 256)
    judge(paths, 0, "not-visible")
    judge(paths, 1, "too-big")
    judge(paths, 2, "wrong-place", text)
    counts = build_masks(paths, USED, HERE)
    assert (counts["done"], counts["skipped"]) == (1, 2)  # all three are in the first shard
    assert counts["counts"] == {"reviews_excluded": 1, "reviews_down_weighted": 1, "reviews_replaced": 1}
    assert counts["reviews"]["edits"] == sum(counts["counts"].values())
    screen = capsys.readouterr().err
    assert "3 verdicts of 1 reviewers on 3 masks, 3 of them to change" in screen
    assert "1 down-weighted, 1 excluded, 1 replaced" in screen

    after = members(paths)
    names = [f"{key}.{emotion}.png" for key, emotion, _ in masks]
    keys = {key for key, _, _ in masks[:3]}
    assert before.keys() - after.keys() == {names[0]}
    touched = {name for name in after if after[name] != before[name]}
    assert touched == {names[2], *(f"{key}.json" for key in keys)}
    found = cv2.imdecode(np.frombuffer(after[names[2]], np.uint8), cv2.IMREAD_UNCHANGED)
    np.testing.assert_array_equal(found, mask.astype(np.uint8) * 255)
    cards = {key: json.loads(after[f"{key}.json"])["emotions"] for key in keys}
    assert masks[0][1] not in cards[masks[0][0]]
    assert cards[masks[1][0]][masks[1][1]]["weight"] == ALL.weight
    replaced = cards[masks[2][0]][masks[2][1]]
    assert replaced["review"] == {"action": "replace", "verdict": "wrong-place", "reviewers": 1}
    assert replaced["area"] == pytest.approx(mask.mean(), abs=1e-6)
    assert "anna" not in json.dumps(cards)  # names stay out of what is published

    (paths.reviews / "anna.jsonl").unlink()
    assert build_masks(paths, USED, HERE)["done"] == 1 and members(paths) == before


def test_a_correction_at_the_pictures_size_is_averaged(paths: Paths) -> None:
    height, width = labelled_shards.HEIGHT, labelled_shards.WIDTH
    mask, text = drawn(height, width)
    judge(paths, 0, "wrong-place", text)
    assert build_masks(paths, USED, HERE)["counts"] == {"reviews_replaced": 1}
    found = cv2.imdecode(np.frombuffer(pngs(paths)[0][2], np.uint8), cv2.IMREAD_UNCHANGED)
    assert found.shape == (192, 256)
    assert found.mean() / 255 == pytest.approx(mask.mean(), abs=2e-3)


def test_corrections_of_another_picture_and_verdicts_on_another_mask_change_nothing(paths: Paths) -> None:
    before = members(paths)
    judge(paths, 0, "wrong-place", drawn(7, 9)[1])
    judge(paths, 1, "wrong-place", rle.encode(np.zeros((1, 192, 256), bool))[0])
    key, emotion, _ = pngs(paths)[2]
    append(paths.reviews, [verdict_on(key, emotion, b"an earlier mask", "not-visible")])
    append(paths.reviews, [verdict_on("0" * 16, "awe", b"of no artwork", "not-visible")])
    counts = build_masks(paths, USED, HERE)
    assert members(paths) == before
    assert counts["counts"] == {"reviews_unfit": 2, "reviews_stale": 1}
    assert (counts["reviews"]["edits"], counts["reviews"]["unknown_artworks"]) == (3, 1)


def test_a_corrected_mask_may_be_judged_in_its_turn(paths: Paths) -> None:
    first, second = drawn(192, 256)[1], rle.encode(~drawn(192, 256)[0][None])[0]
    judge(paths, 0, "wrong-place", first)
    build_masks(paths, USED, HERE)
    judge(paths, 0, "wrong-place", second, by="bob")
    counts = build_masks(paths, USED, HERE)
    assert counts["counts"] == {"reviews_replaced": 2}
    found = cv2.imdecode(np.frombuffer(pngs(paths)[0][2], np.uint8), cv2.IMREAD_UNCHANGED)
    np.testing.assert_array_equal(found > 0, ~drawn(192, 256)[0])
    assert build_masks(paths, USED, HERE)["skipped"] == 3
    judge(paths, 0, "wrong-place", first, by="bob")  # and back again: the circle ends
    assert build_masks(paths, USED, HERE)["counts"] == {"reviews_replaced": 3}
    key, emotion, data = pngs(paths)[0]
    assert cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED)[60, 200] == 255  # the first
    judge(paths, 0, "not-visible", by="eva")
    judge(paths, 0, "not-visible", by="ida")
    counts = build_masks(paths, USED, HERE)
    assert counts["counts"] == {"reviews_replaced": 1, "reviews_excluded": 1, "reviews_stale": 1}
    assert f"{key}.{emotion}.png" not in members(paths)


def test_verdicts_that_come_in_meanwhile_are_not_lost(paths: Paths, monkeypatch: pytest.MonkeyPatch) -> None:
    judge(paths, 0, "not-visible")
    late = pngs(paths)[40]
    real = step.map_shards

    def judged_meanwhile(*args: object, **options: object) -> object:
        counts = real(*args, **options)  # type: ignore[arg-type]
        append(paths.reviews, [verdict_on(*late, "not-visible")])
        return counts

    with monkeypatch.context() as patched:
        patched.setattr(step, "map_shards", judged_meanwhile)
        with pytest.raises(RunFailed, match="verdicts were added"):
            build_masks(paths, USED, HERE)
    assert build_masks(paths, USED, HERE)["counts"] == {"reviews_excluded": 2}


def test_runs_are_pixels_down_the_columns() -> None:
    mask = np.random.default_rng(1).random((5, 7)) > 0.5
    runs = rle.decode(rle.encode(mask[None])[0], 5, 7)
    np.testing.assert_array_equal(mask_of_runs(runs, 5, 7) == 255, mask)
