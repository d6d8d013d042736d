"""Official files by their hash: known, placed apart, and asked for only where that is allowed."""

from pathlib import Path

import pytest

from pipeline.common.errors import UserError
from pipeline.fetch.by_hash import known, order_by_hash, place
from pipeline.fetch.catalog import CLIP, FASTER_RCNN, LANGUAGE_MODELS, SAM


def test_every_published_hash_leads_to_its_file_and_each_has_its_own_place() -> None:
    places = set()
    for group in (SAM, CLIP, FASTER_RCNN, LANGUAGE_MODELS):
        for weights in group.values():
            for remote in weights.files.values():
                if remote.sha256 is not None:
                    found = known(remote.sha256)
                    assert found is not None and found[1].sha256 == remote.sha256
                    places.add((place(Path("w"), remote), remote.sha256))
    assert len({path for path, _ in places}) == len({sha for _, sha in places}) > 10
    assert known("0" * 64) is None


def test_an_order_has_the_address_the_hash_and_the_place(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "0")
    monkeypatch.setenv("HF_ENDPOINT", "https://mirror.example")
    (sam,), clip = SAM["vit_b"].files.values(), CLIP["ViT-B-16-quickgelu"].files[".safetensors"]
    order = order_by_hash({"SAM": str(sam.sha256), "CLIP": str(clip.sha256)}, Path("w"))
    assert [wanted.url for wanted in order] == [
        sam.url,
        clip.url.replace("https://huggingface.co", "https://mirror.example"),
    ]
    assert [wanted.path for wanted in order] == [
        Path("w/ec2df62732614e57/sam_vit_b_01ec64.pth"),
        Path("w/4b8699299b1e8997/open_clip_model.safetensors"),
    ]
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    order_by_hash({"SAM": str(sam.sha256)}, Path("w"))  # not of the hub
    with pytest.raises(UserError, match="HF_HUB_OFFLINE is set"):
        order_by_hash({"CLIP": str(clip.sha256)}, Path("w"))
    with pytest.raises(KeyError):
        order_by_hash({"x": "0" * 64}, Path("w"))
