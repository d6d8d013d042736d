"""A saved model with its encoders anywhere: found, fetched when asked to, or one message about both ways."""

import dataclasses
import hashlib
import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from model.emosem.config import read_config
from model.emosem.export import export
from model.emosem.network import EmoSEM
from model.predict.encoders import Sources, locate, shown
from model.predict.request import read_request
from model.predictor import Predictor
from pipeline.backbones.params import BackbonesParams
from pipeline.common.arrays import parse_npy
from pipeline.common.errors import RunFailed, UserError
from pipeline.common.files import write_json
from pipeline.common.sums import write_sums
from pipeline.common.tables import read_artworks
from pipeline.common.tars import read_tar
from pipeline.features.params import FeaturesParams
from pipeline.features.step import build_features
from pipeline.fetch import by_hash
from pipeline.fetch.catalog import RemoteFile, Weights
from pipeline.parallel.map_shards import ParallelParams
from pipeline.releases.wikiart import read_image
from tests.pipeline.fetch.server import Hostile, serve
from tests.worlds.backbones import write_world
from tests.worlds.own_pictures import PARAMS, SIZES, new_run, provenance_of


@pytest.fixture(autouse=True)
def nowhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working directory without weights, and a home without a cache."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.delenv("EMOSEM_WEIGHTS", raising=False)
    return tmp_path


@pytest.fixture(scope="module")
def exported(run: Path, backbones: BackbonesParams, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model's folder with its encoders. Read only."""
    out = tmp_path_factory.mktemp("exported") / "model"
    export(run, out, out, backbones=backbones)
    return out


@pytest.fixture
def alone(run: Path, backbones: BackbonesParams, tmp_path: Path) -> Path:
    """A model's folder that names its encoders and holds none."""
    export(run, tmp_path / "alone", tmp_path, backbones=backbones, with_encoders=False)
    return tmp_path / "alone"


@pytest.mark.parametrize(("dtype", "normalisation"), [("float16", "clip"), ("int8", "imagenet")])
def test_the_features_are_those_of_the_cache_to_the_bit(
    backbones: BackbonesParams, tmp_path: Path, dtype: Any, normalisation: Any
) -> None:
    paths = write_world(tmp_path, shards=1)
    cached = FeaturesParams(sam_dtype=dtype, clip_normalisation=normalisation)
    build_features(paths, cached, backbones, ParallelParams())
    about = provenance_of(backbones, normalisation=normalisation)
    assert about.sam is not None
    about = dataclasses.replace(about, sam=dataclasses.replace(about.sam, dtype=dtype))
    export(new_run(backbones, tmp_path / "run", about), tmp_path / "out", tmp_path, backbones=backbones)
    predictor = Predictor.from_pretrained("out", params=dataclasses.replace(PARAMS, batch=1))
    works = {row["key"]: paths.wikiart / row["path"] for row in read_artworks(paths, 0)}
    samples = dict(read_tar(paths.step("features") / "000000.tar"))
    assert len(samples) > 3
    for key, members in samples.items():
        (found,) = predictor.encode([predictor.prepare(read_image(works[key]))])
        np.testing.assert_array_equal(found.sam, parse_npy(members["sam.npy"]))
        np.testing.assert_array_equal(found.clip, parse_npy(members["clip.npy"]))
        if dtype == "int8":
            np.testing.assert_array_equal(found.sam_scale, parse_npy(members["sam_scale.npy"]))


def test_the_lines_of_the_card(exported: Path, pictures: Path, tmp_path: Path) -> None:
    shutil.copytree(exported, tmp_path / "FOLDER_OF_THIS_MODEL")
    shutil.copy(pictures / "wide.png", "painting.jpg")
    lines = (exported / "README.md").read_text().split("```python\n")[1].split("```")[0]
    found: dict[str, Any] = {}
    exec(lines, found)  # noqa: S102 - our own lines
    answer = found["found"]
    assert answer.mask.shape == SIZES["wide.png"] and 0 <= answer.mask.min() <= answer.mask.max() <= 1
    assert isinstance(answer.explanations[0], str)
    assert len([line for line in lines.splitlines() if line and "print" not in line]) == 3


def test_found_in_every_place(
    run: Path, alone: Path, backbones: BackbonesParams, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of a trained run, which notes hashes alone, and of an exported model."""
    weights = backbones.sam.checkpoint.parent
    places = [tmp_path / "given", tmp_path / "named", tmp_path / "weights"]
    places.append(tmp_path / "home" / ".cache" / "emosem" / "weights")
    for place in places:
        shutil.copytree(weights, place / "tiny")
        for model in (run, alone):
            _, about = read_config(model)
            given = (place,) if place.name == "given" else ()
            with monkeypatch.context() as patch:
                if place.name == "named":
                    patch.setenv("EMOSEM_WEIGHTS", f"{tmp_path / 'x'}:{place}")
                files = locate(model, about, Sources(given))
            assert [file.resolve() for file in files] == [
                place / "tiny" / "sam.safetensors",
                place / "tiny" / "clip.safetensors",
            ]
        shutil.rmtree(place)


def test_one_message_lists_what_is_missing_and_both_ways_to_get_it(alone: Path) -> None:
    with pytest.raises(UserError) as raised:
        Predictor.from_pretrained(alone)
    _, about = read_config(alone)
    assert about is not None and about.sam is not None and about.clip is not None
    for words in (
        *("SAM tiny", about.sam.sha256, "CLIP tiny", about.clip.sha256, "sam.safetensors"),
        *("~/.cache/emosem/weights", "--weights DIR", "weights=DIR", "EMOSEM_WEIGHTS=DIR", "--with-encoders"),
    ):
        assert words in str(raised.value), words
    assert "home/.cache" not in str(raised.value)
    with pytest.raises(UserError, match="no-such-folder is no folder"):
        Predictor.from_pretrained(alone, weights="no-such-folder")
    with pytest.raises(UserError, match="not all of them are here"):  # not official: nothing is asked for
        Predictor.from_pretrained(alone, fetch=True)


def test_a_flipped_bit_is_refused_with_both_hashes(exported: Path, tmp_path: Path) -> None:
    shutil.copytree(exported, tmp_path / "model")
    file = tmp_path / "model" / "encoders" / "clip" / "clip.safetensors"
    data = bytearray(file.read_bytes())
    data[-1] ^= 1
    file.write_bytes(data)
    _, about = read_config(exported)
    assert about is not None and about.clip is not None
    with pytest.raises(UserError) as raised:
        Predictor.from_pretrained("model")
    assert about.clip.sha256 in str(raised.value)
    assert (
        f"not this one: model/encoders/clip/clip.safetensors: SHA-256 {hashlib.sha256(data).hexdigest()}"
        in str(raised.value)
    )


@pytest.fixture
def official(
    backbones: BackbonesParams, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Hostile]:
    """A server that publishes the encoders as single files, and a catalogue that knows them."""
    with serve(Hostile()) as server:
        for name, group in (("sam", "SAM"), ("clip", "CLIP")):
            data = getattr(backbones, name).checkpoint.read_bytes()
            server.files[f"/{name}.safetensors"] = data
            remote = RemoteFile(
                f"{server.url}/{name}.safetensors", len(data), hashlib.sha256(data).hexdigest()
            )
            weights = Weights(f"{name} of a test", "MIT", server.url, {f"{name}.safetensors": remote})
            monkeypatch.setattr(by_hash, group, {"x": weights})
        monkeypatch.setenv("NO_PROXY", "127.0.0.1")
        yield server


def single_files(model: Path) -> None:
    """Make a model's encoders such as need one file each, as official ones do."""
    config = json.loads((model / "config.json").read_text())
    for name in ("sam", "clip"):
        config["about"][name]["files"] = config["about"][name]["files"][:1]
    write_json(model / "config.json", config)
    write_sums(model, [f.name for f in model.iterdir() if f.name not in ("SHA256SUMS", "README.md")])


def test_fetched_when_asked_to_and_never_silently(
    alone: Path, official: Hostile, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    single_files(alone)
    _, about = read_config(alone)
    assert about is not None and about.sam is not None
    with pytest.raises(UserError, match=r"Or have them fetched \(.* into ~/.cache/emosem/weights\): --fetch"):
        locate(alone, about, Sources())
    assert official.asked == []
    files = locate(alone, about, Sources(fetch=True))
    digits = about.sam.sha256[:16]
    assert files.sam == tmp_path / "home" / ".cache" / "emosem" / "weights" / digits / "sam.safetensors"
    said = capsys.readouterr().err
    assert about.sam.sha256 in said and "licence MIT" in said and "SAM tiny: sam of a test" in said
    assert len(official.asked) == 2
    assert locate(alone, about, Sources()) == files  # found by the next, which asks nobody
    shutil.rmtree(tmp_path / "home")
    monkeypatch.setenv("EMOSEM_WEIGHTS", str(tmp_path / "named"))
    assert tmp_path / "named" in locate(alone, about, Sources(fetch=True)).sam.parents
    given = locate(alone, about, Sources((tmp_path / "given",), fetch=True))
    assert tmp_path / "named" in given.sam.parents and len(official.asked) == 4  # what is here is not fetched
    shutil.rmtree(tmp_path / "named")
    given = locate(alone, about, Sources((tmp_path / "given",), fetch=True))
    assert tmp_path / "given" in given.clip.parents


def test_what_a_server_sends_is_believed_by_its_hash(alone: Path, official: Hostile, tmp_path: Path) -> None:
    single_files(alone)
    _, about = read_config(alone)
    official.files["/clip.safetensors"] = official.files["/clip.safetensors"][::-1]
    with pytest.raises(RunFailed, match="thrown away"):
        locate(alone, about, Sources(fetch=True))
    left = [file.name for file in (tmp_path / "home").rglob("*") if file.is_file()]
    assert left == ["sam.safetensors"]


def test_another_preprocessing_is_refused(exported: Path, tmp_path: Path) -> None:
    shutil.copytree(exported, tmp_path / "model")
    config = json.loads((exported / "config.json").read_text())
    config["about"]["clip"]["preprocessing"]["mean"][0] += 0.01
    write_json(tmp_path / "model" / "config.json", config)
    (tmp_path / "model" / "SHA256SUMS").unlink()
    with pytest.raises(UserError, match="CLIP tiny takes pictures otherwise here"):
        Predictor.from_pretrained("model")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"arch": "vit_x"}, "encoders that are not known here"),
        ({"files": [{"name": "../sam.safetensors", "bytes": 1, "sha256": "0" * 64}]}, "no trained model"),
        ({"files": [{"name": ".hidden", "bytes": 1, "sha256": "0" * 64}]}, "no trained model"),
        ({"beside": [{"name": "a/b", "bytes": 1, "sha256": "0" * 64}]}, "no trained model"),
        ({"files": [{"name": "a", "bytes": 1, "sha256": "0"}]}, "no trained model"),
        ({"sha256": "0" * 64, "files": [], "beside": []}, "not all of them are here"),
    ],
)
def test_what_a_strange_config_says_is_refused(
    change: dict[str, Any], message: str, exported: Path, tmp_path: Path
) -> None:
    shutil.copytree(exported, tmp_path / "model")
    config = json.loads((exported / "config.json").read_text())
    config["about"]["sam"] |= change
    write_json(tmp_path / "model" / "config.json", config)
    (tmp_path / "model" / "SHA256SUMS").unlink()
    with pytest.raises(UserError, match=message):
        Predictor.from_pretrained("model")


def test_a_clip_of_the_hub_by_name_is_never_asked_for(exported: Path, tmp_path: Path) -> None:
    shutil.copytree(exported, tmp_path / "model")
    config = json.loads((exported / "config.json").read_text())
    config["about"]["clip"]["name"] = "hf-hub:somebody/model"
    write_json(tmp_path / "model" / "config.json", config)
    (tmp_path / "model" / "SHA256SUMS").unlink()
    with pytest.raises(UserError, match="open_clip has no model"):
        Predictor.from_pretrained("model")


def test_a_model_that_does_not_say_wants_a_params_file(backbones: BackbonesParams, tmp_path: Path) -> None:
    old = new_run(backbones, tmp_path / "old", None)
    with pytest.raises(UserError, match=r"does not say which SAM and CLIP .*from_params"):
        Predictor.from_pretrained(old)
    assert EmoSEM.from_pretrained(old).provenance is None


def test_a_request_finds_its_encoders_by_the_params_the_folder_or_not_at_all(
    run: Path, exported: Path, pictures: Path, backbones: BackbonesParams, tmp_path: Path
) -> None:
    file = tmp_path / "params.yaml"

    def ask(model: Path, named: bool = False, **more: Any) -> Any:
        return read_request(str(model), [pictures], ["awe"], tmp_path / "out", file, named, **more)

    assert ask(exported).backbones.sam == exported / "encoders" / "sam" / "sam.safetensors"
    assert ask(exported).params.seeds == (0,)
    with pytest.raises(UserError, match="not all of them are here"):
        ask(run)
    checkpoints = {name: str(getattr(backbones, name).checkpoint) for name in ("sam", "clip")}
    sections = {name: {"checkpoint": path} for name, path in checkpoints.items()}
    write_json(file, {"backbones": sections, "predict": {"seeds": [3, 4]}})
    assert ask(run).backbones == tuple(map(Path, checkpoints.values())) and ask(run).params.seeds == (3, 4)
    assert isinstance(ask(run, named=True).backbones, BackbonesParams)
    write_json(file, {"backbones": {"sam": {"checkpoint": str(file)}}})
    assert ask(exported).backbones.clip == exported / "encoders" / "clip" / "clip.safetensors"
    with pytest.raises(UserError, match=r"not this one: .*params.yaml: SHA-256 [0-9a-f]{64}"):
        ask(run)
    old = new_run(backbones, tmp_path / "old", None)
    assert isinstance(ask(old).backbones, BackbonesParams) and ask(old).given == FeaturesParams()
    weights = [backbones.sam.checkpoint.parent]
    assert ask(run, named=True, weights=weights).backbones.sam == backbones.sam.checkpoint


def test_paths_do_not_name_the_users_home(tmp_path: Path) -> None:
    assert shown(tmp_path / "home" / "x") == "~/x"
    assert shown(Path("weights")) == "weights" and shown(tmp_path / "homes") == str(tmp_path / "homes")
