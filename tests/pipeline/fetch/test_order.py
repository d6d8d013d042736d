"""Which file, from where, to where: by the params, and by what publishers say themselves."""

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from pipeline.common.errors import UserError
from pipeline.doctor.check_weights import SAM_FILES
from pipeline.fetch import catalog
from pipeline.fetch.order import NAMES, make_order
from pipeline.fetch.report import by_hand, order_text
from tests.imports import ROOT

FULL = ROOT / "params" / "artemis.yaml"


@pytest.fixture(autouse=True)
def online(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
    monkeypatch.delenv("HF_ENDPOINT", raising=False)


def params(folder: Path, **backbones: Any) -> Path:
    score = backbones.pop("score", None)
    sections = {"backbones": backbones} | ({"score": {"clip": score}} if score else {})
    (folder / "p.yaml").write_text(yaml.safe_dump(sections))
    return folder / "p.yaml"


def test_the_paper_s_params_name_every_file() -> None:
    order = make_order(["sam", "clip", "clip-score", "vinvl", "distilgpt2"], FULL)
    assert {str(one.path): one.url.rsplit("/", 1)[1] for one in order} == {
        "weights/sam_vit_b_01ec64.pth": "sam_vit_b_01ec64.pth",
        "weights/clip_vit_b_16.safetensors": "open_clip_model.safetensors",
        "weights/clip_vit_b_32.safetensors": "open_clip_model.safetensors",
        "weights/vinvl_vg_x152c4.pth": "vinvl_vg_x152c4.pth",
        "weights/VG-SGG-dicts-vgoi6-clipped.json": "VG-SGG-dicts-vgoi6-clipped.json",
    } | {
        f"weights/distilgpt2/{name}": name
        for name in (
            "config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json", "vocab.json",
            "merges.txt",
        )
    }  # fmt: skip
    assert len({one.url for one in order}) == len(order)
    assert all(one.note == "" for one in order)


@pytest.mark.parametrize("arch", ["vit_b", "vit_l", "vit_h"])
def test_sam_by_its_arch(arch: str, tmp_path: Path) -> None:
    (one,) = make_order(["sam"], params(tmp_path, sam={"arch": arch, "checkpoint": "w/mine.pth"}))
    name = one.url.rsplit("/", 1)[1]
    assert name.startswith(f"sam_{arch}_") and one.path == Path("w/mine.pth")
    assert one.remote.sha256 == SAM_FILES[name]
    million = {"vit_b": 93_735_472, "vit_l": 312_342_832, "vit_h": 641_090_608}[arch]
    assert 0 < (one.remote.size or 0) - 4 * million < 250_000  # float32 tensors, and their names


def test_a_name_of_another_size_is_refused(tmp_path: Path) -> None:
    wrong = params(tmp_path, sam={"arch": "vit_l", "checkpoint": "w/sam_vit_b_01ec64.pth"})
    with pytest.raises(UserError, match="the name of another"):
        make_order(["sam"], wrong)


def test_clip_by_its_name_and_ending(tmp_path: Path) -> None:
    openai = params(tmp_path, clip={"name": "ViT-B-16-quickgelu", "checkpoint": "w/ViT-B-16.pt"})
    assert make_order(["clip"], openai)[0].url.startswith("https://openaipublic.azureedge.net/")
    laion = params(tmp_path, clip={"name": "ViT-B-32", "checkpoint": "w/b32.safetensors"})
    assert "laion2B" in make_order(["clip"], laion)[0].url
    for clip in ({"name": "RN50x64", "checkpoint": "w/x.pt"}, {"name": "ViT-B-16", "checkpoint": "w/x.bin"}):
        with pytest.raises(UserError, match=re.escape(clip["checkpoint"])):
            make_order(["clip"], params(tmp_path, clip=clip))


def test_one_file_for_two_uses_is_fetched_once(tmp_path: Path) -> None:
    clip = {"name": "ViT-B-16-quickgelu", "checkpoint": "w/ViT-B-16.pt"}
    assert len(make_order(["clip", "clip-score", "clip"], params(tmp_path, clip=clip))) == 1
    other = params(tmp_path, clip=clip, score=clip | {"name": "ViT-B-32-quickgelu"})
    with pytest.raises(UserError, match="differ"):
        make_order(["clip", "clip-score"], other)


def test_another_language_model_goes_beside_that_of_the_params() -> None:
    order = make_order(["gpt2-large"], FULL)
    assert {str(one.path.parent) for one in order} == {"weights/gpt2-large"}
    assert all("backbones.language_model: weights/gpt2-large" in one.note for one in order)


@pytest.mark.parametrize("name", ["sam", "clip", "clip-score", "vinvl", "gpt2", "distilgpt2"])
def test_the_built_in_weights_are_not_replaced(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    with pytest.raises(UserError, match=r"--params params/artemis\.yaml"):
        make_order([name], Path("params.yaml"))


def test_unknown_names_are_answered() -> None:
    with pytest.raises(UserError, match="did you mean distilgpt2"):
        make_order(["distilgp"], FULL)
    with pytest.raises(UserError, match="artemis-classifier"):
        make_order(["???"], FULL)


def test_mirrors_keep_the_path(monkeypatch: pytest.MonkeyPatch) -> None:
    (one,) = make_order(["sam"], FULL, "https://mirror.example/weights/")
    assert one.url == "https://mirror.example/weights/segment_anything/sam_vit_b_01ec64.pth"
    monkeypatch.setenv("HF_ENDPOINT", "https://hub.example")
    sam, clip = make_order(["sam", "clip"], FULL)
    assert sam.url == "https://dl.fbaipublicfiles.com/segment_anything/sam_vit_b_01ec64.pth"
    assert clip.url.startswith("https://hub.example/timm/vit_base_patch16_clip_224.openai/resolve/")
    for wrong in ("mirror.example", "file:///etc", "https://", "ftp://mirror.example"):
        with pytest.raises(UserError, match=r"--mirror"):
            make_order(["sam"], FULL, wrong)


def test_a_password_is_never_shown() -> None:
    order = make_order(["sam"], FULL, "https://me:secret@mirror.example")
    assert "secret" in order[0].url and "secret" not in order_text(order)


def test_offline_means_offline(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(UserError, match="HF_HUB_OFFLINE"):
        make_order(["clip"], FULL)
    assert make_order(["clip"], FULL, "http://127.0.0.1:1")


def all_weights() -> list[catalog.Weights]:
    tables = (catalog.SAM, catalog.CLIP, catalog.FASTER_RCNN, catalog.LANGUAGE_MODELS)
    return [catalog.VINVL, *(weights for table in tables for weights in table.values())]


def test_every_entry_says_what_must_be_known_before() -> None:
    for weights in all_weights():
        assert weights.licence and weights.page.startswith("https://")
        for remote in weights.files.values():
            assert remote.url.startswith("https://")
            assert remote.sha256 is None or re.fullmatch("[0-9a-f]{64}", remote.sha256)
            assert remote.sha256 is None or remote.size, "a known file has a known size"


def test_openai_s_addresses_are_those_of_open_clip() -> None:
    import open_clip
    from open_clip.pretrained import get_pretrained_cfg

    for name, weights in catalog.CLIP.items():
        assert name in open_clip.list_models()
        if own := weights.files.get(".pt"):
            published = get_pretrained_cfg(name, "openai")
            assert own.url == published["url"] and own.sha256 in own.url
            hub = published["hf_hub"].rstrip("/")
            assert weights.files[".safetensors"].url.startswith(f"{catalog.HUB}/{hub}/resolve/")


def test_torchvision_s_addresses_are_its_own() -> None:
    from torchvision.models import get_model_weights

    for name, weights in catalog.FASTER_RCNN.items():
        ((file, remote),) = weights.files.items()
        assert remote.url == get_model_weights(name).COCO_V1.url
        assert (remote.sha256 or "").startswith(file.removesuffix(".pth").rsplit("-", 1)[1])


def test_a_file_s_sha256_is_one_everywhere() -> None:
    tokenizers = [catalog.LANGUAGE_MODELS[name].files["vocab.json"] for name in ("gpt2", "distilgpt2")]
    assert len({one.sha256 for one in tokenizers}) == 1
    hashes = [r.sha256 for w in all_weights() for n, r in w.files.items() if r.sha256 and "json" not in n]
    assert len(hashes) - len(set(hashes)) == 1  # merges.txt of two


def test_everything_has_a_name_or_a_page() -> None:
    assert not set(NAMES) & set(catalog.BY_HAND)
    text = order_text([], by_hand(["apolo", "artemis", "apolo"]))
    assert text.count("https://github.com/Tianwei3989/apolo") == 1
    assert "https://www.artemisdataset.org" in text
