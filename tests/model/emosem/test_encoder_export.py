"""Encoders beside an exported model: what is copied, what is rewritten, and that it computes the same."""

import dataclasses
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import open_clip
import pytest
import torch
from safetensors.torch import load_file

from model.emosem import export as module
from model.emosem.config import read_config
from model.emosem.export import export
from model.emosem.network import EmoSEM
from model.emosem.provenance import Provenance
from model.predict.encoder_params import params_of_files
from model.predict.encoders import Sources, locate
from pipeline.backbones.params import BackbonesParams, ClipParams, SamParams
from pipeline.backbones.weight_hashes import verify_weights
from pipeline.common.errors import UserError
from pipeline.common.files import write_json
from pipeline.common.fingerprint import sha256_file
from pipeline.features.encoders import Encoders
from pipeline.features.params import FeaturesParams
from tests.worlds import transformers_copies
from tests.worlds.backbones import write_torchscript
from tests.worlds.own_pictures import PARAMS, new_run, provenance_of, write_weights

PICTURE = np.random.default_rng(3).integers(0, 255, (50, 70, 3), dtype=np.uint8)


@pytest.fixture(scope="module")
def backbones(tmp_path_factory: pytest.TempPathFactory) -> BackbonesParams:
    return write_weights(tmp_path_factory.mktemp("weights"))


@pytest.fixture(scope="module")
def run(backbones: BackbonesParams, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return new_run(backbones, tmp_path_factory.mktemp("runs") / "single", provenance_of(backbones))


def features(params: FeaturesParams, backbones: BackbonesParams) -> dict[str, np.ndarray]:
    """What would be cached of the picture."""
    encoders = Encoders(params, backbones)
    row = {"key": "k", "height": PICTURE.shape[0], "width": PICTURE.shape[1]}
    ((_, arrays, _),) = encoders.encode([(row, encoders.prepare(PICTURE))])
    return arrays


def features_of_export(folder: Path) -> dict[str, np.ndarray]:
    """The same by the encoders that lie in an exported model's folder, and by nothing else."""
    _, provenance = read_config(folder)
    files = locate(folder, provenance, Sources())
    assert all(folder in file.parents for file in files)
    return features(*params_of_files(folder, provenance, files, PARAMS))


def as_torch(folder: Path, backbones: BackbonesParams) -> BackbonesParams:
    """The same weights as torch's pickles."""
    for part in (backbones.sam, backbones.clip):
        torch.save({"state_dict": load_file(part.checkpoint)}, folder / f"{part.checkpoint.stem}.pth")
        shutil.copy(part.checkpoint.with_suffix(".json"), folder)
        shutil.copy(part.checkpoint.with_name("bpe.txt.gz"), folder)
    return BackbonesParams(
        SamParams("tiny", folder / "sam.pth"), ClipParams("tiny", folder / "clip.pth"), device="cpu"
    )


def as_torchscript(folder: Path, backbones: BackbonesParams) -> BackbonesParams:
    """CLIP as a program, by a name of open_clip's, with quick_gelu."""
    sizes = json.loads(backbones.clip.checkpoint.with_suffix(".json").read_text())
    sizes["text_cfg"] |= {"vocab_size": 49408}
    write_json(folder / "small-of-a-test.json", sizes | {"quick_gelu": True})
    open_clip.add_model_config(folder / "small-of-a-test.json")
    torch.manual_seed(4)
    model = open_clip.create_model("small-of-a-test", load_weights=False).half().float()
    write_torchscript(model, folder / "clip.pt")
    return dataclasses.replace(backbones, clip=ClipParams("small-of-a-test", folder / "clip.pt"))


def as_transformers(folder: Path, backbones: BackbonesParams) -> BackbonesParams:
    """CLIP as a folder of transformers', which normalises by numbers of its own."""
    sizes = json.loads(backbones.clip.checkpoint.with_suffix(".json").read_text())
    transformers_copies.clip(folder / "clip", sizes)
    shutil.copy(backbones.clip.checkpoint.with_name("bpe.txt.gz"), folder / "clip")
    write_json(
        folder / "clip" / "preprocessor_config.json",
        {"image_mean": [0.5, 0.4, 0.3], "image_std": [0.2, 0.3, 0.4]},
    )
    return dataclasses.replace(backbones, clip=ClipParams("tiny", folder / "clip"))


def test_a_safetensors_file_is_copied_and_all_is_noted(
    run: Path, backbones: BackbonesParams, tmp_path: Path
) -> None:
    done = export(run, tmp_path / "out", tmp_path, backbones=backbones)
    assert done["encoders"].startswith("in the folder (")
    folder = backbones.sam.checkpoint.parent
    for name in ("sam/sam.safetensors", "sam/sam.json", "clip/clip.safetensors", "clip/clip.json"):
        copy = tmp_path / "out" / "encoders" / name
        assert copy.read_bytes() == (folder / copy.name).read_bytes()
    about = json.loads((tmp_path / "out" / "config.json").read_text())["about"]
    assert about["sam"]["format"] == about["clip"]["format"] == "safetensors"
    sizes = json.loads((folder / "sam.json").read_text())
    assert about["sam"]["preprocessing"]["size"] == sizes["img_size"]
    assert about["clip"]["preprocessing"]["size"] == 32
    np.testing.assert_allclose(about["sam"]["preprocessing"]["mean"], [123.675, 116.28, 103.53], atol=1e-4)
    np.testing.assert_allclose(about["clip"]["preprocessing"]["std"], [0.26863, 0.26130, 0.27578], atol=1e-4)
    listed = (tmp_path / "out" / "SHA256SUMS").read_text().splitlines()
    files = {
        f for f in (tmp_path / "out").rglob("*") if f.is_file() and f.name not in ("SHA256SUMS", "README.md")
    }
    assert set(listed) == {f"{sha256_file(f)}  {f.relative_to(tmp_path / 'out').as_posix()}" for f in files}
    before = {file: file.read_bytes() for file in (tmp_path / "out").rglob("*") if file.is_file()}
    export(run, tmp_path / "out", tmp_path, backbones=backbones)
    assert {file: file.read_bytes() for file in (tmp_path / "out").rglob("*") if file.is_file()} == before
    assert "Both are in the folder `encoders/`" in (tmp_path / "out" / "README.md").read_text()


@pytest.mark.parametrize("written", [as_torch, as_torchscript, as_transformers])
def test_in_every_format_the_copies_give_the_same_features_and_are_no_programs(
    written: Callable[[Path, BackbonesParams], BackbonesParams],
    run: Path,
    backbones: BackbonesParams,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "w").mkdir()
    given = written(tmp_path / "w", backbones)
    about = provenance_of(backbones)
    assert about.sam and about.clip
    about = Provenance(
        dataclasses.replace(about.sam, sha256=verify_weights(given.sam.checkpoint)),
        dataclasses.replace(about.clip, name=given.clip.name, sha256=verify_weights(given.clip.checkpoint)),
    )
    model = EmoSEM.from_pretrained(run)
    model.provenance = about
    model.save_pretrained(tmp_path / "run")
    expected = features(FeaturesParams(), given)
    export(tmp_path / "run", tmp_path / "out", tmp_path, backbones=given)
    shutil.rmtree(tmp_path / "w")
    found = features_of_export(tmp_path / "out")
    for name in ("sam", "clip"):
        np.testing.assert_array_equal(found[name], expected[name])
    files = [file for file in (tmp_path / "out").rglob("*") if file.is_file()]
    assert {file.suffix for file in files} <= {".safetensors", ".json", ".md", ".gz", ".txt", ""}
    again = export(tmp_path / "out", tmp_path / "again", tmp_path)  # of an export, without its first files
    assert again["encoders"].startswith("in the folder")
    np.testing.assert_array_equal(features_of_export(tmp_path / "again")["clip"], expected["clip"])


def test_large_ones_stay_out_unless_asked_for_and_are_removed_again(
    run: Path, backbones: BackbonesParams, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "SMALL", 1000)
    out = tmp_path / "out"

    def encoders() -> set[str]:
        return {file.name for file in out.glob("encoders/*/*")}

    done = export(run, out, tmp_path, backbones=backbones)
    assert "--with-encoders puts them there" in done["encoders"] and not encoders()
    assert (
        json.loads((out / "config.json").read_text())["about"]["sam"]["files"][0]["name"] == "sam.safetensors"
    )
    export(run, out, tmp_path, backbones=backbones, with_encoders=True)
    assert "sam.safetensors" in encoders()
    (out / "encoders" / "sam" / "mine.txt").write_text("of the user")
    export(run, out, tmp_path, backbones=backbones, with_encoders=False)
    assert encoders() == {"mine.txt"}
    assert "They are not in this folder" in (out / "README.md").read_text()
    assert not list(tmp_path.rglob("*.tmp"))


def test_absent_encoders_are_named(run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    done = export(run, tmp_path / "out", tmp_path)
    _, about = read_config(run)
    assert about is not None and about.sam is not None
    assert "named by hash alone" in done["encoders"] and about.sam.sha256 in done["encoders"]
    with pytest.raises(UserError, match=r"--with-encoders: SAM tiny .* not found"):
        export(run, tmp_path / "out", tmp_path, with_encoders=True)


def test_a_model_of_older_code_is_exported_as_before(
    backbones: BackbonesParams, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    old = new_run(backbones, tmp_path / "old", None)
    done: dict[str, Any] = export(old, tmp_path / "out", tmp_path, backbones=backbones)
    assert "the run does not say which" in done["encoders"]
    assert EmoSEM.from_pretrained(tmp_path / "out").provenance is None
    assert "Which they were was not noted" in (tmp_path / "out" / "README.md").read_text()


def test_a_resaved_model_does_not_claim_encoders_that_it_lacks(
    run: Path, backbones: BackbonesParams, tmp_path: Path
) -> None:
    export(run, tmp_path / "out", tmp_path, backbones=backbones)
    EmoSEM.from_pretrained(tmp_path / "out").save_pretrained(tmp_path / "resaved")
    _, about = read_config(tmp_path / "resaved")
    assert about is not None and about.sam is not None and about.clip is not None
    assert about.sam.files and about.sam.beside == about.clip.beside == ()
