"""One loader for each network: every format that is taken is the same network in every step, and all else is
one message. transformers' own models say what its formats mean."""

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import GPT2LMHeadModel

from model.emosem.pretrained import build_pretrained, load_sam_decoder, pretrained_digests, pretrained_files
from pipeline.backbones.clip import load_clip
from pipeline.backbones.language_model import read_gpt2
from pipeline.backbones.params import ClipParams, SamParams
from pipeline.backbones.sam import load_sam, load_sam_model
from pipeline.backbones.tensors import read_tensors, weight_files
from pipeline.backbones.weight_hashes import verify_weights
from pipeline.common.errors import UserError
from pipeline.common.fingerprint import sha256_file
from pipeline.doctor.check_weights import CHECKS
from tests.worlds import trained_shards, transformers_copies
from tests.worlds.backbones import write_backbones
from tests.worlds.checkout import only, write_params

RNG = np.random.default_rng(4)
PICTURE = RNG.integers(0, 256, (48, 64, 3), np.uint8)
State = dict[str, torch.Tensor]

FORMATS: dict[str, Callable[[State, Path], Path]] = {}


def a_format(write: Callable[[State, Path], Path]) -> Callable[[State, Path], Path]:
    FORMATS[write.__name__] = write
    return write


def saved(content: Any, path: Path, **how: Any) -> Path:
    torch.save(content, path, **how)
    return path


@a_format
def safetensors(state: State, folder: Path) -> Path:
    save_file(state, folder / "sam.safetensors")
    return folder / "sam.safetensors"


@a_format
def torchs_zip(state: State, folder: Path) -> Path:
    return saved(state, folder / "sam.pth")


@a_format
def before_torch_1_6(state: State, folder: Path) -> Path:
    return saved(state, folder / "sam.pth", _use_new_zipfile_serialization=False)


@a_format
def another_ending(state: State, folder: Path) -> Path:
    save_file(state, folder / "sam.pth")
    return folder / "sam.pth"


@a_format
def in_state_dict(state: State, folder: Path) -> Path:
    return saved({"state_dict": state, "epoch": 3}, folder / "sam.pth")


@a_format
def in_model(state: State, folder: Path) -> Path:
    return saved({"model": state, "optimizer": {"step": 7}}, folder / "sam.pth")


@a_format
def in_model_of_a_state_dict_in_the_old_format(state: State, folder: Path) -> Path:
    content = {"model": {"state_dict": state}}
    return saved(content, folder / "sam.pth", _use_new_zipfile_serialization=False)


@a_format
def of_several_processes(state: State, folder: Path) -> Path:
    return saved({f"module.{name}": tensor for name, tensor in state.items()}, folder / "sam.pth")


@a_format
def compiled_within_a_wrapper(state: State, folder: Path) -> Path:
    renamed = {f"_orig_mod.model.{name}": tensor for name, tensor in state.items()}
    return saved({"model_state_dict": renamed}, folder / "sam.pth")


@a_format
def a_part_compiled(state: State, folder: Path) -> Path:
    renamed = {n.replace("image_encoder.", "image_encoder._orig_mod."): t for n, t in state.items()}
    return saved(renamed, folder / "sam.pth")


@a_format
def parameters(state: State, folder: Path) -> Path:
    return saved({name: torch.nn.Parameter(tensor) for name, tensor in state.items()}, folder / "sam.pth")


def in_shards(state: State, folder: Path, name: str, write: Callable[[State, Path], Any]) -> Path:
    """Two files and their index, as transformers splits them."""
    stem, ending = name.split(".")
    where = {}
    for number, names in enumerate([sorted(state)[::2], sorted(state)[1::2]], start=1):
        file = f"{stem}-{number:05}-of-00002.{ending}"
        write({n: state[n] for n in names}, folder / file)
        where |= dict.fromkeys(names, file)
    index = folder / f"{name}.index.json"
    index.write_text(json.dumps({"metadata": {}, "weight_map": where}))
    return index


@pytest.mark.parametrize("name", FORMATS)
def test_a_sam_in_any_format_is_the_same_for_doctor_features_and_training(
    name: str, checkout: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    world = Path("weights")
    state = load_file(world / "sam.safetensors")
    folder = checkout / "other"
    folder.mkdir()
    file = FORMATS[name](state, folder)
    shutil.copy(world / "sam.json", file.with_suffix(".json"))
    loaded = load_sam_model("tiny", file).state_dict()
    assert loaded.keys() == state.keys() and all(torch.equal(loaded[n], state[n]) for n in state)
    ours, plain = load_sam_decoder(file), load_sam_decoder(world / "sam.safetensors")
    assert all(torch.equal(ours.state[n], plain.state[n]) for n in plain.state)
    assert (ours.dim, ours.grid, ours.depth) == (plain.dim, plain.grid, plain.depth)
    write_params(backbones={"sam": {"arch": "tiny", "checkpoint": str(file)}})
    assert only("sam", CHECKS["sam"]).status == "ok"


@pytest.fixture(scope="module")
def theirs(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Any]:
    folder = tmp_path_factory.mktemp("hub") / "sam"
    return folder, transformers_copies.sam(folder)


def test_transformers_sam_sees_and_answers_the_same(theirs: tuple[Path, Any]) -> None:
    folder, model = theirs
    encoder = load_sam("tiny", folder, "cpu")
    pixels = encoder.preprocess(PICTURE)[None]
    sam = load_sam_model("tiny", folder)
    points = torch.tensor([[[[20.0, 11.0], [40.0, 30.0]]]])
    with torch.inference_mode():
        grid = model.get_image_embeddings(pixels)
        answer = model(image_embeddings=grid, input_points=points)
        sparse, dense = sam.prompt_encoder(
            points=(points[0], torch.ones(1, 2, dtype=torch.int64)), boxes=None, masks=None
        )
        masks, scores = sam.mask_decoder(
            image_embeddings=grid,
            image_pe=sam.prompt_encoder.get_dense_pe(),
            sparse_prompt_embeddings=sparse,
            dense_prompt_embeddings=dense,
            multimask_output=True,
        )
    assert grid.std() > 0.1
    torch.testing.assert_close(encoder.encode([PICTURE]), grid, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(masks, answer.pred_masks[0], atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(scores, answer.iou_scores[0], atol=1e-5, rtol=1e-4)
    assert encoder.sha256 == verify_weights(folder)


def test_transformers_sam_trains_and_doctor_knows_it(theirs: tuple[Path, Any], checkout: Path) -> None:
    folder, model = theirs
    decoder = load_sam_decoder(folder)
    assert decoder.num_heads == 2  # config.json beside it is asked where no json of the stem is there
    state = model.state_dict()
    torch.testing.assert_close(
        decoder.state["output_hypernetworks_mlps.2.layers.1.weight"],
        state["mask_decoder.output_hypernetworks_mlps.2.layers.0.weight"],
    )
    for checkpoint in (folder, folder / "model.safetensors"):
        write_params(backbones={"sam": {"arch": "tiny", "checkpoint": str(checkpoint)}})
        assert only("sam", CHECKS["sam"]).status == "ok"


def test_the_encoder_of_a_sam_alone_is_refused_by_all(checkout: Path) -> None:
    """The decoder is what training takes: who lacks it should hear so from `doctor`, not hours later."""
    state = {n: t for n, t in load_file("weights/sam.safetensors").items() if n.startswith("image_encoder.")}
    Path("part").mkdir()
    file = safetensors(state, Path("part"))
    shutil.copy("weights/sam.json", "part/sam.json")
    write_params(backbones={"sam": {"arch": "tiny", "checkpoint": str(file)}})
    assert "missing: mask_decoder." in only("sam", CHECKS["sam"]).found
    for load in (load_sam_decoder, lambda path: load_sam_model("tiny", path)):
        with pytest.raises(UserError, match="mask_decoder"):
            load(file)


def test_one_weight_under_two_names_with_two_values_is_refused(tmp_path: Path) -> None:
    transformers_copies.sam(tmp_path)
    state = load_file(tmp_path / "model.safetensors")
    name = "shared_image_embedding.positional_embedding"
    other = "prompt_encoder.shared_embedding.positional_embedding"
    state[name], state[other] = state.get(name, state.get(other)), torch.zeros(2, 8)
    save_file(state, tmp_path / "model.safetensors")
    with pytest.raises(UserError, match="stored twice"):
        load_sam_model("tiny", tmp_path)


@pytest.fixture(scope="module")
def clip_folder(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Any]:
    root = tmp_path_factory.mktemp("clips")
    write_backbones(root)
    model = transformers_copies.clip(root / "hub", json.loads((root / "clip.json").read_text()))
    shutil.copy(root / "bpe.txt.gz", root / "hub")
    return root / "hub", model


@pytest.mark.parametrize("how", ["folder", "file", "bin", "old", "shards"])
def test_transformers_clip_gives_the_same_features(
    clip_folder: tuple[Path, Any], tmp_path: Path, how: str
) -> None:
    made, model = clip_folder
    folder = tmp_path / "clip"
    shutil.copytree(made, folder)
    (folder / "preprocessor_config.json").write_text(
        json.dumps({"image_mean": [0.5, 0.4, 0.3], "image_std": [0.2, 0.25, 0.5]})
    )
    state = load_file(folder / "model.safetensors")
    checkpoint = folder / "model.safetensors" if how == "file" else folder
    if how in ("bin", "old"):
        (folder / "model.safetensors").unlink()
        saved(state, folder / "pytorch_model.bin", _use_new_zipfile_serialization=how == "bin")
        shutil.copy(folder / "model.json", folder / "pytorch_model.json")
    if how == "shards":
        (folder / "model.safetensors").unlink()
        in_shards(state, folder, "model.safetensors", save_file)
    clip = load_clip("tiny", checkpoint, "cpu")
    pixels = clip.normalise(clip.crop(PICTURE, np.array([[0.0, 0.0, 64.0, 48.0], [3, 5, 30, 40]])))
    tokens = clip.tokenize(["the crooked red house", "a skull"])
    with torch.inference_mode():
        image = model.get_image_features(pixels)
        text = model.get_text_features(tokens)
        image, text = (getattr(found, "pooler_output", found) for found in (image, text))
        torch.testing.assert_close(clip.model.encode_image(pixels), image, atol=1e-5, rtol=1e-4)
        torch.testing.assert_close(clip.model.encode_text(tokens), text, atol=1e-5, rtol=1e-4)
        patches = model.vision_model(pixels[:1]).last_hidden_state
        assert image.std() > 0.01 and patches.std() > 0.1
    torch.testing.assert_close(clip.mean.flatten(), torch.tensor([0.5, 0.4, 0.3]))
    assert clip.sha256 == verify_weights(checkpoint)


def test_clips_activation_comes_from_its_config(clip_folder: tuple[Path, Any], tmp_path: Path) -> None:
    folder = tmp_path / "clip"
    shutil.copytree(clip_folder[0], folder)
    with pytest.raises(UserError, match=r"config.json: trained with quick_gelu[\s\S]*ViT-B-16-quickgelu"):
        load_clip("ViT-B-16", folder, "cpu")
    config = json.loads((folder / "config.json").read_text())
    config["vision_config"]["hidden_act"] = "gelu"
    (folder / "config.json").write_text(json.dumps(config))
    with pytest.raises(UserError, match="quick_gelu or gelu is needed"):
        load_clip("ViT-B-16", folder, "cpu")
    (folder / "config.json").unlink()
    with pytest.raises(UserError, match=r"config.json does not exist"):
        load_clip("ViT-B-16", folder, "cpu")


GPT2: dict[str, Callable[[State, Path], Any]] = {
    "one .bin": lambda state, folder: saved(state, folder / "pytorch_model.bin"),
    "an old .bin": lambda state, folder: saved(
        state, folder / "pytorch_model.bin", _use_new_zipfile_serialization=False
    ),
    "shards of .safetensors": lambda s, folder: in_shards(s, folder, "model.safetensors", save_file),
    "shards of .bin": lambda s, folder: in_shards(s, folder, "pytorch_model.bin", saved),
    "without transformer.": lambda state, folder: save_file(
        {name.removeprefix("transformer."): tensor for name, tensor in state.items()},
        folder / "model.safetensors",
    ),
    "with its masks": lambda state, folder: saved(
        state
        | {f"transformer.h.{i}.attn.bias": torch.ones(1, 1, 64, 64) for i in range(2)}
        | {f"transformer.h.{i}.attn.masked_bias": torch.tensor(-1e4) for i in range(2)}
        | {"lm_head.weight": state["transformer.wte.weight"]},
        folder / "pytorch_model.bin",
    ),
    "compiled, of several processes": lambda state, folder: saved(
        {f"module._orig_mod.{name}": tensor for name, tensor in state.items()}, folder / "pytorch_model.bin"
    ),
}


@pytest.fixture(scope="module")
def parts(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    return trained_shards.backbones(tmp_path_factory.mktemp("parts"))


@pytest.mark.parametrize("how", GPT2)
def test_a_gpt2_in_any_layout_is_what_transformers_reads(
    parts: tuple[Path, Path], checkout: Path, how: str
) -> None:
    sam, made = parts
    folder = checkout / "lm"
    shutil.copytree(made, folder)
    state = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    GPT2[how](state, folder)
    _, found = read_gpt2(folder)
    theirs = GPT2LMHeadModel.from_pretrained(made, dtype=torch.float32, local_files_only=True).state_dict()
    assert found.keys() == theirs.keys() and all(torch.equal(found[n], theirs[n]) for n in theirs)
    write_params(backbones={"language_model": str(folder)})
    assert only("language_model", CHECKS["language_model"]).status == "ok"
    torch.manual_seed(0)
    model = build_pretrained(sam, folder, visual_dim=trained_shards.WIDTH)
    assert torch.equal(model.captioner.gpt2.lm_head.weight, state["transformer.wte.weight"])
    read = {file.name for file in pretrained_files(sam, folder)}
    written = {file.name for file in folder.iterdir() if "model" in file.name}
    assert written <= read | {"README.md"}
    plain = [path for path in weight_files(folder) if path.suffix != ".json"]
    digest = pretrained_digests(sam, folder)["language model"]
    assert len(digest) == 64 and (len(plain) > 1 or digest == sha256_file(plain[0]))
    before = verify_weights(folder)
    (folder / "README.md").write_text("a line")
    assert verify_weights(folder) == before
    shards = [file for file in folder.iterdir() if file.suffix in (".bin", ".safetensors")]
    whole = shards[-1].read_bytes()
    shards[-1].write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
    assert verify_weights(folder) != before


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"weight_map": {"a": "../../sam.safetensors"}}, r"lists '\.\./\.\./sam.safetensors'"),
        ({"weight_map": {"a": ".."}}, "lists '..'"),
        ({"weight_map": {}}, "lists 'nothing'"),
        ({"weight_map": ["a"]}, "no index of weights"),
        ({"weight_map": {"a": "absent.safetensors"}}, r"absent.safetensors: does not exist"),
        ({"weight_map": {"a": "there.safetensors", "b": "there.safetensors"}}, "lists b and 0 more"),
    ],
)
def test_broken_indexes(tmp_path: Path, change: dict[str, Any], message: str) -> None:
    save_file({"a": torch.zeros(1)}, tmp_path / "there.safetensors")
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps(change))
    with pytest.raises(UserError, match=message):
        read_tensors(tmp_path)


def nan(state: State) -> bytes:
    import safetensors.torch

    first = next(iter(state))
    state[first] = state[first].clone()
    state[first].view(-1)[-1] = float("nan")
    return safetensors.torch.save(state)


NOT_WEIGHTS: dict[str, tuple[Callable[[State], bytes], str]] = {
    "empty": (lambda _: b"", "has no bytes"),
    "pointer": (lambda _: b"version https://git-lfs.github.com/spec/v1\noid sha256:1\nsize 9\n", "Git LFS"),
    "page": (lambda _: b"<!DOCTYPE html><html>Sign in</html>", "web page"),
    "text": (lambda _: b"not weights at all", "no weights file does"),
    "cut": (lambda state: _bytes(state)[:-100], "download broke off"),
    "deep": (
        lambda _: (80_000).to_bytes(8, "little") + b'{"a":' + b"[" * 79_995,
        "nested too deeply|Expecting",
    ),
    "list": (lambda _: _torch([torch.zeros(1)]), "no state dict"),
    "number": (lambda _: _torch({"a": 1}), "no state dict"),
    "sparse": (lambda _: _torch({"a": torch.eye(3).to_sparse()}), "sparse"),
    "nan": (nan, "NaN or infinite"),
    "other": (
        lambda _: _torch({"weight": torch.zeros(2)}),
        "no SAM|no CLIP|no VinVL|GPT-2|fit|checkpoint of",
    ),
}


def _bytes(state: State) -> bytes:
    import safetensors.torch

    return safetensors.torch.save(state)


def _torch(content: Any) -> bytes:
    import io

    buffer = io.BytesIO()
    torch.save(content, buffer)
    return buffer.getvalue()


@pytest.mark.parametrize("kind", NOT_WEIGHTS)
@pytest.mark.parametrize("network", ["sam", "clip", "vinvl", "language_model"])
def test_what_is_no_weights_is_one_short_message(checkout: Path, network: str, kind: str) -> None:
    from pipeline.regions.vinvl.detector import load_vinvl

    weights = Path("weights")
    (weights / "sha256.json").unlink(missing_ok=True)
    file = weights / ("gpt2/model.safetensors" if network == "language_model" else f"{network}.safetensors")
    make, message = NOT_WEIGHTS[kind]
    file.write_bytes(make(load_file(file)))
    loaders: dict[str, list[Callable[[], Any]]] = {
        "sam": [lambda: load_sam_model("tiny", file), lambda: load_sam_decoder(file)],
        "clip": [lambda: load_clip("tiny", file, "cpu")],
        "vinvl": [lambda: load_vinvl(file)],
        "language_model": [lambda: read_gpt2(file.parent)],
    }
    for load in loaders[network]:
        if kind == "nan" and network == "sam" and load is loaders["sam"][1]:
            continue  # the number is not among those that training reads
        with pytest.raises(UserError, match=message) as raised:
            load()
        assert len(str(raised.value)) < 1200 and "Traceback" not in str(raised.value)
    found = only(*_check(network))
    assert found.status == "fail" and "broke" not in found.found


def _check(network: str) -> tuple[str, Any]:
    name = "detector" if network == "vinvl" else network
    return name, CHECKS[name]


def test_a_pipe_is_no_weights_file_and_nothing_waits_for_it(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "sam.pth")
    with pytest.raises(UserError, match="is a pipe or a device"):
        read_tensors(tmp_path / "sam.pth")
    with pytest.raises(UserError, match="pipe"):
        verify_weights(tmp_path / "sam.pth")


@pytest.mark.parametrize(
    ("file", "content", "message"),
    [
        ("tokenizer.json", "{}", "tokenizer in .* cannot be read"),
        ("tokenizer.json", "[" * 5000, "tokenizer in .* cannot be read"),
        ("tokenizer.json", "", "tokenizer in .* cannot be read"),
        (
            "tokenizer.json",
            '{"version": "1.0", "model": {"type": "BPE", "vocab": {}, "merges": []}}',
            "tokenizer",
        ),
        ("tokenizer_config.json", "[]", "holds no JSON object"),
        ("tokenizer_config.json", '{"tokenizer_class": "LlamaTokenizer"}', "names a 'LlamaTokenizer'"),
        ("tokenizer_config.json", '{"tokenizer_class": 7}', "names a 7"),
        ("config.json", "[]", "holds no JSON object"),
        ("config.json", '{"model_type": "llama"}', "model_type 'llama'"),
        ("config.json", '{"model_type": "gpt2", "n_layer": "x"}', "describes no GPT-2|n_layer x"),
        ("config.json", '{"model_type": "gpt2", "n_layer": 1000000000}', "n_layer 1000000000"),
        ("config.json", '{"model_type": "gpt2", "n_layer": 2, "n_head": 0}', "GPT-2"),
        (
            "config.json",
            '{"model_type": "gpt2", "n_layer": 2, "n_embd": 32, "n_head": 4}',
            "wte.weight .* instead",
        ),
    ],
)
def test_a_language_models_folder_that_is_damaged(
    parts: tuple[Path, Path], checkout: Path, file: str, content: str, message: str
) -> None:
    sam, made = parts
    folder = checkout / "lm"
    shutil.copytree(made, folder)
    (folder / file).write_text(content)
    with pytest.raises(UserError, match=message):
        build_pretrained(sam, folder, visual_dim=trained_shards.WIDTH)
    write_params(backbones={"language_model": str(folder)})
    found = only("language_model", CHECKS["language_model"])
    assert found.status == "fail" and "broke" not in found.found


def test_a_tied_gpt2_with_another_output_layer_is_refused(parts: tuple[Path, Path], tmp_path: Path) -> None:
    """transformers would drop it in silence."""
    shutil.copytree(parts[1], tmp_path / "lm")
    state = load_file(tmp_path / "lm" / "model.safetensors")
    state["lm_head.weight"] = state["transformer.wte.weight"] + 1
    save_file(state, tmp_path / "lm" / "model.safetensors")
    with pytest.raises(UserError, match="tie_word_embeddings"):
        read_gpt2(tmp_path / "lm")


def test_params_take_folders() -> None:
    assert SamParams("vit_b", Path("sam-vit-base")).checkpoint.name == "sam-vit-base"
    assert ClipParams("ViT-B-16-quickgelu", Path("clip-vit-base-patch16")).name
