"""The frozen encoders against the packages they come from, and the hash check."""

import hashlib
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from segment_anything import sam_model_registry
from segment_anything.utils.transforms import ResizeLongestSide

from pipeline.backbones.clip import load_clip
from pipeline.backbones.decode_ahead import pictures, read_artwork
from pipeline.backbones.params import BackbonesParams, SamParams
from pipeline.backbones.sam import SamEncoder, load_sam, load_sam_model
from pipeline.backbones.tensors import read_tensors
from pipeline.backbones.weight_hashes import verify_weights
from pipeline.common.errors import UserError
from pipeline.releases.wikiart import BadImage
from tests.worlds.backbones import write_backbones

RNG = np.random.default_rng(1)
SMOOTH = np.array(
    Image.fromarray(RNG.integers(0, 256, (9, 12, 3), np.uint8)).resize((200, 150), Image.Resampling.BICUBIC)
)
IMAGES = [SMOOTH, np.ascontiguousarray(SMOOTH[:140, :70]), RNG.integers(0, 256, (30, 31, 3), np.uint8)]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("weights")
    write_backbones(out)
    return out


@pytest.fixture(scope="module")
def sam(folder: Path) -> SamEncoder:
    return load_sam("tiny", folder / "sam.safetensors", "cpu")


def test_sam_equals_segment_anything(sam: SamEncoder, folder: Path) -> None:
    model = load_sam_model("tiny", folder / "sam.safetensors")
    resizer = ResizeLongestSide(sam.img_size)
    expected = []
    for image in IMAGES:
        resized = torch.from_numpy(resizer.apply_image(image)).permute(2, 0, 1)
        assert tuple(resized.shape[1:]) == sam.input_size(*image.shape[:2])
        expected.append(model.preprocess(resized))
    torch.testing.assert_close(
        torch.stack([sam.preprocess(image) for image in IMAGES]), torch.stack(expected)
    )
    with torch.inference_mode():
        grids = model.image_encoder(torch.stack(expected))
    torch.testing.assert_close(sam.encode(IMAGES), grids)
    one_by_one = torch.cat([sam.encode([image]) for image in IMAGES])
    torch.testing.assert_close(one_by_one, grids, atol=1e-5, rtol=1e-5)
    assert sam.sha256 == verify_weights(folder / "sam.safetensors")


def test_sam_padding_is_zero_after_normalisation(sam: SamEncoder) -> None:
    height, width = sam.input_size(140, 70)
    padded = sam.preprocess(IMAGES[1])
    assert (height, width) == (64, 32)
    assert padded[:, :, width:].abs().max() == 0
    assert padded[:, :, :width].abs().min() > 0


@pytest.mark.parametrize("arch", ["vit_b"])
def test_official_sam_builder_on_meta(arch: str) -> None:
    """The wiring of `build_sam` at official sizes has the official names and shapes."""
    from pipeline.backbones.sam import SamConfig, build_sam

    config = SamConfig(
        img_size=1024,
        patch_size=16,
        embed_dim=768,
        depth=12,
        num_heads=12,
        window_size=14,
        global_attn_indexes=(2, 5, 8, 11),
        out_chans=256,
        decoder_num_heads=8,
        decoder_mlp_dim=2048,
        iou_head_hidden_dim=256,
    )
    with torch.device("meta"):
        ours, official = build_sam(config), sam_model_registry[arch](checkpoint=None)
    shapes = {name: tuple(value.shape) for name, value in official.state_dict().items()}
    assert {name: tuple(value.shape) for name, value in ours.state_dict().items()} == shapes
    assert sum(p.numel() for p in ours.parameters()) == 93_735_472


def test_a_flipped_byte_is_refused(tmp_path: Path) -> None:
    write_backbones(tmp_path)
    for name in ("sam.safetensors", "clip.json", "bpe.txt.gz"):
        data = bytearray((tmp_path / name).read_bytes())
        data[len(data) // 2] ^= 1
        (tmp_path / name).write_bytes(bytes(data))
        with pytest.raises(UserError, match=rf"{name}.*SHA-256"):
            load_sam("tiny", tmp_path / "sam.safetensors", "cpu")
            load_clip("tiny", tmp_path / "clip.safetensors", "cpu")
        data[len(data) // 2] ^= 1
        (tmp_path / name).write_bytes(bytes(data))
    load_sam("tiny", tmp_path / "sam.safetensors", "cpu")


def test_verify_lists_and_folders(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="do not exist"):
        verify_weights(tmp_path / "absent.pth")
    (tmp_path / "gpt2").mkdir()
    (tmp_path / "gpt2" / "config.json").write_text("{}")
    (tmp_path / "gpt2" / "model.safetensors").write_bytes(b"weights")
    free = verify_weights(tmp_path / "gpt2")
    assert free == verify_weights(tmp_path / "gpt2") and len(free) == 64
    hashes = {"gpt2/config.json": verify_weights(tmp_path / "gpt2" / "config.json")}
    (tmp_path / "sha256.json").write_text(json.dumps(hashes))
    listed = verify_weights(tmp_path / "gpt2")
    with pytest.raises(UserError, match=r"does not list gpt2/model\.safetensors"):
        verify_weights(tmp_path / "gpt2" / "model.safetensors")
    (tmp_path / "gpt2" / "config.json").write_text("{ }")
    with pytest.raises(UserError, match=r"gpt2/config\.json has SHA-256"):
        verify_weights(tmp_path / "gpt2")
    assert listed


def test_wrong_weights_name_the_keys(folder: Path, tmp_path: Path) -> None:
    state = torch.load(_as_pth(folder, tmp_path), weights_only=True)
    state["extra"] = torch.zeros(1)
    del state["mask_decoder.iou_token.weight"]
    torch.save(state, tmp_path / "bad.pth")
    with pytest.raises(UserError, match=r"missing: mask_decoder.iou_token.weight[\s\S]*not expected: extra"):
        from pipeline.backbones.sam import build_sam, load_strictly
        from tests.worlds.backbones import SAM

        load_strictly(build_sam(SAM), read_tensors(tmp_path / "bad.pth"), "SAM tiny", tmp_path / "bad.pth")


def test_pickles_with_code_are_refused(tmp_path: Path) -> None:
    torch.save({"a": Path("/")}, tmp_path / "evil.pth")
    with pytest.raises(UserError, match="cannot be read"):
        load_sam_model("vit_b", tmp_path / "evil.pth")


def _as_pth(folder: Path, out: Path) -> Path:
    from safetensors.torch import load_file

    torch.save(load_file(folder / "sam.safetensors"), out / "sam.pth")
    return out / "sam.pth"


def test_cuda_without_a_gpu_is_a_users_mistake() -> None:
    if torch.cuda.is_available():
        pytest.skip("this machine has a GPU")
    with pytest.raises(UserError, match="sees no GPU"):
        BackbonesParams(sam=SamParams(), device="cuda").torch_device()
    assert BackbonesParams().torch_device() == "cpu"


def test_pictures_keep_their_order_and_their_errors(tmp_path: Path) -> None:
    rows = []
    for number in range(12):
        Image.fromarray(np.full((4, 5 + number, 3), number, np.uint8)).save(tmp_path / f"{number}.png")
        rows.append({"path": f"{number}.png", "width": 5 + number, "height": 4})
    (tmp_path / "3.png").write_bytes(b"no picture")
    rows[7]["width"] = 99
    found = list(pictures(tmp_path, rows))
    assert [row for row, _ in found] == rows
    reasons = {i: image.reason for i, (_, image) in enumerate(found) if isinstance(image, BadImage)}
    assert reasons == {3: "not-an-image", 7: "changed-size"}
    assert int(read_artwork(tmp_path, rows[11]).max()) == 11


def test_a_picture_that_changed_since_it_was_hashed_is_told(tmp_path: Path) -> None:
    Image.new("RGB", (5, 4), "red").save(tmp_path / "a.png")
    digest = hashlib.sha256((tmp_path / "a.png").read_bytes()).hexdigest()
    row = {"path": "a.png", "width": 5, "height": 4, "sha256": digest}
    assert read_artwork(tmp_path, row).shape == (4, 5, 3)
    for size in ((5, 4), (50, 40)):
        Image.new("RGB", size, "blue").save(tmp_path / "a.png")
        with pytest.raises(BadImage, match="changed-content"):
            read_artwork(tmp_path, row)
