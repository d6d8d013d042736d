"""Near pairs against all pairs; hashes of copies that were resized, compressed again, or turned."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageOps

from pipeline.common import schema
from pipeline.releases.perceptual_hash import perceptual_hash
from pipeline.releases.wikiart import verify_picture
from pipeline.shard_stats.near_duplicates import near_pairs
from pipeline.shard_stats.summary import count_duplicates


@pytest.mark.parametrize("distance", [0, 1, 4, 9])
def test_pairs_equal_a_loop_over_all(distance: int) -> None:
    rng = np.random.default_rng(distance)
    hashes = rng.integers(0, 2**63, 300, np.uint64)
    for place in range(150):  # near copies, some of them twice
        flips = rng.choice(64, rng.integers(0, 12), replace=False)
        hashes[place] = hashes[150 + place % 40] ^ np.uint64(sum(1 << int(bit) for bit in flips))
    wanted = [
        (one, other)
        for one in range(300)
        for other in range(one + 1, 300)
        if int(hashes[one] ^ hashes[other]).bit_count() <= distance
    ]
    found = near_pairs(hashes, distance)
    assert list(zip(found.left.tolist(), found.right.tolist(), strict=True)) == wanted
    assert found.plain == found.crowds == 0


def test_plain_pictures_are_like_nothing() -> None:
    found = near_pairs(np.zeros(5, np.uint64), 4)
    assert (len(found.left), found.plain) == (0, 5)
    assert len(near_pairs(np.empty(0, np.uint64), 4).left) == 0


def picture(seed: int, size: tuple[int, int] = (320, 240)) -> Image.Image:
    rng = np.random.default_rng(seed)
    return Image.fromarray(rng.integers(0, 255, (12, 16, 3), np.uint8)).resize(size, Image.Resampling.BICUBIC)


def bits(one: str, other: str) -> int:
    return (int(one, 16) ^ int(other, 16)).bit_count()


@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_turned_file_looks_like_its_upright_picture(tmp_path: Path, orientation: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    picture(1).save(tmp_path / "a.jpg", exif=exif, quality=95)
    with Image.open(tmp_path / "a.jpg") as stored:
        ImageOps.exif_transpose(stored).save(tmp_path / "b.png")
    one, other = (verify_picture(tmp_path / name) for name in ("a.jpg", "b.png"))
    assert one.size == other.size
    assert bits(one.phash, other.phash) <= 2


def test_copies_are_near_and_others_are_not(tmp_path: Path) -> None:
    names = []
    for seed in range(6):
        picture(seed).save(tmp_path / f"{seed}.jpg", quality=92)
        picture(seed, (160, 120)).save(tmp_path / f"{seed}-small.png")
        picture(seed).convert("CMYK").save(tmp_path / f"{seed}-cmyk.jpg", quality=60)
        names += [f"{seed}.jpg", f"{seed}-small.png"]
    hashes = {name: verify_picture(tmp_path / name).phash for name in names}
    for one in names:
        for other in names:
            assert (bits(hashes[one], hashes[other]) <= 4) == (one[0] == other[0])
    assert len(verify_picture(tmp_path / "0-cmyk.jpg").phash) == 16


def test_a_hash_by_hand() -> None:
    ramp = np.tile(np.arange(9, dtype=np.uint8) * 20, (8, 1))
    assert perceptual_hash(ramp) == "ff" * 8
    assert perceptual_hash(ramp[:, ::-1].copy()) == "00" * 8
    assert perceptual_hash(ramp, orientation=2) == "00" * 8


def test_leaks_are_counted(tmp_path: Path) -> None:
    import pyarrow as pa

    from pipeline.common.files import write_parquet

    like, other = "0123456789abcdef", "fedcba9876543210"
    rows = [("a", "train", like, "1"), ("b", "test", like[:-1] + "e", "2"), ("c", "train", other, "3")]
    rows += [("d", "train", other, "3"), ("e", "val", "0f" * 8, "4"), ("f", "rest", None, None)]
    table = [
        {"key": key, "art_style": "S", "painting": key, "split": split, "phash": phash, "sha256": sha256}
        for key, split, phash, sha256 in rows
    ]
    file = tmp_path / "utterances" / "artworks.parquet"
    write_parquet(file, pa.Table.from_pylist(table, schema=schema.ARTWORKS))
    found = count_duplicates(tmp_path, 4)
    assert found is not None
    names = ("same_bytes", "near_pairs", "across_splits", "train_and_test")
    assert [found[name] for name in names] == [2, 2, 1, 1]
    assert found["examples"][0] == {"left": "S/a", "right": "S/b", "splits": ["train", "test"]}
