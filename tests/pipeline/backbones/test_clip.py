"""CLIP against open_clip used plainly, and its weights in every format that they are published in."""

import json
import os
import pickle
import shutil
import zipfile
from pathlib import Path

import numpy as np
import open_clip
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

from pipeline.backbones import clip_weights, torchscript
from pipeline.backbones.clip import Clip, build_clip, load_clip
from pipeline.backbones.weight_hashes import verify_weights
from pipeline.common.errors import UserError
from pipeline.common.files import write_json
from tests.worlds.backbones import WORDS, write_backbones, write_torchscript

RNG = np.random.default_rng(1)
SMOOTH = np.array(
    Image.fromarray(RNG.integers(0, 256, (9, 12, 3), np.uint8)).resize((200, 150), Image.Resampling.BICUBIC)
)
IMAGES = [SMOOTH, np.ascontiguousarray(SMOOTH[:140, :70]), RNG.integers(0, 256, (30, 31, 3), np.uint8)]
BOXES = np.array([[0, 0, 200, 150], [10, 20, 90, 140], [3, 4, 180, 40]], np.float32)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("weights")
    write_backbones(out)
    (out / "sha256.json").unlink()
    return out


@pytest.fixture(scope="module")
def clip(folder: Path) -> Clip:
    return load_clip("tiny", folder / "clip.safetensors", "cpu")


# ---- what it computes ----------------------------------------------------------------------------------


def test_encode_crops_equals_open_clip(clip: Clip) -> None:
    with torch.inference_mode():
        expected = clip.model.encode_image(clip.normalise(clip.crop(SMOOTH, BOXES)))
    expected = expected / expected.norm(dim=-1, keepdim=True)
    torch.testing.assert_close(clip.encode_crops(SMOOTH, BOXES, batch=2), expected)
    assert clip.encode_crops(SMOOTH, np.empty((0, 4))).shape == (0, 16)


def test_text_equals_open_clip_and_counts_truncation(clip: Clip) -> None:
    texts = [*WORDS, "house " * 40, "the red house looks"]
    before = clip.truncated
    found = clip.encode_text(texts)
    assert clip.truncated - before == 1
    plain = clip.tokenizer(texts, context_length=12)
    torch.testing.assert_close(clip.tokenize(texts), plain)
    with torch.inference_mode():
        expected = clip.model.encode_text(plain)
    torch.testing.assert_close(found, expected / expected.norm(dim=-1, keepdim=True))
    assert clip.encode_text([]).shape == (0, 16)


@pytest.mark.parametrize("words", range(7, 14))
def test_only_texts_that_lose_something_count(clip: Clip, words: int) -> None:
    """Words of one token each; start and end take two of the twelve places."""
    before = clip.truncated
    text = " ".join(["x"] * words)
    clip.tokenize([text])
    assert clip.truncated - before == (words > 10)


def test_hostile_texts(clip: Clip) -> None:
    """Ten megabytes in one word and in many, nothing at all, control characters, emoji, a lone surrogate."""
    many, one = "house " * 1_700_000, "x" * 10_000_000
    controls = "\x00\x01\x1b[31m\u202e\u200b\x7f"
    texts = [many, one, "", " \n\t ", controls, "\U0001f642\U0001f3fd\u200d" * 5, "a\ud800b", "&nbsp;" * 9]
    before = clip.truncated
    found = clip.encode_text(texts)
    assert clip.truncated - before >= 2
    assert torch.isfinite(found).all()
    torch.testing.assert_close(found.norm(dim=-1), torch.ones(len(texts)))
    torch.testing.assert_close(found[0], clip.encode_text(["house " * 300])[0])
    torch.testing.assert_close(found[2], found[3])


@pytest.mark.parametrize("normalisation", ["clip", "imagenet"])
def test_patch_tokens_are_the_last_layers_after_ln_post(clip: Clip, normalisation: str) -> None:
    visual = clip.model.visual
    pixels = []
    for image in IMAGES:
        squashed = Image.fromarray(image).resize((clip.size, clip.size), Image.Resampling.BICUBIC)
        pixels.append(torch.from_numpy(np.array(squashed)).permute(2, 0, 1))
    levels = {
        "clip": (open_clip.OPENAI_DATASET_MEAN, open_clip.OPENAI_DATASET_STD),
        "imagenet": ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
    }
    mean, std = (torch.tensor(level).view(3, 1, 1) for level in levels[normalisation])
    with torch.inference_mode():
        x = visual.conv1((torch.stack(pixels) / 255 - mean) / std).flatten(2).transpose(1, 2)
        x = torch.cat([visual.class_embedding.expand(len(x), 1, -1), x], 1) + visual.positional_embedding
        x = visual.transformer(visual.ln_pre(x))
        expected = visual.ln_post(x[:, 1:])
    tokens = clip.patch_tokens(IMAGES, normalisation)  # type: ignore[arg-type]
    assert tokens.shape == (3, 16, 16)
    assert (tokens - expected).abs().max() < 0.03  # one grey level of resize rounding moves a token this much
    with pytest.raises(ValueError, match="no images"):
        clip.patch_tokens([])


def test_pooled_regions_are_means_of_their_patches(clip: Clip) -> None:
    """The picture is 4 x 4 patches: one of them, a row of them, and all."""
    height, width = SMOOTH.shape[:2]
    cell = np.array([width / 4, height / 4] * 2)
    boxes = np.array([[1, 2, 2, 3], [0, 1, 4, 2], [0, 0, 4, 4]]) * cell
    found = clip.pool_regions([IMAGES[1], SMOOTH], [np.empty((0, 4)), boxes])
    assert found[0].shape == (0, 16)
    patches = (clip.patch_tokens([SMOOTH]) @ clip.model.visual.proj)[0].view(4, 4, 16)
    expected = torch.stack([patches[2, 1], patches[1].mean(0), patches.mean((0, 1))])
    torch.testing.assert_close(found[1], torch.nn.functional.normalize(expected, dim=-1))


@pytest.mark.parametrize(("precision", "bound"), [("bf16", 1e-3), ("fp16", 1e-5)])
def test_lower_precision_stays_close(clip: Clip, folder: Path, precision: str, bound: float) -> None:
    low = load_clip("tiny", folder / "clip.safetensors", "cpu", precision=precision)  # type: ignore[arg-type]
    pairs = [
        (clip.encode_crops(SMOOTH, BOXES), low.encode_crops(SMOOTH, BOXES)),
        (clip.encode_text(WORDS), low.encode_text(WORDS)),
    ]
    for full, half in pairs:
        assert half.dtype == torch.float32
        torch.testing.assert_close(half.norm(dim=-1), torch.ones(3))
        distance = 1 - (full * half).sum(1).max()
        assert (full - half).abs().max() > 1e-9
        assert distance < bound
    assert low.patch_tokens(IMAGES).dtype == torch.float32


# ---- its weights ---------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def published(tmp_path_factory: pytest.TempPathFactory, folder: Path) -> dict[str, Path]:
    """One model, rounded to half precision, in every format; each with its json and merges beside it."""
    root = tmp_path_factory.mktemp("formats")
    config = json.loads((folder / "clip.json").read_text()) | {"quick_gelu": True}
    model = build_clip(config).half().float().eval()
    state = {name: value.half() for name, value in model.state_dict().items()}
    files = {
        "openai": root / "openai" / "clip.pt",
        "state": root / "state" / "clip.pt",
        "training": root / "training" / "clip.pt",
        "bin": root / "bin" / "open_clip_pytorch_model.bin",
        "safetensors": root / "safetensors" / "clip.safetensors",
        "hub": root / "hub" / "open_clip_model.safetensors",
    }
    for file in files.values():
        file.parent.mkdir()
        write_json(file.with_suffix(".json"), config)
        shutil.copy(folder / "bpe.txt.gz", file.parent)
    save_file(state, files["safetensors"])
    save_file(state, files["hub"])
    torch.save(state, files["state"])
    torch.save(state, files["bin"])
    training = {f"module.{name}": value for name, value in state.items()}
    training["module.logit_scale"] = training["module.logit_scale"].reshape(1)
    torch.save({"epoch": 3, "name": "run", "state_dict": training, "optimizer": {}}, files["training"])
    preprocess = {"mean": [0.5, 0.4, 0.3], "std": [0.2, 0.25, 0.5], "interpolation": "bicubic"}
    hub = {"model_cfg": config, "preprocess_cfg": preprocess}
    write_json(files["hub"].with_name("open_clip_config.json"), hub)
    write_torchscript(model, files["openai"])
    return files


def test_every_format_is_the_same_model(published: dict[str, Path]) -> None:
    reference = load_clip("tiny", published["safetensors"], "cpu")
    pixels = reference.normalise(reference.crop(SMOOTH, BOXES))
    tokens = reference.tokenize(WORDS)
    with torch.inference_mode():
        expected = reference.model.encode_image(pixels), reference.model.encode_text(tokens)
    for file in published.values():
        found = load_clip("tiny", file, "cpu")
        assert {value.dtype for value in found.model.state_dict().values()} == {torch.float32}
        with torch.inference_mode():
            both = found.model.encode_image(pixels), found.model.encode_text(tokens)
        for mine, theirs in zip(both, expected, strict=True):
            torch.testing.assert_close(mine, theirs, atol=0, rtol=0)


def test_a_hubs_config_gives_the_normalisation(published: dict[str, Path]) -> None:
    hub = load_clip("tiny", published["hub"], "cpu")
    black = torch.zeros((1, 3, 1, 1), dtype=torch.uint8)
    torch.testing.assert_close(hub.normalise(black).flatten(), torch.tensor([-2.5, -1.6, -0.6]))


def test_the_wrong_gelu_is_refused(published: dict[str, Path], tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"trained with quick_gelu[\s\S]*name: ViT-B-16-quickgelu"):
        load_clip("ViT-B-16", published["openai"], "cpu")
    with pytest.raises(UserError, match=r"open_clip_config.json[\s\S]*name: ViT-L-14-quickgelu"):
        load_clip("ViT-L-14", published["hub"], "cpu")
    shutil.copytree(published["hub"].parent, tmp_path / "hub")
    config = tmp_path / "hub" / "open_clip_config.json"
    plain = json.loads(config.read_text())
    plain["model_cfg"]["quick_gelu"] = False
    write_json(config, plain)
    with pytest.raises(UserError, match=r"trained without quick_gelu[\s\S]*name: ViT-B-16$"):
        load_clip("ViT-B-16-quickgelu", config.with_name("open_clip_model.safetensors"), "cpu")
    config.write_text("[]")
    with pytest.raises(UserError, match="is no open_clip config"):
        load_clip("ViT-B-16", config.with_name("open_clip_model.safetensors"), "cpu")


def test_openais_names_and_hashes(published: dict[str, Path], tmp_path: Path) -> None:
    """An archive with an official name must be the official one; the hash alone tells it under any name."""
    hashes = clip_weights.openai_hashes()
    assert hashes["ViT-B-16.pt"] == "5806e77cd80f8b59890b7e101eabd078d9fb84e6937f9e85e4ecb61988df416f"
    assert len(hashes) == 9
    official = tmp_path / "ViT-B-16.pt"
    shutil.copy(published["openai"], official)
    with pytest.raises(UserError, match="OpenAI published 5806e77c"):
        load_clip("ViT-B-16-quickgelu", official, "cpu")
    renamed = clip_weights.read_weights(published["state"], hashes["RN50.pt"])
    assert renamed.quick_gelu
    assert (
        clip_weights.read_weights(published["state"], verify_weights(published["state"])).quick_gelu is None
    )


def test_archives_with_more_than_weights_are_refused(published: dict[str, Path], tmp_path: Path) -> None:
    def repacked(data: bytes | None = None, compression: int = zipfile.ZIP_STORED) -> Path:
        path = tmp_path / "x.pt"
        with zipfile.ZipFile(published["openai"]) as old, zipfile.ZipFile(path, "w", compression) as new:
            for name in old.namelist():
                changed = data is not None and name.endswith("/data.pkl")
                new.writestr(name, data if changed and data is not None else old.read(name))
        return path

    class Evil:
        def __reduce__(self) -> tuple:
            return os.mkdir, (str(tmp_path / "made-by-a-checkpoint"),)

    assert torchscript.read_torchscript(repacked())
    with pytest.raises(UserError, match="has no place among weights"):
        torchscript.read_torchscript(repacked(pickle.dumps(Evil(), 2)))
    assert not (tmp_path / "made-by-a-checkpoint").exists()
    with pytest.raises(UserError, match="is compressed"):
        torchscript.read_torchscript(repacked(compression=zipfile.ZIP_DEFLATED))
    cut = tmp_path / "cut.pt"
    cut.write_bytes(published["openai"].read_bytes()[:-2000])
    with pytest.raises(UserError, match=r"cut.pt: has [\d,]+ bytes and no end.*download it again"):
        load_clip("ViT-B-16-quickgelu", cut, "cpu")


def test_other_architectures_and_layouts_are_explained(tmp_path: Path) -> None:
    odd = tmp_path / "x.safetensors"
    save_file({"x": torch.zeros(1)}, odd)
    with pytest.raises(UserError, match="no model 'vit-of-dreams'"):
        load_clip("vit-of-dreams", odd, "cpu")
    with pytest.raises(UserError, match=r"of CLIP RN50[\s\S]*missing: [\s\S]*not expected: x"):
        load_clip("RN50", odd, "cpu")
    with pytest.raises(UserError, match="nothing is downloaded"):
        load_clip("ViT-B-16-SigLIP", odd, "cpu")
    save_file({"vision_model.embeddings.class_embedding": torch.zeros(1)}, odd)
    with pytest.raises(UserError, match=r"config.json does not exist.*activation"):
        load_clip("ViT-B-16", odd, "cpu")
    for hub in (
        "hf-hub:owner/name",
        f"local-dir:{tmp_path}",
    ):  # open_clip would ask the hub, or read a folder
        with pytest.raises(UserError, match="has no model"):
            load_clip(hub, odd, "cpu")


@pytest.mark.slow
def test_true_size_in_every_format(tmp_path: Path) -> None:
    """ViT-B/16 with random weights: 149,620,737 of them, strictly loaded, the same vectors from each file."""
    torch.manual_seed(0)
    name = "ViT-B-16-quickgelu"
    model = open_clip.create_model(name, load_weights=False, pretrained_text=False).half().float().eval()
    state = {key: value.half() for key, value in model.state_dict().items()}
    assert sum(value.numel() for value in state.values()) == 149_620_737
    files = [tmp_path / "state.pt", tmp_path / "training.pt", tmp_path / "clip.safetensors"]
    torch.save(state, files[0])
    torch.save({"state_dict": {f"module.{key}": value for key, value in state.items()}}, files[1])
    save_file(state, files[2])
    text = open_clip.get_tokenizer(name)(WORDS)
    pixels = torch.from_numpy(RNG.normal(size=(2, 3, 224, 224)).astype(np.float32))
    with torch.inference_mode():
        expected = model.encode_image(pixels), model.encode_text(text)
    files.append(tmp_path / "openai.pt")
    write_torchscript(model, files[-1])
    for file in files:
        loaded = load_clip(name, file, "cpu")
        assert loaded.patch_tokens([SMOOTH]).shape == (1, 196, 768)
        with torch.inference_mode():
            found = loaded.model.encode_image(pixels), loaded.model.encode_text(text)
        for mine, theirs in zip(found, expected, strict=True):
            torch.testing.assert_close(mine, theirs)
        file.unlink()
