"""`bench drift`: its masks are SAM's own, and its numbers what a slow count gives."""

from pathlib import Path

import numpy as np
import pytest
from segment_anything import SamPredictor

from model.bench import drift
from pipeline.backbones.sam import SamEncoder, load_sam_model
from pipeline.common.errors import UserError
from tests.pipeline.backbones.test_sam import painting
from tests.worlds.backbones import write_backbones


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_backbones(tmp_path_factory.mktemp("weights")).sam.checkpoint


def test_masks_are_those_of_the_official_predictor(checkpoint: Path) -> None:
    image = painting(90, 60)
    encoder = SamEncoder(load_sam_model("tiny", checkpoint), "cpu")
    sam = load_sam_model("tiny", checkpoint)
    found = drift.mask_logits(sam, encoder.encode([image]), encoder.input_size(60, 90))
    assert found.shape == (16 + 5, 22, 32)  # the decoder's frame is half of the input's 64
    predictor = SamPredictor(sam)
    predictor.set_image(image)

    def low(**prompt: np.ndarray) -> np.ndarray:
        return predictor.predict(**prompt, multimask_output=False, return_logits=True)[2][0, :22]

    point = low(point_coords=np.array([[90 * 0.375, 60 * 0.875]]), point_labels=np.array([1]))
    np.testing.assert_allclose(found[4 * 1 + 3], point, atol=1e-5)
    box = low(box=np.array([45.0, 0.0, 90.0, 30.0]))
    np.testing.assert_allclose(found[16 + 1], box, atol=1e-5)


def test_numbers_are_those_of_a_slow_count(checkpoint: Path) -> None:
    images = [painting(90, 60), painting(40, 80)]
    sam = load_sam_model("tiny", checkpoint)
    found = drift.measure_drift(sam, images, "cpu")
    encoder = SamEncoder(load_sam_model("tiny", checkpoint), "cpu")
    largest, means, flips, ious = [], [], [], []
    for image in images:
        size = encoder.input_size(*image.shape[:2])
        grid = encoder.encode([image])
        exact = drift.mask_logits(sam, grid, size).numpy()
        coarse = drift.mask_logits(sam, grid.half().float(), size).numpy()
        for a, b in zip(exact, coarse, strict=True):
            largest.append(np.abs(a - b).max())
            means.append(np.abs(a - b).mean())
            flips.append(((a > 0) != (b > 0)).mean())
            if (a > 0).mean() >= 0.01:
                ious.append(((a > 0) & (b > 0)).sum() / ((a > 0) | (b > 0)).sum())
    form = found["forms"]["float16"]
    assert form["max_logit"] == pytest.approx(max(largest), abs=1e-5)
    assert form["mean_logit"] == pytest.approx(np.mean(means), abs=1e-6)
    assert form["flipped_percent"] == pytest.approx(100 * np.mean(flips), abs=1e-4)
    assert form["iou_percent"] == pytest.approx(100 * np.mean(ious), abs=1e-3)
    assert (found["pictures"], found["prompts"]) == (2, 21)
    # 64x43 and 32x64 pixels of 64x64 in cells of 8: 8x6 and 4x8 of 8x8
    assert found["padding_percent"] == pytest.approx(100 * (1 - (48 + 32) / 128))


def test_coarser_forms_drift_more_and_a_picture_without_padding_loses_none(checkpoint: Path) -> None:
    sam = load_sam_model("tiny", checkpoint)
    forms = drift.measure_drift(sam, [painting(64, 64)], "cpu")["forms"]
    assert 0 < forms["float16"]["mean_logit"] < forms["int8"]["mean_logit"]
    assert forms["float16"]["mean_logit"] < forms["bf16 encoder"]["mean_logit"]
    assert forms["float16, padding left out"] == forms["float16"]
    padded = drift.measure_drift(sam, [painting(64, 20)], "cpu")["forms"]
    assert padded["float16, padding left out"]["mean_logit"] > padded["float16"]["mean_logit"]


def test_from_a_params_file(tmp_path: Path, tiny_gallery: Path, checkpoint: Path) -> None:
    """Only csv, pictures and SAM are needed: no step has run."""
    file = tmp_path / "params.yaml"
    csv = tiny_gallery / "artemis" / "artemis_dataset_release_v0.csv"
    text = f"""
paths: {{artemis: {csv}, wikiart: {tiny_gallery / "wikiart"}, apolo: {tiny_gallery / "apolo"}}}
backbones: {{sam: {{checkpoint: {checkpoint}}}, device: cpu}}
bench: {{artworks: 3}}
"""
    file.write_text(text)
    found = drift.run(file)
    assert found["pictures"] == 3 and found["sam"] == "tiny"
    assert list(found["forms"])[:2] == ["float16", "int8"]
    file.write_text(text.replace(f"{tiny_gallery}/wikiart", str(tmp_path)))
    with pytest.raises(UserError, match=r"no artwork of .* has a readable picture"):
        drift.run(file)
