"""`doctor` on weights: damaged, of another model, or no weights at all; nothing in them is run."""

import hashlib
import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from segment_anything import sam_model_registry

from model.metrics.text import find_java
from pipeline.backbones.params import ClipParams, SamParams
from pipeline.backbones.weights_file import LOADABLE
from pipeline.doctor.check_weights import CHECKS, clip_problem, sam_problem
from pipeline.doctor.examine import run_check
from pipeline.doctor.finding import Context
from pipeline.doctor.weights_file import WeightsFile, look_at
from tests.worlds.checkout import only, write_params


@pytest.mark.parametrize(
    ("content", "kind"),
    [
        (b"", "empty"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:1\nsize 375042383\n", "lfs-pointer"),
        (b"\n<!DOCTYPE html><html><body>Sign in to download</body></html>", "web-page"),
        (b"\x10\x00\x00\x00\x00\x00\x00\x00{", "truncated"),
        (b"\xff" * 8 + b"{ not a header", "unknown"),
        (b"art_style,painting\n", "unknown"),
    ],
)
def test_what_is_no_weights_file_is_told_by_its_bytes(tmp_path: Path, content: bytes, kind: str) -> None:
    (tmp_path / "sam.pth").write_bytes(content)
    assert look_at(tmp_path / "sam.pth").kind == kind


def test_each_format_gives_its_shapes_and_half_of_it_does_not(tmp_path: Path) -> None:
    state = {"a.weight": torch.zeros(3, 4), "b": torch.zeros(2000)}
    shapes = {"a.weight": (3, 4), "b": (2000,)}
    save_file(state, tmp_path / "safetensors")
    torch.save(state, tmp_path / "torch")
    torch.save({"model": state}, tmp_path / "wrapped")
    torch.save(state, tmp_path / "torch-legacy", _use_new_zipfile_serialization=False)
    for name in ("safetensors", "torch", "wrapped", "torch-legacy"):
        file = look_at(tmp_path / name)
        assert file.shapes == shapes
        assert file.kind == ("torch" if name == "wrapped" else name)
        whole = (tmp_path / name).read_bytes()
        (tmp_path / "half").write_bytes(whole[: len(whole) // 2])
        assert look_at(tmp_path / "half").kind not in LOADABLE


def test_torchscript_is_read_without_running_it(tmp_path: Path) -> None:
    torch.jit.trace(torch.nn.Linear(2, 3), torch.zeros(1, 2)).save(str(tmp_path / "clip.pt"))
    file = look_at(tmp_path / "clip.pt")
    assert (file.kind, file.shapes) == ("torchscript", {"weight": (3, 2), "bias": (3,)})


def test_a_pickle_with_code_in_it_is_not_run(tmp_path: Path) -> None:
    class Evil:
        def __reduce__(self) -> tuple:
            return Path.touch, (tmp_path / "ran",)

    torch.save({"a": Evil()}, tmp_path / "evil.pth")
    assert look_at(tmp_path / "evil.pth").kind == "unknown"
    assert not (tmp_path / "ran").exists()


def test_a_zip_of_something_else_is_no_weights_file(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "sam.pth").write_bytes(b"x")
    shutil.make_archive(str(tmp_path / "sam"), "zip", tmp_path / "in")
    file = look_at(tmp_path / "sam.zip")
    assert file.kind == "archive"
    assert "sam.pth" in file.detail


@pytest.mark.parametrize("damage", ["missing", "folder", "pointer", "truncated"])
@pytest.mark.parametrize(
    ("name", "file", "publisher"),
    [
        ("sam", "sam.safetensors", "facebookresearch/segment-anything"),
        ("clip", "clip.safetensors", "openai/CLIP"),
        ("vinvl", "vinvl.safetensors", "michelecafagna26/vinvl_vg_x152c4"),
        ("language_model", "gpt2/model.safetensors", "distilbert/distilgpt2"),
    ],
)
def test_every_damaged_weight_is_named_with_its_publisher_and_its_key(
    checkout: Path, name: str, file: str, publisher: str, damage: str
) -> None:
    path = checkout / "weights" / file
    whole = path.read_bytes()
    path.unlink()
    if damage == "folder":
        path.mkdir()
    elif damage == "pointer":
        path.write_bytes(b"version https://git-lfs.github.com/spec/v1\n")
    elif damage == "truncated":
        path.write_bytes(whole[:-100])
    check = CHECKS["detector" if name == "vinvl" else name]
    context = Context(Path("params.yaml"), find_java)
    found = [f for f in run_check(name, check, context) if f.status == "fail"]
    assert len(found) == 1
    assert "weights/" in found[0].found
    assert publisher in found[0].way_out
    if damage == "missing" and name != "language_model":
        assert f"backbones.{name}.checkpoint" in found[0].way_out


def test_official_architectures_are_told_apart_by_their_shapes(tmp_path: Path) -> None:
    with torch.device("meta"):
        states = {arch: sam_model_registry[arch](checkpoint=None).state_dict() for arch in ("vit_b", "vit_l")}
    for arch, state in states.items():
        file = WeightsFile("torch", shapes={name: tuple(t.shape) for name, t in state.items()})
        assert sam_problem(file, SamParams(arch, tmp_path)) == ""  # type: ignore[arg-type]
        wrong = sam_problem(file, SamParams("vit_h", tmp_path))
        assert arch in wrong
        assert "vit_h" in wrong


def test_clip_sizes_are_compared_with_open_clips_config(tmp_path: Path) -> None:
    import open_clip

    with torch.device("meta"):
        vision = open_clip.get_model_config("ViT-B-32")
        model = open_clip.CLIP(
            vision["embed_dim"],
            open_clip.CLIPVisionCfg(**vision["vision_cfg"]),
            open_clip.CLIPTextCfg(**vision["text_cfg"]),
        )
    file = WeightsFile("torch", shapes={n: tuple(t.shape) for n, t in model.state_dict().items()})
    assert clip_problem(file, ClipParams("ViT-B-32", tmp_path)) == ""
    assert "patches of 32" in clip_problem(file, ClipParams("ViT-B-16", tmp_path))
    assert "no model" in clip_problem(file, ClipParams("ViT-Z", tmp_path))


def test_a_file_of_a_published_name_with_other_bytes_is_a_warning(checkout: Path) -> None:
    path = checkout / "weights" / "sam_vit_b_01ec64.safetensors"
    shutil.copy(checkout / "weights" / "sam.safetensors", path.with_suffix(".pth"))
    shutil.copy(checkout / "weights" / "sam.json", path.with_suffix(".json"))
    write_params(backbones={"sam": {"arch": "tiny", "checkpoint": str(path.with_suffix(".pth"))}})
    found = only("sam", CHECKS["sam"])
    assert found.status == "warn"
    assert hashlib.sha256(path.with_suffix(".pth").read_bytes()).hexdigest()[:16] in found.found


def test_a_hash_list_that_does_not_fit_is_a_failure(checkout: Path) -> None:
    (checkout / "weights" / "sha256.json").write_text(json.dumps({"sam.safetensors": "0" * 64}))
    found = only("sam", CHECKS["sam"])
    assert (found.status, "0" * 64 in found.found) == ("fail", True)


def test_openai_weights_under_a_name_with_another_gelu_are_refused(checkout: Path) -> None:
    (checkout / "ViT-B-16.pt").write_bytes(b"x")
    write_params(backbones={"clip": {"name": "ViT-B-16", "checkpoint": "ViT-B-16.pt"}})
    context = Context(Path("params.yaml"), find_java)
    ways_out = [finding.way_out for finding in CHECKS["clip"](context)]
    assert "set backbones.clip.name to ViT-B-16-quickgelu" in ways_out


def test_a_language_model_without_tokenizer_or_of_another_kind(checkout: Path) -> None:
    check = CHECKS["language_model"]
    config = checkout / "weights" / "gpt2" / "config.json"
    whole = config.read_text()
    config.write_text(json.dumps(json.loads(whole) | {"model_type": "llama"}))
    assert "'llama'" in only("language_model", check).found
    config.write_text(whole)
    (checkout / "weights" / "gpt2" / "tokenizer.json").unlink()
    assert "tokenizer.json" in only("language_model", check).found
