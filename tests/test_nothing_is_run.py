"""No file from elsewhere runs code: every loader gets payloads that leave a mark, and none is left.

The second half holds the list of every call that could: a new one has to be looked at, and swept here.
"""

import ast
import json
import os
import pickle
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from huggingface_hub.utils import filter_repo_objects

from model.alignment.artemis_classifier import load_artemis, read_checkpoint, read_vocabulary
from model.alignment.networks import EmotionClassifier
from model.emosem.network import EmoSEM
from model.emosem.pretrained import build_pretrained, load_sam_decoder
from model.maps.map_files import decode_npy
from pipeline.backbones.clip import load_clip
from pipeline.backbones.language_model import load_tokenizer, read_gpt2
from pipeline.backbones.params import FasterRcnnParams
from pipeline.backbones.sam import load_sam_model
from pipeline.backbones.tensors import read_tensors
from pipeline.common.errors import UserError
from pipeline.common.params import Params
from pipeline.common.sums import SUMS
from pipeline.doctor.weights_file import look_at
from pipeline.regions.sources.faster_rcnn import load_faster_rcnn
from pipeline.regions.vinvl.detector import load_vinvl
from pipeline.regions.vinvl.sgb_config import from_sgb
from tests.imports import ROOT
from tests.worlds import trained_shards

MARK = "executed"


class Evil:
    """Unpickled, it makes a file."""

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (MARK,)


def torch_saved(content: Any, **how: Any) -> Callable[[Path], None]:
    return lambda path: torch.save(content, path, **how)


def of_bytes(data: bytes) -> Callable[[Path], None]:
    return lambda path: path.write_bytes(data) and None


def torchscript(path: Path) -> None:
    """An archive whose data calls for a function."""
    import zipfile

    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("x/data.pkl", pickle.dumps(Evil(), 2))
        archive.writestr("x/constants.pkl", pickle.dumps((Evil(),), 2))
        archive.writestr("x/code/__torch__.py", f"import os\nos.mkdir('{MARK}')\n")
        archive.writestr("x/version", "3\n")


def numpy_objects(path: Path) -> None:
    with path.open("wb") as file:
        np.save(file, np.array([Evil()], dtype=object), allow_pickle=True)


FILES: dict[str, Callable[[Path], None]] = {
    **{f"pickle {n}": of_bytes(pickle.dumps({"a": Evil()}, n)) for n in range(pickle.HIGHEST_PROTOCOL + 1)},
    "torch": torch_saved({"a": Evil()}),
    "torch before 1.6": torch_saved({"a": Evil()}, _use_new_zipfile_serialization=False),
    "beside weights": torch_saved({"model": {"a": torch.zeros(2)}, "scheduler": Evil()}),
    "in a key": torch_saved({"state_dict": {"a": torch.zeros(2), "b": Evil()}}),
    "TorchScript": torchscript,
    "numpy": numpy_objects,
    "YAML": of_bytes(f"MODEL: !!python/object/apply:os.mkdir [{MARK}]\n".encode()),
    "Python": of_bytes(f"import os\nos.mkdir('{MARK}')\n".encode()),
}
LOADERS: dict[str, Callable[[Path], Any]] = {
    "read_tensors": read_tensors,
    "look_at": look_at,
    "SAM": lambda path: load_sam_model("vit_b", path),
    "SAM, tiny": lambda path: load_sam_model("tiny", path),
    "SAM's decoder": load_sam_decoder,
    "CLIP": lambda path: load_clip("ViT-B-16", path, "cpu"),
    "CLIP, tiny": lambda path: load_clip("tiny", path, "cpu"),
    "VinVL": load_vinvl,
    "Faster R-CNN": lambda path: load_faster_rcnn(FasterRcnnParams(checkpoint=path), "cpu"),
    "ArtEmis's classifier": read_checkpoint,
    "ArtEmis's vocabulary": read_vocabulary,
    "ArtEmis's both": lambda path: load_artemis(path, path, "masked", 20),
    "a map": lambda path: decode_npy(path.read_bytes()),
    "params": Params.read,
    "sgb_config": from_sgb,
}
ENDINGS = (".pth", ".safetensors")
"""Libraries choose a reader by them; ours must not."""


@pytest.mark.parametrize("loader", LOADERS)
def test_no_file_runs_anything(loader: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name, write in FILES.items():
        for ending in ENDINGS:
            file = tmp_path / f"x{ending}"
            write(file)
            shutil.copy(file, file.with_suffix(".json"))
            try:
                LOADERS[loader](file)
            except (UserError, ValueError) as error:
                assert "Traceback" not in str(error), name
            assert not Path(MARK).exists(), f"{loader}: {name}{ending}"


def test_the_payloads_leave_marks_where_somebody_lets_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else the sweep above would show nothing."""
    monkeypatch.chdir(tmp_path)
    for name in ("pickle 2", "torch"):
        FILES[name](tmp_path / "x.pt")
        if name == "torch":
            torch.load(tmp_path / "x.pt", weights_only=False)
        else:
            pickle.loads((tmp_path / "x.pt").read_bytes())  # noqa: S301
        Path(MARK).rmdir()


EVIL_MODULE = f"import os\nos.mkdir('{MARK}')\n\n\nclass Evil:\n    pass\n"
FOLDERS: dict[str, tuple[str, Callable[[dict[str, Any]], dict[str, Any]]]] = {
    "a tokenizer": (
        "tokenizer_config.json",
        lambda values: (
            values | {"auto_map": {"AutoTokenizer": ["evil.Evil", None]}, "tokenizer_class": "Evil"}
        ),
    ),
    "a tokenizer, as a list": (
        "tokenizer_config.json",
        lambda values: values | {"auto_map": ["evil.Evil", "evil.Evil"]},
    ),
    "an unknown tokenizer": ("tokenizer_config.json", lambda values: values | {"tokenizer_class": "Evil"}),
    "an unknown model": (
        "config.json",
        lambda values: values | {"model_type": "evil", "auto_map": {"AutoConfig": "evil.Evil"}},
    ),
    "a known model of elsewhere": (
        "config.json",
        lambda values: values | {"auto_map": {"AutoConfig": "somebody/model--evil.Evil"}},
    ),
    "trust": ("config.json", lambda values: values | {"trust_remote_code": True}),
    "a pipeline": ("config.json", lambda values: values | {"custom_pipelines": {"x": {"impl": "evil.Evil"}}}),
    "generation": ("generation_config.json", lambda values: values | {"custom_generate": "somebody/model"}),
    "an adapter": (
        "adapter_config.json",
        lambda _: {"auto_map": {"x": "evil.Evil"}, "base_model_name_or_path": "somebody/model"},
    ),
}


@pytest.fixture(scope="module")
def parts(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path, Path]:
    """SAM, GPT-2's folder, and a model on both, saved."""
    root = tmp_path_factory.mktemp("parts")
    sam, gpt2 = trained_shards.backbones(root)
    build_pretrained(sam, gpt2, visual_dim=trained_shards.WIDTH).save_pretrained(root / "run")
    (root / "run" / SUMS).unlink()  # whoever writes a hostile folder writes its sums too
    return sam, gpt2, root / "run"


@pytest.mark.parametrize("which", ["language model", "trained model"])
@pytest.mark.parametrize("how", FOLDERS)
def test_no_folder_runs_anything_and_nobody_is_asked(
    how: str,
    which: str,
    parts: tuple[Path, Path, Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("builtins.input", lambda *_: "y")  # transformers would ask
    folder = tmp_path / "folder"
    shutil.copytree(parts[1] if which == "language model" else parts[2], folder)
    (folder / "evil.py").write_text(EVIL_MODULE)
    file, change = FOLDERS[how]
    values = json.loads((folder / file).read_text()) if (folder / file).is_file() else {}
    (folder / file).write_text(json.dumps(change(values)))
    loaders: list[Callable[[], Any]] = [lambda: load_tokenizer(folder)]
    if which == "language model":
        loaders += [lambda: read_gpt2(folder), lambda: build_pretrained(parts[0], folder, visual_dim=32)]
    else:
        loaders += [lambda: EmoSEM.from_pretrained(folder)]
    if how == "an unknown tokenizer" and which == "language model":
        loaders.pop(1)  # the weights are those of a GPT-2
    for load in loaders:
        with pytest.raises(UserError, match=r"code|Evil|holds no trained model") as raised:
            load()
        assert "\n" not in str(raised.value) or "holds no trained model" in str(raised.value)
    assert not Path(MARK).exists() and "evil" not in sys.modules
    assert capfd.readouterr().out == ""


def test_code_for_generation_is_refused(parts: tuple[Path, Path, Path], tmp_path: Path) -> None:
    for folder in parts[1:]:
        copy = tmp_path / folder.name
        shutil.copytree(folder, copy)
        (copy / "custom_generate").mkdir()
        (copy / "custom_generate" / "generate.py").write_text(EVIL_MODULE)
        with pytest.raises(UserError, match="custom_generate holds Python code"):
            load_tokenizer(copy)
    with pytest.raises(UserError, match="custom_generate holds Python code"):
        EmoSEM.from_pretrained(tmp_path / "run")


def test_settings_of_a_saved_model_that_would_fetch_code_are_left_out(
    parts: tuple[Path, Path, Path], tmp_path: Path
) -> None:
    shutil.copytree(parts[2], tmp_path / "run")
    config = json.loads((tmp_path / "run" / "config.json").read_text())
    config["language_model"] |= {
        "_attn_implementation": "somebody/kernel",
        "attn_implementation": "somebody/kernel",
        "auto_map": {"AutoModel": "evil.Evil"},
        "quantization_config": {"quant_method": "evil"},
    }
    (tmp_path / "run" / "config.json").write_text(json.dumps(config))
    loaded = EmoSEM.from_pretrained(tmp_path / "run").captioner.gpt2.config
    assert loaded._attn_implementation == "sdpa"
    assert not hasattr(loaded, "auto_map") and not hasattr(loaded, "quantization_config")


def test_a_saved_classifier_is_no_pickle(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for write in FILES.values():
        for name in ("config.json", "vocabulary.json", "model.safetensors"):
            write(tmp_path / name)
        with pytest.raises(UserError):
            EmotionClassifier.load(tmp_path)
        assert not Path(MARK).exists()


def test_of_the_hub_only_what_is_read_is_fetched(
    parts: tuple[Path, Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: dict[str, Any] = {}
    monkeypatch.setattr("model.emosem.hub.snapshot_download", lambda _, **how: asked.update(how) or parts[2])
    EmoSEM.from_pretrained("owner/name")
    there = [path.name for path in parts[2].iterdir()]
    hostile = ["evil.py", "pytorch_model.bin", "custom_generate/generate.py", "x.pkl", "model.pt"]
    patterns = asked["allow_patterns"]
    assert sorted(filter_repo_objects([*there, *hostile], allow_patterns=patterns)) == sorted(there)


# ---- every call that could -----------------------------------------------------------------------------

RISKY = {
    *("torch.load", "torch.jit.load", "torch.hub.load", "np.load", "numpy.load", "joblib.load"),
    *("pickle.load", "pickle.loads", "pickle.Unpickler", "cloudpickle.loads", "dill.load", "marshal.loads"),
    *("yaml.load", "yaml.full_load", "yaml.unsafe_load", "eval", "exec", "compile", "__import__"),
    *("importlib.import_module", "runpy.run_path", "snapshot_download", "hf_hub_download"),
    *("open_clip.create_model", "open_clip.get_tokenizer", "open_clip.get_model_config"),
}
REVIEWED = {
    "model/alignment/artemis_classifier.py: torch.load": "by an unpickler with a list of names; swept above",
    "model/bench/flops.py: open_clip.create_model": "a name in the source, no weights",
    "model/bench/gpu_parts/worker.py: importlib.import_module": "a part that bench gpu names",
    "model/bench/true_size_weights.py: open_clip.create_model": "a name in the source, no weights",
    "model/emosem/hub.py: snapshot_download": "json, safetensors, txt and README.md alone",
    "model/train/checkpoint.py: torch.load": "weights_only=True",
    "pipeline/backbones/clip.py: open_clip.create_model": "names that open_clip lists, no weights",
    "pipeline/backbones/clip.py: open_clip.get_model_config": "names that open_clip lists",
    "pipeline/backbones/clip.py: open_clip.get_tokenizer": "names whose tokenizer is open_clip's own",
    "pipeline/backbones/language_model.py: AutoTokenizer.from_pretrained": "after refuse_code; swept above",
    "pipeline/backbones/tensors.py: torch.load": "weights_only=True; swept above",
    "pipeline/doctor/check_weights.py: open_clip.get_model_config": "names that open_clip lists",
    "pipeline/doctor/finding.py: importlib.import_module": "of names in the source",
    "pipeline/fetch/order.py: importlib.import_module": "of names in the source",
    "pipeline/regions/vinvl/sgb_config.py: importlib.import_module": "two installed packages, by name",
    "pipeline/reviews/consensus.py: importlib.import_module": "one package, by its name in the source",
    "stages/commands/bench.py: importlib.import_module": "of the names that `bench` takes",
    "stages/commands/run_stage.py: importlib.import_module": "of names in the source",
    "stages/_status.py: yaml.load": "by the safe loader, in C where it is there: dvc.lock is long",
}


def risky_calls(file: Path) -> set[str]:
    """What a file calls of `RISKY`, and every `X.from_pretrained` but that of our own model."""
    found = set()
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Call):
            called = ast.unparse(node.func)
            ours = called in ("EmoSEM.from_pretrained", "cls.from_pretrained")
            if called in RISKY or (called.endswith(".from_pretrained") and not ours):
                found.add(f"{file.relative_to(ROOT).as_posix()}: {called}")
    return found


def test_every_call_that_could_run_code_was_looked_at() -> None:
    rooms = ("pipeline", "model", "stages")
    files = [ROOT / "cli.py", *(file for room in rooms for file in (ROOT / room).rglob("*.py"))]
    found = set().union(*map(risky_calls, files))
    assert found == REVIEWED.keys()
    for file in files:
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if isinstance(node, ast.keyword) and node.arg in ("allow_pickle", "trust_remote_code"):
                assert ast.unparse(node.value) == "False", file
            if isinstance(node, ast.keyword) and node.arg == "weights_only" and "artemis" not in file.name:
                assert ast.unparse(node.value) == "True", file
