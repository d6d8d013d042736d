"""CLIPScore against the plain computation, with a small random CLIP."""

from pathlib import Path

import cv2
import numpy as np
import open_clip
import pytest
import torch
from open_clip.constants import OPENAI_DATASET_MEAN, OPENAI_DATASET_STD

from model.metrics.clipscore import clipscore, embed_image, embed_sentences
from model.score.clipscore_images import PictureJudge
from pipeline.backbones.clip import Clip, build_clip

CONFIG = {
    "embed_dim": 16,
    "vision_cfg": {"image_size": 32, "layers": 2, "width": 32, "head_width": 16, "patch_size": 8},
    "text_cfg": {"context_length": 24, "vocab_size": 49408, "width": 32, "heads": 2, "layers": 2},
}


@pytest.fixture(scope="module")
def clip() -> Clip:
    torch.manual_seed(0)
    return Clip(build_clip(CONFIG), open_clip.tokenizer.SimpleTokenizer(context_length=24), "cpu")


def plain(clip: Clip, image: np.ndarray, sentence: str) -> float:
    """The definition, for a picture that needs no resizing."""
    pixels = (torch.tensor(image).float() / 255 - torch.tensor(OPENAI_DATASET_MEAN)) / torch.tensor(
        OPENAI_DATASET_STD
    )
    tokens = open_clip.tokenizer.SimpleTokenizer(context_length=24)(["A photo depicts " + sentence])
    with torch.no_grad():
        a = clip.model.encode_image(pixels.permute(2, 0, 1)[None])[0]
        b = clip.model.encode_text(tokens)[0]
    return 100 * 2.5 * max(float(a @ b / a.norm() / b.norm()), 0.0)


def test_equals_the_plain_computation(clip: Clip) -> None:
    rng = np.random.default_rng(0)
    sentences = ["a red house under a storm cloud", "wilted flowers", ""]
    for _ in range(4):
        image = rng.integers(0, 256, (32, 32, 3), dtype=np.uint8)
        picture = embed_image(clip, image)
        found = clipscore(np.stack([picture] * 3), embed_sentences(clip, sentences))
        assert found == pytest.approx([plain(clip, image, s) for s in sentences], abs=1e-3)


def test_opposite_vectors_score_zero_and_equal_ones_250() -> None:
    one = np.array([[1.0, 0.0], [0.6, 0.8], [1.0, 0.0]], np.float32)
    other = np.array([[-1.0, 0.0], [0.6, 0.8], [0.6, 0.8]], np.float32)
    assert clipscore(one, other) == pytest.approx([0.0, 250.0, 150.0], abs=1e-4)


def test_the_middle_square_of_a_picture_is_seen(clip: Clip) -> None:
    """CLIP's own preprocessing: what lies outside the middle square of the long side is not looked at."""
    rng = np.random.default_rng(1)
    image = rng.integers(0, 256, (32, 64, 3), dtype=np.uint8)
    other = image.copy()
    other[:, :16], other[:, 48:] = 0, 255
    assert np.allclose(embed_image(clip, image), embed_image(clip, other), atol=1e-5)
    assert np.allclose(embed_image(clip, image), embed_image(clip, image[:, 16:48]), atol=1e-5)


def test_a_picture_that_cannot_be_read_has_no_score(clip: Clip, tmp_path: Path) -> None:
    image = np.random.default_rng(2).integers(0, 256, (32, 32, 3), dtype=np.uint8)
    cv2.imwrite(str(tmp_path / "good.png"), image[..., ::-1])
    (tmp_path / "bad.jpg").write_text("no picture")
    judge = PictureJudge(clip, {"good": tmp_path / "good.png", "bad": tmp_path / "bad.jpg"})
    found = judge.score(["good", "bad", "unknown", "good"], ["a house", "a house", "a house", "a tree"])
    assert np.isnan(found[1:3]).all()
    assert found[[0, 3]] == pytest.approx([plain(clip, image, s) for s in ("a house", "a tree")], abs=1e-3)
    again = judge.score(["good"], ["a tree"])
    assert again[0] == found[3]


class Compass:
    """Stands in for a CLIP: pictures point where their red says, sentences where their number says."""

    def encode_crops(self, image: np.ndarray, boxes: np.ndarray, fit: str) -> torch.Tensor:
        return self._unit([float(image[0, 0, 0])])

    def encode_text(self, sentences: list[str]) -> torch.Tensor:
        return self._unit([float(sentence.split()[-1]) for sentence in sentences])

    @staticmethod
    def _unit(degrees: list[float]) -> torch.Tensor:
        angle = torch.tensor(degrees).deg2rad()
        return torch.stack([angle.cos(), angle.sin()], dim=1)


def test_own_artwork_against_others_of_the_group(tmp_path: Path) -> None:
    paths = {}
    for name, degrees in (("a", 0), ("b", 90), ("c", 180), ("d", 0)):
        paths[name] = tmp_path / f"{name}.png"
        cv2.imwrite(str(paths[name]), np.full((8, 8, 3), degrees, np.uint8))
    judge = PictureJudge(Compass(), paths)  # type: ignore[arg-type]
    asked = [  # artwork, group, degrees of the sentence
        ("a", "x", 10),  # nearer than b and c
        ("b", "x", 10),  # nearer than c, not than a
        ("c", "x", 10),
        ("b", "x", 170),  # the artwork's second sentence counts by itself
        ("a", "y", 30),  # as near as d
        ("d", "y", 200),
        ("b", "z", 90),  # alone
        ("gone", "x", 10),
    ]
    keys, groups = [row[0] for row in asked], [row[1] for row in asked]
    sentences = [f"sentence {row[2]}" for row in asked]
    judge.score(keys, sentences)
    found = judge.prefer_own(keys, groups, sentences)
    assert found.tolist()[:6] == [1.0, 0.5, 0.0, 0.5, 0.5, 0.5]
    assert np.isnan(found[6:]).all()
