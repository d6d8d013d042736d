"""SAM's image encoder against `segment_anything`'s own predictor: small, and at true size in the slow set."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from segment_anything import SamPredictor, sam_model_registry
from segment_anything.modeling import Sam

from pipeline.backbones.sam import FusedAttention, SamEncoder, build_sam, load_sam, load_sam_model
from tests.imports import ROOT
from tests.worlds.backbones import SAM

RNG = np.random.default_rng(4)
SIZES = [(200, 150), (70, 140), (64, 64), (31, 30), (300, 9), (63, 200)]
"""(width, height); the tests' small SAM has an input of 64."""


def painting(width: int, height: int) -> np.ndarray:
    """Smooth colours with some noise."""
    coarse = Image.fromarray(RNG.integers(0, 256, (5, 7, 3), np.uint8))
    smooth = np.array(coarse.resize((width, height), Image.Resampling.BICUBIC)).astype(int)
    return np.clip(smooth + RNG.integers(-20, 21, smooth.shape), 0, 255).astype(np.uint8)


def awake(sam: Sam) -> Sam:
    """With noise for the positions, which start at zero and would hide a mistake."""
    torch.manual_seed(3)
    for name, weight in sam.image_encoder.named_parameters():
        if "pos" in name:
            torch.nn.init.normal_(weight, std=0.2)
    return sam.eval()


def relative(found: torch.Tensor, expected: torch.Tensor) -> float:
    """Largest difference, as a share of the largest value."""
    return float((found - expected).abs().max() / expected.abs().max())


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> dict[str, torch.Tensor]:
    torch.manual_seed(2)
    return awake(build_sam(SAM)).state_dict()


def small(weights: dict[str, torch.Tensor]) -> Sam:
    sam = build_sam(SAM).eval()
    sam.load_state_dict(weights)
    return sam


def test_grids_are_the_official_predictors_image_by_image(weights: dict[str, torch.Tensor]) -> None:
    images = [painting(*size) for size in SIZES]
    encoder, predictor = SamEncoder(small(weights), "cpu"), SamPredictor(small(weights))
    batched = encoder.encode(images)
    assert batched.dtype == torch.float32 and batched.shape == (6, 16, 8, 8)
    for image, grid in zip(images, batched, strict=True):
        predictor.set_image(image)
        expected = predictor.get_image_embedding()[0]
        assert relative(grid, expected) < 1e-5
        assert predictor.input_size == encoder.input_size(*image.shape[:2])
        assert relative(encoder.encode([image])[0], expected) < 1e-5


def test_attention_is_replaced_once_and_everywhere(weights: dict[str, torch.Tensor]) -> None:
    sam = small(weights)
    first = SamEncoder(sam, "cpu").encode([painting(64, 40)])
    again = SamEncoder(sam, "cpu")
    assert [type(block.attn) for block in again.encoder.blocks] == [FusedAttention] * SAM.depth
    assert not any(isinstance(block.attn.attention, FusedAttention) for block in again.encoder.blocks)
    assert first.shape == (1, 16, 8, 8)


@pytest.mark.parametrize("size", SIZES)
def test_a_resized_picture_is_encoded_as_the_picture_itself(
    weights: dict[str, torch.Tensor], size: tuple[int, int]
) -> None:
    """What lets threads resize while the device works."""
    encoder, image = SamEncoder(small(weights), "cpu"), painting(*size)
    resized = encoder.resize(image)
    assert resized.dtype == np.uint8 and resized.shape[:2] == encoder.input_size(*image.shape[:2])
    assert max(resized.shape) == 64
    assert torch.equal(encoder.preprocess(resized), encoder.preprocess(image))


def test_bf16_is_near_and_compiling_changes_nothing_on_a_cpu(weights: dict[str, torch.Tensor]) -> None:
    images = [painting(*size) for size in SIZES]
    exact = SamEncoder(small(weights), "cpu").encode(images)
    rough = SamEncoder(small(weights), "cpu", precision="bf16").encode(images)
    assert rough.dtype == torch.float32
    assert 0 < relative(rough, exact) < 0.05
    steps = (rough - rough.bfloat16().float()).abs()
    assert steps.max() > 0, "the neck was rounded too"
    assert torch.equal(SamEncoder(small(weights), "cpu", compiled=True).encode(images), exact)


@pytest.mark.parametrize(
    ("arch", "encoder", "total"),
    [
        ("vit_b", 89_670_912, 93_735_472),
        ("vit_l", 308_278_272, 312_342_832),
        ("vit_h", 637_026_048, 641_090_608),
    ],
)
def test_official_sizes(arch: str, encoder: int, total: int) -> None:
    """Parameters of the released files, and that wrapping their attention adds and loses none."""
    with torch.device("meta"):
        sam = sam_model_registry[arch](checkpoint=None)
    assert sum(p.numel() for p in sam.image_encoder.parameters()) == encoder
    assert sum(p.numel() for p in sam.parameters()) == total
    encoder_there = SamEncoder(sam, "meta").encoder
    assert all(isinstance(block.attn, FusedAttention) for block in encoder_there.blocks)
    assert sum(p.numel() for p in encoder_there.parameters()) == encoder


@pytest.mark.gpu
def test_compiled_bf16_on_a_gpu(weights: dict[str, torch.Tensor]) -> None:
    if not torch.cuda.is_available():
        pytest.skip("no GPU")
    images = [painting(*size) for size in SIZES]
    exact = SamEncoder(small(weights), "cpu").encode(images)
    compiled = SamEncoder(small(weights), "cuda", precision="bf16", compiled=True)
    for count in (6, 2, 1):  # later batches are filled up to the first one's shape
        found = compiled.encode(images[:count])
        assert found.shape == (count, 16, 8, 8)
        assert relative(found.cpu(), exact[:count]) < 0.05
    plain = SamEncoder(small(weights), "cuda").encode(images)
    assert relative(plain.cpu(), exact) < 1e-3


@pytest.mark.slow
def test_vit_b_at_true_size_from_an_official_file(tmp_path: Path) -> None:
    torch.manual_seed(0)
    official = awake(sam_model_registry["vit_b"](checkpoint=None))
    file = tmp_path / "sam_vit_b_01ec64.pth"
    torch.save(official.state_dict(), file)
    image = painting(1300, 800)
    predictor = SamPredictor(load_sam_model("vit_b", file))
    predictor.set_image(image)
    grid = load_sam("vit_b", file, "cpu").encode([image])
    assert grid.shape == (1, 256, 64, 64)
    assert relative(grid, predictor.get_image_embedding()) < 1e-5


def test_the_number_of_threads_changes_no_bit_of_the_features(tmp_path: Path) -> None:
    """Of the built-in weights, whose grid a convolution of 1 x 1 used to round by the threads."""
    from pipeline.backbones.clip import load_clip

    images = [painting(300, 200), painting(90, 250)]
    sam = load_sam("tiny", ROOT / "weights/tiny/sam.safetensors", "cpu")
    clip = load_clip("tiny", ROOT / "weights/tiny/clip.safetensors", "cpu")
    squashed = [np.array(Image.fromarray(image).resize((clip.size, clip.size))) for image in images]
    before = torch.get_num_threads()
    grids, tokens = [], []
    try:
        for threads in (1, 2, 3, 4, 7):
            torch.set_num_threads(threads)
            grids.append(sam.encode(images))
            tokens.append(clip.patch_tokens(squashed, "clip"))
    finally:
        torch.set_num_threads(before)
    assert all(torch.equal(grid, grids[0]) for grid in grids)
    assert all(torch.equal(token, tokens[0]) for token in tokens)
