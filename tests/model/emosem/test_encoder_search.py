"""Encoders found by their hash: under any name, with what is read beside them, and never another file."""

import hashlib
from pathlib import Path

import pytest

from model.emosem.encoder_search import Shelf, cache_folder, find, shelves
from model.emosem.provenance import ClipProvenance, EncoderFile, SamProvenance
from pipeline.common.files import write_json
from pipeline.common.fingerprint import sha256_file

DATA = b"weights of a network"
SHA = hashlib.sha256(DATA).hexdigest()


def piece(name: str, data: bytes) -> EncoderFile:
    return EncoderFile(name, len(data), hashlib.sha256(data).hexdigest())


def put(path: Path, data: bytes = DATA) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
    return path


EXPORTED = SamProvenance("vit_b", SHA, files=(piece("sam_vit_b.pth", DATA),))
PLAIN = SamProvenance("vit_b", SHA)
"""Of a run, which notes the hash alone."""


@pytest.mark.parametrize("encoder", [EXPORTED, PLAIN])
@pytest.mark.parametrize("name", ["sam_vit_b.pth", "other.pt", "a/b/c/renamed.safetensors"])
def test_found_under_any_name_and_some_folders_deep(
    encoder: SamProvenance, name: str, tmp_path: Path
) -> None:
    for number in range(3):
        put(tmp_path / f"decoy{number}.pth", DATA[::-1])
    put(tmp_path / "sam_vit_b.txt")
    file = put(tmp_path / "w" / name)
    assert find(encoder, [Shelf(tmp_path / "nowhere"), Shelf(tmp_path / "w")]).found == file


@pytest.mark.parametrize("encoder", [EXPORTED, PLAIN])
def test_too_deep_hidden_or_another_file_is_not_found_and_hashes_are_told(
    encoder: SamProvenance, tmp_path: Path
) -> None:
    put(tmp_path / "a" / "b" / "c" / "d" / "sam_vit_b.pth")
    put(tmp_path / ".hidden" / "sam_vit_b.pth")
    wrong = put(tmp_path / "sam_vit_b.pth", b"other bytes")
    found = find(encoder, [Shelf(tmp_path)])
    assert found.found is None
    assert found.others == (f"{wrong}: SHA-256 {hashlib.sha256(b'other bytes').hexdigest()}",)


def test_links_are_followed_and_circles_end(tmp_path: Path) -> None:
    put(tmp_path / "elsewhere" / "sam_vit_b.pth")
    (tmp_path / "w").mkdir()
    (tmp_path / "w" / "again").symlink_to(tmp_path / "w")
    assert find(PLAIN, [Shelf(tmp_path / "w")]).found is None
    (tmp_path / "w" / "sam").symlink_to(tmp_path / "elsewhere")
    found = find(PLAIN, [Shelf(tmp_path / "w")]).found
    assert found is not None and found.resolve() == tmp_path / "elsewhere" / "sam_vit_b.pth"


def test_what_is_read_beside_the_weights_must_be_there_and_the_same(tmp_path: Path) -> None:
    sizes = b'{"depth": 2}'
    encoder = SamProvenance("tiny", SHA, files=(piece("sam.safetensors", DATA), piece("sam.json", sizes)))
    file = put(tmp_path / "sam.safetensors")
    assert find(encoder, [Shelf(tmp_path)]).others == (f"{file} lacks sam.json beside it",)
    put(tmp_path / "sam.json", b"{}")
    assert find(encoder, [Shelf(tmp_path)]).others == (
        f"{tmp_path / 'sam.json'}: SHA-256 {sha256_file(tmp_path / 'sam.json')}",
    )
    put(tmp_path / "sam.json", sizes)
    assert find(encoder, [Shelf(tmp_path)]).found == file
    renamed = file.rename(tmp_path / "x.safetensors")  # its sizes would be looked for in x.json
    assert find(encoder, [Shelf(tmp_path)]).others == (
        f"{renamed} must be called sam.safetensors, for what is read beside it",
    )


def test_the_copies_in_a_models_folder_count_as_well(tmp_path: Path) -> None:
    copy = b"the same tensors as safetensors"
    encoder = ClipProvenance(
        "ViT-B-16", SHA, files=(piece("x.pt", DATA),), beside=(piece("c.safetensors", copy),)
    )
    file = put(tmp_path / "encoders" / "clip" / "c.safetensors", copy)
    assert find(encoder, shelves(tmp_path)).found == file
    file.write_bytes(copy[::-1])
    assert find(encoder, shelves(tmp_path)).found is None


def test_the_checkpoint_that_is_named_comes_first_and_may_be_a_folder(tmp_path: Path) -> None:
    from pipeline.backbones.weight_hashes import verify_weights

    folder = put(tmp_path / "clip" / "model.safetensors").parent
    put(folder / "config.json", b"{}")
    encoder = ClipProvenance("ViT-B-16", verify_weights(folder))
    assert find(encoder, [], folder).found == folder
    put(folder / "config.json", b"[]")
    assert find(encoder, [], folder).others == (f"{folder}: SHA-256 {verify_weights(folder)}",)
    (missing,) = find(PLAIN, [], tmp_path / "nowhere.pth").others
    assert "nowhere.pth do not exist" in missing


def test_a_list_of_hashes_beside_the_weights_is_believed(tmp_path: Path) -> None:
    """A file that `sha256.json` contradicts is no candidate, even of the right hash."""
    put(tmp_path / "sam_vit_b.pth")
    write_json(tmp_path / "sha256.json", {"sam_vit_b.pth": "0" * 64})
    assert find(EXPORTED, [], tmp_path / "sam_vit_b.pth").found is None


def test_where_weights_are_looked_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EMOSEM_WEIGHTS", f"{tmp_path / 'a'}:{tmp_path / 'b'}:")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    model = tmp_path / "model"
    folders = [place.folder for place in shelves(model, [tmp_path / "given", tmp_path / "a"])]
    assert folders == [
        *(model / "encoders", model, tmp_path / "given", tmp_path / "a", tmp_path / "b"),
        *(Path("weights"), tmp_path / "cache" / "emosem" / "weights"),
    ]
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert cache_folder() == tmp_path / ".cache" / "emosem" / "weights"
