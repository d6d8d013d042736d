"""The baselines that need no training."""

from pathlib import Path

import numpy as np
import pytest

from model.baselines import clip_vinvl, entire_artwork
from model.methods import scaled_maps
from model.metrics.segmentation import Truth
from pipeline.apolo import ApoloItem
from pipeline.params import UserError
from tests.worlds import EMOTIONS_OF, keys, paths_in, png, write_shards


def item(key: str, emotion: str, split: str = "test") -> ApoloItem:
    return ApoloItem("artist_title", key, emotion, split, (0,), ("text",), Path("absent.npy"))


def test_the_entire_artwork_is_scored_as_foreground_and_not_as_a_constant_map() -> None:
    """IoU by pixels is the label's share of the picture; by boxes, the share of its boxes."""
    label = np.zeros((10, 20), bool)
    label[0, :10] = label[:5, 0] = True  # an L of 14 pixels in a box of 5 x 10
    pred = entire_artwork.foreground(item("k", "awe"), 10, 20)
    assert pred.dtype == np.bool_
    assert Truth.of(label).ious(pred) == (14 / 200, 50 / 200)
    assert Truth.of(label, box_truth=False).ious(pred) == (14 / 200, 14 / 200)


def test_the_teacher_is_the_stored_pseudo_mask_of_the_items_emotion(tmp_path: Path) -> None:
    paths = paths_in(tmp_path)
    write_shards(paths, count=6, shards=2)
    teacher = clip_vinvl.PseudoMasks(paths, keys(6))
    for number, key in enumerate(keys(6)):
        emotions = EMOTIONS_OF[number % len(EMOTIONS_OF)]
        for place, emotion in enumerate(emotions):
            map_ = teacher(item(key, emotion))
            assert map_ is not None
            inside = np.zeros((16, 24), bool)
            inside[2:10, 3 + 6 * place : 10 + 6 * place] = True
            assert np.array_equal(map_ > 0, inside)
            values = scaled_maps(teacher, "before-resize")(item(key, emotion), 32, 48)
            assert values is not None
            assert values.shape == (32, 48)
            assert (values > 0.35).sum() == pytest.approx(4 * inside.sum(), rel=0.1)
    assert teacher(item(keys(6)[0], EMOTIONS_OF[1][0])) is None
    assert teacher(item("0" * 16, "awe")) is None


def test_only_shards_of_the_asked_artworks_are_opened(tmp_path: Path) -> None:
    paths = paths_in(tmp_path)
    write_shards(paths, count=4, shards=2)
    (paths.step("masks") / "000001.tar").unlink()
    teacher = clip_vinvl.PseudoMasks(paths, keys(4)[::2])  # those of shard 0
    assert teacher(item(keys(4)[0], EMOTIONS_OF[0][0])) is not None
    with pytest.raises(UserError, match=r"000001.tar does not exist"):
        clip_vinvl.PseudoMasks(paths, keys(4))


def test_a_damaged_mask_is_refused_by_value_error(tmp_path: Path) -> None:
    from model.methods import decode_png

    assert decode_png(png(np.arange(12, dtype=np.uint8).reshape(3, 4))).tolist()[2] == [8, 9, 10, 11]
    assert decode_png(png(np.full((2, 2), 60_000, np.uint16))).max() == 60_000
    for data in (b"", b"no picture", png(np.ones((4, 4), np.uint8))[:30]):
        with pytest.raises(ValueError, match="no picture"):
            decode_png(data)
