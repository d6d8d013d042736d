"""Samples: every utterance once, masks in the decoder's frame, batches that share what can be shared."""

import dataclasses
import hashlib
import io
import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from model.data.cached_features import dequantise, read_features, stack_sam
from model.data.decoded_masks import DecodedMasks
from model.data.frame import Frame
from model.data.samples import Samples
from model.emosem.captioner import decode_text
from model.emosem.losses import IGNORE
from model.train.schedule import epoch_batches
from pipeline.backbones.language_model import load_tokenizer
from pipeline.common.emotions import EMOTIONS
from pipeline.common.errors import UserError
from pipeline.common.params import Paths
from pipeline.common.schema import INDEX
from pipeline.common.tars import list_members, npy_bytes, read_tar, write_tar
from pipeline.reader.index import Index
from tests.worlds import trained_shards

FRAME = Frame(image_size=32, side=32)


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> tuple[Paths, Path]:
    folder = tmp_path_factory.mktemp("world")
    return trained_shards.shards(folder, {"train": 6, "val": 2}), trained_shards.backbones(
        folder / "weights"
    )[1]


@pytest.fixture(scope="module")
def samples(world: tuple[Paths, Path]) -> Samples:
    paths, language_model = world
    index, tokenizer = Index.load(paths.step("shards")), load_tokenizer(language_model)
    return Samples(index, "train", tokenizer, FRAME, max_tokens=20)


tables = st.lists(st.lists(st.integers(1, 4), min_size=1, max_size=3), min_size=1, max_size=12).map(
    lambda artworks: np.array(
        [(a, e, u) for a, counts in enumerate(artworks) for e, n in enumerate(counts) for u in range(n)]
    )
)


@given(tables, st.integers(1, 9), st.integers(0, 5), st.integers(1, 4))
def test_an_epoch_visits_every_utterance_once(table: np.ndarray, size: int, epoch: int, window: int) -> None:
    batches = epoch_batches(table, size, seed=3, epoch=epoch, window=window, visit="utterance")
    assert sorted(np.concatenate(batches).tolist()) == list(range(len(table)))
    assert all(len(batch) == size for batch in batches[:-1])
    again = epoch_batches(table, size, seed=3, epoch=epoch, window=window, visit="utterance")
    assert all(np.array_equal(a, b) for a, b in zip(batches, again, strict=True))


@given(tables, st.integers(1, 9))
def test_an_epoch_of_pairs_takes_each_pairs_next_utterance(table: np.ndarray, size: int) -> None:
    seen: set[tuple[int, ...]] = set()
    for epoch in range(4):
        batches = epoch_batches(table, size, seed=0, epoch=epoch, window=2, visit="pair")
        rows = table[np.concatenate(batches)]
        assert sorted(map(tuple, rows[:, :2])) == sorted({tuple(row) for row in table[:, :2]})
        seen |= {tuple(row) for row in rows}
    assert seen == {tuple(row) for row in table}  # at most 4 utterances a pair


def test_epochs_and_seeds_differ_and_a_window_of_one_keeps_artworks_together() -> None:
    table = np.array([(a, 0, u) for a in range(40) for u in range(5)])
    orders = [
        np.concatenate(epoch_batches(table, 7, seed=seed, epoch=epoch, window=1, visit="utterance"))
        for seed, epoch in ((0, 0), (0, 1), (1, 0))
    ]
    assert len({tuple(order) for order in orders}) == 3
    artworks = table[orders[0], 0]
    assert np.count_nonzero(np.diff(artworks)) == 39
    mixed = np.concatenate(epoch_batches(table, 7, seed=0, epoch=0, window=8, visit="utterance"))
    assert np.count_nonzero(np.diff(table[mixed, 0])) > 100


def placed(frame: Frame, mask: np.ndarray, input_height: int, input_width: int) -> np.ndarray:
    out = np.zeros((frame.side, frame.side), dtype=np.uint8)
    frame.place(mask, input_height, input_width, out)
    return out


@pytest.mark.parametrize(("height", "width"), [(24, 32), (32, 17), (1, 32)])
def test_a_mask_lands_in_its_corner_of_the_padded_frame(height: int, width: int) -> None:
    frame = Frame(image_size=32, side=16)
    mask = np.full((height * 8, width * 8), 255, dtype=np.uint8)
    framed = placed(frame, mask, height, width)
    inside_height, inside_width = frame.valid_size(height, width)
    assert abs(inside_height - height / 2) <= 0.5 and abs(inside_width - width / 2) <= 0.5
    assert framed.shape == (16, 16)
    assert (framed[:inside_height, :inside_width] == 255).all()
    assert np.count_nonzero(framed) == inside_height * inside_width


def test_shrinking_averages_areas() -> None:
    rng = np.random.default_rng(0)
    mask = rng.integers(0, 256, (64, 64), dtype=np.uint8)
    framed = placed(Frame(image_size=32, side=16), mask, 32, 32)
    np.testing.assert_allclose(framed, mask.reshape(16, 4, 16, 4).mean(axis=(1, 3)), atol=0.51)


def test_a_batch_shares_artworks_and_queries(samples: Samples) -> None:
    everything = list(range(len(samples)))
    batch = samples[everything]
    assert len(samples) == 3 * 2 + 3 * 4  # artworks say one or two things about each of two emotions
    assert batch.sam.shape == (6, 32, 8, 8) and batch.clip.shape == (6, 16, 32)
    assert len(batch.rows) == len(batch.emotion) == len(batch.target) == 12
    assert batch.weight.tolist() == torch.bincount(batch.query).tolist()
    assert batch.weight.sum() == len(batch.tokens) == len(samples)
    for text, number in enumerate(everything):
        artwork, emotion, which = samples.table[number]
        query = batch.query[text]
        assert batch.emotion[query] == emotion and batch.rows[query] == artwork
        words = trained_shards.SENTENCES[emotion + 8 * which]
        assert decode_text(samples.tokenizer, batch.tokens[text].tolist()) == words


def test_targets_are_the_quarter_and_padding_is_not_valid(samples: Samples) -> None:
    batch = samples[list(range(len(samples)))].widened()
    assert (batch.valid.sum(dim=(1, 2)) == 24 * 32).all() and not batch.valid[:, 24:].any()
    for target, emotion in zip(batch.target, batch.emotion.tolist(), strict=True):
        expected = torch.zeros(32, 32)
        quarter = emotion % 4
        expected[(quarter // 2) * 12 :, (quarter % 2) * 16 :][:12, :16] = 1
        torch.testing.assert_close(target, expected)


def test_order_of_the_numbers_is_the_order_of_the_texts(samples: Samples) -> None:
    numbers = [7, 2, 11, 2]
    batch = samples[numbers]
    for text, number in enumerate(numbers):
        alone = samples[[number]]
        length = alone.tokens.shape[1]
        assert batch.tokens[text, :length].tolist() == alone.tokens[0].tolist()
        torch.testing.assert_close(batch.target[batch.query[text]], alone.target[0])


def test_padding_of_texts_carries_no_label(world: tuple[Paths, Path], samples: Samples) -> None:
    """Each row is the sentence's own tokens, found anew; behind them end-of-text without a label."""
    tokenizer = load_tokenizer(world[1])
    end = tokenizer.eos_token_id
    numbers = list(range(len(samples)))
    batch = samples[numbers]
    texts = []
    for artwork, emotion, number in samples.table[numbers].tolist():
        card = json.loads(samples.index.read(samples.keys[artwork], "masks/json"))
        texts.append(card["emotions"][EMOTIONS[emotion]]["utterances"][number])
    rows = [[*tokenizer.encode(f" {text}", add_special_tokens=False), end] for text in texts]
    assert batch.tokens.shape == (len(texts), max(map(len, rows))) and len({*map(len, rows)}) > 1
    for row, tokens, labels in zip(rows, batch.tokens.tolist(), batch.labels.tolist(), strict=True):
        rest = len(tokens) - len(row)
        assert tokens == [*row, *[end] * rest] and labels == [*row, *[IGNORE] * rest]


def test_masks_are_decoded_once_and_stay_what_they_are(world: tuple[Paths, Path], samples: Samples) -> None:
    """Read again, read without room to keep any, and decoded by Pillow: one mask."""
    fresh = Samples(samples.index, "train", load_tokenizer(world[1]), FRAME, max_tokens=20)
    poor = Samples(samples.index, "train", load_tokenizer(world[1]), FRAME, max_tokens=20)
    poor._masks = DecodedMasks(limit=0)
    numbers = list(range(len(samples)))
    first, again, decoded = fresh[numbers], fresh[numbers], [poor[numbers], poor[numbers]][1]
    assert torch.equal(first.target, again.target) and torch.equal(first.target, decoded.target)
    assert len(fresh._masks) == len(first.target) and len(poor._masks) == 0
    for target, row, emotion in zip(first.target.numpy(), first.rows, first.emotion, strict=True):
        data = samples.index.read(samples.keys[first.artworks[row]], f"{EMOTIONS[emotion]}.png")
        height, width = np.argwhere(first.valid[row].numpy()).max(0) + 1
        mask = Image.open(io.BytesIO(data)).resize((width, height), Image.Resampling.BOX)
        assert np.abs(target[:height, :width] - np.asarray(mask, float)).max() <= 2
        assert not target[height:].any() and not target[:, width:].any()


def test_a_long_text_is_cut_and_still_ends(world: tuple[Paths, Path]) -> None:
    paths, language_model = world
    tokenizer = load_tokenizer(language_model)
    samples = Samples(Index.load(paths.step("shards")), "train", tokenizer, FRAME, max_tokens=3)
    tokens = samples[[0]].tokens[0].tolist()
    assert len(tokens) == 3 and tokens[-1] == tokenizer.eos_token_id


def test_quantised_features_and_a_class_token(tmp_path: Path) -> None:
    sam, scale = np.arange(-8, 8, dtype=np.int8).reshape(4, 2, 2), np.array([0.5, 1, 2, 4], dtype=np.float32)
    clip = np.arange(10 * 3, dtype=np.float16).reshape(10, 3)
    about = json.dumps({"sam": {"input_size": [8, 4]}}).encode()
    members = {"sam.npy": sam, "sam_scale.npy": scale, "clip.npy": clip}
    tar = tmp_path / "features" / "000000.tar"
    write_tar(tar, [("ab", {k: npy_bytes(v) for k, v in members.items()} | {"json": about})])
    places = [
        {"file": "features", "name": m.name, "offset": m.offset, "size": m.size} for m in list_members(tar)
    ]
    row = {
        "key": "ab",
        "shard": 0,
        "split": "train",
        "emotions": [],
        "utterance_counts": [],
        "members": places,
    }
    digest = hashlib.sha256(b"".join(data for _, files in read_tar(tar) for data in files.values()))
    table = pa.Table.from_pylist([row | {"sha256": digest.hexdigest()}], schema=INDEX)
    index = Index(tmp_path / "shards", table)
    features = read_features(index, "ab")
    grids = dequantise(*stack_sam([features, features]))
    assert grids.shape == (2, 4, 2, 2)
    np.testing.assert_array_equal(grids[1], sam * scale[:, None, None])
    np.testing.assert_array_equal(features.clip, clip[1:])
    with pytest.raises(UserError, match="int8 and float16"):
        stack_sam([features, features._replace(sam_scale=None)])


def test_a_batch_of_int8_features_is_that_of_float16_up_to_half_a_scale(
    world: tuple[Paths, Path], samples: Samples, tmp_path: Path
) -> None:
    """And the grids travel as int8: they become float32 where the batch goes."""
    paths = trained_shards.shards(tmp_path, {"train": 6, "val": 2}, sam_dtype="int8")
    tokenizer = load_tokenizer(world[1])
    quantised = Samples(Index.load(paths.step("shards")), "train", tokenizer, FRAME, max_tokens=20)
    numbers = list(range(0, len(samples), 2))
    stored, exact = quantised[numbers], samples[numbers]
    assert stored.sam.dtype == torch.int8 and exact.sam.dtype == exact.clip.dtype == torch.float16
    scale = stored.sam_scale
    assert scale is not None
    there, expected = stored.to(torch.device("cpu")), exact.to(torch.device("cpu"))
    for batch in (there, expected):
        assert batch.sam.dtype == batch.clip.dtype == torch.float32 and batch.sam_scale is None
    assert torch.equal(expected.sam, exact.sam.float())
    off = (there.sam - expected.sam).abs()
    assert (off <= 0.5001 * scale[:, :, None, None]).all() and off.max() > 0.4 * scale.max()
    for field in dataclasses.fields(there):
        if not field.name.startswith("sam"):
            assert torch.equal(getattr(there, field.name), getattr(expected, field.name)), field.name


def test_a_missing_grid_says_which_params_to_change(tmp_path: Path) -> None:
    paths = trained_shards.shards(tmp_path, {"train": 1})
    tar = paths.step("features") / "000000.tar"
    kept = [(key, {k: v for k, v in files.items() if k != "clip.npy"}) for key, files in read_tar(tar)]
    write_tar(tar, kept)
    (key,) = (key for key, _ in kept)
    index = Index.load(paths.step("shards"))
    rows = index.table.to_pylist()
    rows[0]["members"] = [
        {"file": "features", "name": m.name, "offset": m.offset, "size": m.size} for m in list_members(tar)
    ]
    rows[0]["sha256"] = hashlib.sha256(b"".join(kept[0][1].values())).hexdigest()
    index = Index(index.folder, pa.Table.from_pylist(rows, schema=INDEX))
    with pytest.raises(UserError, match=r"no member 'clip\.npy'.*clip_dtype"):
        read_features(index, key)
    with pytest.raises(KeyError):
        read_features(index, "absent")


def test_a_split_without_utterances_is_the_users_to_mend(world: tuple[Paths, Path]) -> None:
    paths, language_model = world
    with pytest.raises(UserError, match="no rest utterance"):
        Samples(Index.load(paths.step("shards")), "rest", load_tokenizer(language_model), FRAME, max_tokens=5)


def test_a_mask_that_reviewers_trust_less_counts_less(
    samples: Samples, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = samples[list(range(len(samples)))]
    samples = Samples(samples.index, "train", samples.tokenizer, FRAME, max_tokens=20)  # cards unread
    key, read = samples.keys[0], samples.index.read

    def reviewed(of: str, member: str) -> bytes:
        data = read(of, member)
        if (of, member) != (key, "masks/json"):
            return data
        card = json.loads(data)
        card["emotions"][next(iter(card["emotions"]))]["weight"] = 0.25
        return json.dumps(card).encode()

    monkeypatch.setattr(samples.index, "read", reviewed)
    after = samples[list(range(len(samples)))]
    ratio = after.weight / before.weight
    assert sorted(ratio.tolist()) == [0.25] + [1.0] * (len(ratio) - 1)
    assert int(ratio.argmin()) == int(torch.nonzero(before.rows == 0)[0])
    assert torch.equal(after.target, before.target) and torch.equal(after.labels, before.labels)
