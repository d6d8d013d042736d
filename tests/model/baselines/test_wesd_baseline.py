"""The baseline WESD: its network, loss and training step against plain computations."""

from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from safetensors.numpy import load_file

from model.baselines import wesd_training
from model.baselines.params import WesdParams
from model.baselines.rows import read_rows, write_rows
from model.baselines.wesd_network import Wesd, cells_of, target_of, wesd_loss
from model.baselines.wesd_training import Pairs
from pipeline.common.arrays import parse_npy
from pipeline.common.emotions import EMOTIONS
from pipeline.common.errors import RunFailed, UserError
from pipeline.common.fingerprint import sha256_file
from pipeline.common.params import Paths
from pipeline.reader.index import Index
from pipeline.releases.apolo import ApoloItem
from tests.worlds.trained_shards import WIDTH, shards


def sigmoid(values: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-values))


def some_pairs(artworks: int = 5, width: int = 6, pairs: int = 9) -> Pairs:
    rng = np.random.default_rng(2)
    return Pairs(
        torch.from_numpy(rng.normal(size=(artworks, 49, width)).astype(np.float16)),
        torch.from_numpy(rng.integers(artworks, size=pairs)),
        torch.from_numpy(rng.integers(8, size=pairs)),
        torch.from_numpy(rng.random((pairs, 49)).astype(np.float32)),
    )


def test_it_has_the_published_number_of_parameters() -> None:
    assert sum(parameter.numel() for parameter in Wesd(512).parameters()) == 266_760


def test_each_cell_is_classified_with_a_summary_of_the_picture() -> None:
    torch.manual_seed(0)
    model = Wesd(4)
    cells = np.random.default_rng(0).normal(size=(2, 49, 4)).astype(np.float32)
    logits = model(torch.from_numpy(cells)).detach().numpy()
    w1, b1, w2, b2 = (p.detach().numpy() for p in model.parameters())
    for b in range(2):
        summary = w1 @ np.mean([cells[b, k] for k in range(49)], axis=0) + b1
        for k in range(49):
            assert logits[b, k] == pytest.approx(w2 @ (cells[b, k] + summary) + b2, abs=1e-5)


def test_only_the_asked_emotion_is_taken() -> None:
    model = Wesd(4)
    cells = torch.randn(3, 49, 4)
    asked = model.of_emotion(cells, torch.tensor([5, 0, 7]))
    for row, emotion in enumerate((5, 0, 7)):
        assert torch.equal(asked[row], model(cells)[row, :, emotion])


@pytest.mark.parametrize("double", [True, False])
def test_the_loss_is_that_of_the_authors_or_of_the_textbook(double: bool) -> None:
    rng = np.random.default_rng(1)
    logits, target = rng.normal(0, 3, (4, 49)), rng.random((4, 49))
    likely = sigmoid(sigmoid(logits)) if double else sigmoid(logits)
    wanted = -np.mean(target * np.log(likely) + (1 - target) * np.log(1 - likely))
    found = wesd_loss(torch.from_numpy(logits), torch.from_numpy(target), double)
    assert float(found) == pytest.approx(wanted, rel=1e-9)


def test_with_two_sigmoids_the_best_answer_to_a_low_mask_is_zero() -> None:
    """Probabilities 0 and 1 become 0.5 and 0.73: a target of 0.4 is best met by 0, one of 0.9 by 1."""
    logits = torch.linspace(-12, 12, 49)
    losses = [[float(wesd_loss(x, torch.tensor(t), True)) for x in logits] for t in (0.4, 0.9)]
    assert [int(np.argmin(row)) for row in losses] == [0, 48]
    assert losses[0][0] == pytest.approx(np.log(2), abs=1e-4)


def test_targets_are_area_averages_by_their_own_range() -> None:
    mask = np.random.default_rng(3).integers(0, 255, (14, 21)).astype(np.uint8)
    blocks = np.array(
        [[mask[2 * y : 2 * y + 2, 3 * x : 3 * x + 3].mean() for x in range(7)] for y in range(7)]
    )
    wanted = (blocks - blocks.min()) / (blocks.max() - blocks.min())
    assert target_of(mask) == pytest.approx(wanted.ravel(), abs=1e-6)
    assert target_of(mask).dtype == np.float32
    for constant in (0, 1, 77, 200, 255):
        assert not target_of(np.full((30, 20), constant, np.uint8)).any()
    assert target_of(np.eye(1, 300, dtype=np.uint8)).shape == (49,)


def test_grids_of_any_size_become_seven_by_seven() -> None:
    rng = np.random.default_rng(4)
    grid = rng.normal(size=(14, 14, 3)).astype(np.float16)
    wanted = [grid[2 * y : 2 * y + 2, 2 * x : 2 * x + 2].mean((0, 1)) for y in range(7) for x in range(7)]
    tokens = grid.reshape(196, 3)
    assert cells_of(tokens) == pytest.approx(np.array(wanted), abs=2e-3)
    with_class = np.concatenate([np.full((1, 3), 99, np.float16), tokens])
    assert np.array_equal(cells_of(with_class), cells_of(tokens))
    assert np.array_equal(cells_of(tokens[:49]), tokens[:49].astype(np.float32))
    assert cells_of(tokens[:9]).shape == (49, 3)
    for wrong in (tokens[:0], tokens[:7], tokens[:48], grid):
        with pytest.raises(ValueError, match="no square"):
            cells_of(wrong)


def plain_training(pairs: Pairs, weights: list[np.ndarray], params: WesdParams) -> list[np.ndarray]:
    """Full-batch training, gradients and AdamW (without bias correction) written out, float64."""
    w1, b1, w2, b2 = (np.array(w, np.float64) for w in weights)
    averages = [[np.zeros_like(w), np.zeros_like(w)] for w in (w1, b1, w2, b2)]
    total, warm = params.epochs, int(params.warmup * params.epochs)
    for step in range(total):
        gradients = [np.zeros_like(w) for w in (w1, b1, w2, b2)]
        for row, emotion, target in zip(
            pairs.rows.tolist(), pairs.emotion.tolist(), pairs.target, strict=True
        ):
            v = pairs.cells[row].numpy().astype(np.float64)
            mean = v.mean(0)
            summary = w1 @ mean + b1
            z = (v + summary) @ w2[emotion] + b2[emotion]
            w = sigmoid(z) if params.double_sigmoid else z
            dz = (sigmoid(w) - target.numpy()) / (49 * len(pairs.rows))
            dz = dz * sigmoid(z) * (1 - sigmoid(z)) if params.double_sigmoid else dz
            ds = dz.sum() * w2[emotion]
            gradients[0] += np.outer(ds, mean)
            gradients[1] += ds
            gradients[2][emotion] += dz @ (v + summary)
            gradients[3][emotion] += dz.sum()
        rate = params.learning_rate * (step / warm if step < warm else (total - step) / (total - warm))
        for place, (weight, gradient) in enumerate(zip((w1, b1, w2, b2), gradients, strict=True)):
            first, second = averages[place]
            first[...] = 0.9 * first + 0.1 * gradient
            second[...] = 0.999 * second + 0.001 * gradient**2
            np.subtract(weight, rate * first / (np.sqrt(second) + 1e-6), out=weight)
            if place in (0, 2):
                np.multiply(weight, 1 - rate * params.weight_decay, out=weight)
    return [w1, b1, w2, b2]


@pytest.mark.parametrize("double", [True, False])
def test_training_steps_equal_a_plain_computation(double: bool) -> None:
    """Five steps: the first while warming up from 0, the rest on the way down."""
    pairs = some_pairs()
    params = WesdParams(
        epochs=5, learning_rate=0.01, weight_decay=0.5, warmup=0.4, double_sigmoid=double, seed=3
    )
    torch.manual_seed(3)
    before = [p.detach().numpy().copy() for p in Wesd(6).parameters()]
    model, losses = wesd_training.train_wesd(pairs, params)
    after = [p.detach().numpy() for p in model.parameters()]
    for found, wanted, start in zip(after, plain_training(pairs, before, params), before, strict=True):
        assert np.abs(wanted - start).max() > 0.01
        assert found == pytest.approx(wanted, abs=2e-5)
    logits = Wesd(6)
    logits.load_state_dict(dict(zip(logits.state_dict(), map(torch.from_numpy, before), strict=True)))
    first = wesd_loss(logits.of_emotion(pairs.cells[pairs.rows].float(), pairs.emotion), pairs.target, double)
    assert losses[0] == pytest.approx(float(first.detach()), rel=1e-5)
    assert len(losses) == 5


def test_a_loss_that_is_not_finite_ends_the_training() -> None:
    with pytest.raises(RunFailed, match=r"loss of epoch \d+ is not finite"):
        wesd_training.train_wesd(some_pairs(), WesdParams(epochs=9, learning_rate=1e38, batch_size=2))
    pairs = some_pairs()
    pairs.cells[0, 0, 0] = float("nan")
    with pytest.raises(RunFailed, match="loss of epoch 1 is not finite"):
        wesd_training.train_wesd(pairs, WesdParams(epochs=2, batch_size=4))


def test_training_leaves_torchs_random_state_alone_and_needs_none_of_it() -> None:
    params = WesdParams(epochs=2, batch_size=4)
    torch.manual_seed(1)
    state = torch.get_rng_state()
    first = wesd_training.train_wesd(some_pairs(), params)[1]
    assert torch.equal(torch.get_rng_state(), state)
    torch.manual_seed(2)
    assert wesd_training.train_wesd(some_pairs(), params)[1] == first


def test_it_learns_where_the_emotion_is() -> None:
    """Emotion e lights channel e in one cell; the mask is that cell. New pictures are answered rightly."""
    rng = np.random.default_rng(5)

    def world(count: int) -> tuple[Pairs, np.ndarray]:
        cells = rng.normal(0, 0.3, (count, 49, 16)).astype(np.float16)
        emotion, where = rng.integers(8, size=count), rng.integers(49, size=count)
        target = np.zeros((count, 49), np.float32)
        for number in range(count):
            cells[number, where[number], emotion[number]] += 3
            target[number, where[number]] = 1
        tensors = map(torch.from_numpy, (cells, np.arange(count), emotion, target))
        return Pairs(*tensors), where

    model, losses = wesd_training.train_wesd(
        world(400)[0], WesdParams(epochs=30, learning_rate=0.02, batch_size=32, double_sigmoid=False)
    )
    unseen, where = world(100)
    with torch.no_grad():
        found = model.of_emotion(unseen.cells.float(), unseen.emotion).argmax(1).numpy()
    assert losses[-1] < losses[0] / 3
    assert (found == where).mean() > 0.9


# ---- on shards ---------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Index:
    paths = shards(tmp_path_factory.mktemp("wesd"), {"train": 6, "val": 2, "test": 2})
    return Index.load(paths.step("shards"))


def items_of(index: Index) -> list[ApoloItem]:
    return [
        ApoloItem(f"painting-{row.key}", row.key, emotion, "test", (0,), ("text",), Path("absent.npy"))
        for row in index.rows("test")
        for emotion in row.emotions
    ]


def test_pairs_are_every_mask_of_the_split_with_its_artworks_tokens(world: Index) -> None:
    pairs = wesd_training.read_pairs(world, "train")
    asked = [(row.key, emotion) for row in world.rows("train") for emotion in row.emotions]
    assert pairs.cells.shape == (6, 49, WIDTH)
    assert len(asked) == len(pairs.rows) == len(pairs.target) == 12
    for number, (key, emotion) in enumerate(asked):
        tokens = parse_npy(world.read(key, "clip.npy"))
        row = int(pairs.rows[number])
        assert np.allclose(pairs.cells[row].numpy(), cells_of(tokens), atol=2e-3)
        assert EMOTIONS[int(pairs.emotion[number])] == emotion
        mask = cv2.imdecode(np.frombuffer(world.read(key, f"{emotion}.png"), np.uint8), cv2.IMREAD_GRAYSCALE)
        assert np.array_equal(pairs.target[number].numpy(), target_of(mask))


def test_a_run_writes_maps_that_score_reads_and_the_same_bytes_again(world: Index, tmp_path: Path) -> None:
    items = items_of(world)
    stranger = ApoloItem("stranger", "f" * 16, "awe", "test", (0,), ("text",), Path("absent.npy"))
    params = WesdParams(epochs=2)
    paths = Paths(data=tmp_path)
    folder = paths.step("baselines") / "wesd"
    counts = wesd_training.run_wesd(folder, world, params, [*items, stranger])
    assert (counts["items"], counts["without_features"], counts["pairs"]) == (4, 1, 12)
    write_rows(paths.step("baselines"), ["wesd"])
    (method,) = read_rows(paths, "before-resize")
    assert (method.name, method.finished, dict(method.explanations)) == ("wesd", False, {})
    state = load_file(folder / "model.safetensors")
    model = Wesd(WIDTH)
    model.load_state_dict({name: torch.from_numpy(values) for name, values in state.items()})
    for item in items:
        tokens = cells_of(parse_npy(world.read(item.key, "clip.npy")))
        with torch.no_grad():
            logits = model(torch.from_numpy(tokens)[None])[0, :, EMOTIONS.index(item.emotion)].numpy()
        values = sigmoid(logits.reshape(7, 7))
        found = method.answer(item, 7, 7)
        assert found is not None
        assert found == pytest.approx((values - values.min()) / (values.max() - values.min()), abs=1e-3)
    assert method.answer(stranger, 7, 7) is None
    first = {file.name: sha256_file(file) for file in folder.iterdir()}
    wesd_training.run_wesd(folder, world, params, [*items, stranger])
    assert first == {file.name: sha256_file(file) for file in folder.iterdir()}


def test_shards_without_a_training_split_or_tokens_are_named(world: Index) -> None:
    with pytest.raises(UserError, match=r"no rest artwork to learn from"):
        wesd_training.read_pairs(world, "rest")
    with pytest.raises(UserError, match=r"WESD reads CLIP's tokens.*baselines.wesd: null"):
        wesd_training.read_cells(world, "f" * 16)
