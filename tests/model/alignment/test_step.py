"""The emotion classifier: it learns what can be learned, from training rows only; padding leaves no trace."""

import dataclasses
import math
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import torch

from model.alignment.networks import EmotionClassifier, EmotionTransformer, max_over_words
from model.alignment.step import AlignmentParams, build_alignment, build_vocabulary, train_classifier
from model.alignment.words import plain_words
from pipeline.common import schema
from pipeline.common.emotions import ALL_EMOTIONS, emotion_index
from pipeline.common.errors import RunFailed, UserError
from pipeline.common.files import write_parquet
from pipeline.common.params import Paths
from tests.worlds.indexed_shards import paths_in

SMALL = AlignmentParams(
    embedding=16, hidden=16, epochs=12, batch=16, learning_rate=2e-2, min_count=1, device="cpu"
)
FILL = ("the", "house", "and", "a", "tree", "by", "water", "looks", "very", "old")


def toy(count: int, seed: int) -> tuple[list[str], np.ndarray]:
    """Sentences of filler words around one word that gives the emotion away."""
    rng = np.random.default_rng(seed)
    sentences, labels = [], []
    for n in range(count):
        label = n % len(ALL_EMOTIONS)
        said = [*rng.choice(FILL, rng.integers(2, 9)), f"feeling{label}"]
        sentences.append(" ".join(map(str, rng.permutation(said))))
        labels.append(label)
    return sentences, np.array(labels)


@pytest.fixture(scope="module")
def classifier() -> EmotionClassifier:
    return train_classifier(*toy(360, 0), SMALL)


def table(rows: list[tuple[str, str, str]]) -> pa.Table:
    """UTTERANCES of (emotion, utterance, split)."""
    return pa.Table.from_pylist(
        [
            {"key": "0" * 16, "artemis_id": i, "emotion": e, "utterance": u, "repetition": 5, "split": s}
            for i, (e, u, s) in enumerate(rows)
        ],
        schema=schema.UTTERANCES,
    )


def world(root: Path, held_out: str = "", vals: int = 90) -> Paths:
    paths = paths_in(root)
    rows = [(ALL_EMOTIONS[y], s, "train") for s, y in zip(*toy(180, 1), strict=True)]
    rows += [
        (ALL_EMOTIONS[y], held_out or s, "val" if i % 2 else "test")
        for i, (s, y) in enumerate(zip(*toy(vals, 2), strict=True))
    ]
    rows += [("awe", "never to be learned from", "rest")]
    write_parquet(paths.step("utterances") / "utterances.parquet", table(rows))
    return paths


def test_it_learns_separable_text(classifier: EmotionClassifier) -> None:
    sentences, labels = toy(90, 9)
    assert (classifier.classify(sentences) == labels).mean() > 0.95
    probabilities = classifier.probabilities(sentences)
    assert probabilities.shape == (90, 9)
    assert np.allclose(probabilities.sum(axis=1), 1, atol=1e-5)


def test_batching_and_padding_leave_no_trace(classifier: EmotionClassifier) -> None:
    sentences = ["feeling3", *toy(30, 5)[0], "a " * 200, "", "!?"]
    together = classifier.probabilities(sentences)
    alone = np.concatenate([classifier.probabilities([sentence]) for sentence in sentences])
    assert np.allclose(together, alone, atol=1e-5)
    assert classifier.classify([]).shape == (0,)


def test_the_network_equals_a_step_by_step_lstm(classifier: EmotionClassifier) -> None:
    """Every gate written out, one word at a time, in float64."""
    state = {name: value.double() for name, value in classifier.network.state_dict().items()}
    ids = classifier.encode(["the old house feeling5 by water"])[0]
    size = SMALL.hidden
    h, c, seen = torch.zeros(size).double(), torch.zeros(size).double(), []
    for word in ids:
        x = state["embedding.weight"][word]
        x = torch.relu(state["encoder.1.weight"] @ x + state["encoder.1.bias"])
        x = state["encoder.4.weight"] @ x + state["encoder.4.bias"]
        gates = state["lstm.weight_ih_l0"] @ x + state["lstm.bias_ih_l0"]
        gates = gates + state["lstm.weight_hh_l0"] @ h + state["lstm.bias_hh_l0"]
        i, f, g, o = gates.split(size)
        c = torch.sigmoid(f) * c + torch.sigmoid(i) * torch.tanh(g)
        h = torch.sigmoid(o) * torch.tanh(c)
        seen.append(h)
    x = state["head.0.weight"] @ torch.stack(seen).max(dim=0).values + state["head.0.bias"]
    x = (x - state["head.1.running_mean"]) / (state["head.1.running_var"] + 1e-5).sqrt()
    x = torch.relu(x * state["head.1.weight"] + state["head.1.bias"])
    logits = state["head.4.weight"] @ x + state["head.4.bias"]
    wanted = logits.softmax(0).numpy()
    assert np.allclose(classifier.probabilities(["the old house feeling5 by water"])[0], wanted, atol=1e-5)


def test_words_of_a_sentence() -> None:
    assert plain_words("Don't  LOOK, it's the dog's—“eye”!") == [
        "do",
        "not",
        "look",
        "it",
        "'s",
        "the",
        "dog",
        "'s",
        "eye",
    ]
    assert plain_words("I can’t; they're 3 won't-ers") == [
        "i",
        "can",
        "not",
        "they",
        "'re",
        "3",
        "will",
        "not",
        "ers",
    ]
    assert plain_words("café_noir /n/") == ["café", "noir", "n"]
    assert plain_words(" ... ") == []


def test_the_vocabulary_is_ordered_and_cut() -> None:
    assert build_vocabulary(["b a b", "c b a"], 2) == ["<pad>", "<unk>", "b", "a"]


def test_the_same_data_gives_the_same_bytes_and_the_global_rng_is_left_alone(tmp_path: Path) -> None:
    torch.manual_seed(5)
    wanted = torch.rand(3)
    torch.manual_seed(5)
    for name in ("one", "two"):
        train_classifier(*toy(60, 0), SMALL).save(tmp_path / name)
    assert torch.equal(torch.rand(3), wanted)
    for file in ("model.safetensors", "config.json", "vocabulary.json"):
        assert (tmp_path / "one" / file).read_bytes() == (tmp_path / "two" / file).read_bytes()


def test_held_out_rows_change_nothing_but_the_measured_accuracy(tmp_path: Path) -> None:
    honest = build_alignment(world(tmp_path / "a"), SMALL)
    spoiled = build_alignment(world(tmp_path / "b", held_out="unheard words of val and test", vals=40), SMALL)
    for file in ("model.safetensors", "vocabulary.json"):
        one, two = (tmp_path / side / "data" / "alignment" / file for side in "ab")
        assert one.read_bytes() == two.read_bytes()
    assert honest["train"] == spoiled["train"] == 180
    assert honest["test"]["accuracy"] > 90 > spoiled["test"]["accuracy"]
    assert (honest["val"]["utterances"], honest["test"]["utterances"]) == (45, 45)
    assert "unheard" not in (tmp_path / "b" / "data" / "alignment" / "vocabulary.json").read_text()


def test_a_saved_classifier_answers_the_same(classifier: EmotionClassifier, tmp_path: Path) -> None:
    classifier.save(tmp_path)
    again = EmotionClassifier.load(tmp_path)
    sentences = toy(20, 7)[0]
    assert np.array_equal(classifier.probabilities(sentences), again.probabilities(sentences))
    assert again.vocabulary == classifier.vocabulary


def test_absent_or_broken_inputs_end_in_one_message(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"utterances.parquet does not exist; run the utterances step"):
        build_alignment(paths_in(tmp_path), SMALL)
    with pytest.raises(UserError, match="too few to learn from"):
        train_classifier(["one"], np.array([0]), SMALL)
    with pytest.raises(UserError, match="does not exist; run the alignment step"):
        EmotionClassifier.load(tmp_path)
    train_classifier(*toy(18, 0), SMALL).save(tmp_path)
    (tmp_path / "vocabulary.json").write_text('["<pad>"]')
    with pytest.raises(UserError, match=r"vocabulary\.json is not the file that was written.*alignment step"):
        EmotionClassifier.load(tmp_path)
    (tmp_path / "SHA256SUMS").unlink()
    with pytest.raises(UserError, match="other classes or words"):
        EmotionClassifier.load(tmp_path)
    (tmp_path / "model.safetensors").write_bytes(b"no weights")
    with pytest.raises(UserError, match="cannot be read"):
        EmotionClassifier.load(tmp_path)


def test_a_loss_that_is_not_finite_ends_the_training() -> None:
    with pytest.raises(RunFailed, match="the training loss is not finite"):
        train_classifier(*toy(40, 0), dataclasses.replace(SMALL, learning_rate=1e30))


def test_positions_are_those_of_the_emotions_module(classifier: EmotionClassifier) -> None:
    assert classifier.classify(["feeling1 the house"])[0] == emotion_index("awe")
    assert classifier.classify(["feeling8 the house"])[0] == emotion_index("something else")


@pytest.fixture(scope="module")
def transformer() -> EmotionClassifier:
    return train_classifier(
        *toy(360, 0), dataclasses.replace(SMALL, architecture="transformer", layers=2, heads=2)
    )


def test_a_transformer_learns_the_same_and_is_saved_whole(
    transformer: EmotionClassifier, tmp_path: Path
) -> None:
    sentences, labels = toy(90, 9)
    assert (transformer.classify(sentences) == labels).mean() > 0.95
    transformer.save(tmp_path)
    again = EmotionClassifier.load(tmp_path)
    assert isinstance(again.network, EmotionTransformer)
    assert np.array_equal(transformer.probabilities(sentences), again.probabilities(sentences))


def test_batching_and_padding_leave_no_trace_in_a_transformer(transformer: EmotionClassifier) -> None:
    sentences = ["feeling3", *toy(30, 5)[0], "a " * 200, "", "!?"]
    together = transformer.probabilities(sentences)
    alone = np.concatenate([transformer.probabilities([sentence]) for sentence in sentences])
    assert np.allclose(together, alone, atol=1e-5)
    first, last = transformer.probabilities(["feeling3 the house", "the house feeling3"])
    assert not np.allclose(first, last, atol=1e-4)  # it sees the order of words


def test_a_transformer_equals_its_attention_written_out(transformer: EmotionClassifier) -> None:
    """One sentence, one word and one head at a time, in float64."""
    s = {name: value.double() for name, value in transformer.network.state_dict().items()}
    ids = transformer.encode(["the old house feeling5 by water"])[0]
    x = s["embedding.weight"][ids] + s["positions.weight"][: len(ids)]
    for n in range(2):
        layer = f"encoder.layers.{n}."
        h = norm(x, s, f"{layer}norm1")
        mixed = h @ s[f"{layer}self_attn.in_proj_weight"].T + s[f"{layer}self_attn.in_proj_bias"]
        q, k, v = (part.split(SMALL.hidden // 2, dim=1) for part in mixed.split(SMALL.hidden, dim=1))
        heads = [
            (a @ b.T / math.sqrt(SMALL.hidden // 2)).softmax(1) @ c for a, b, c in zip(q, k, v, strict=True)
        ]
        out = torch.cat(heads, dim=1) @ s[f"{layer}self_attn.out_proj.weight"].T
        x = x + out + s[f"{layer}self_attn.out_proj.bias"]
        h = norm(x, s, f"{layer}norm2") @ s[f"{layer}linear1.weight"].T + s[f"{layer}linear1.bias"]
        h = h * 0.5 * (1 + torch.erf(h / math.sqrt(2)))
        x = x + h @ s[f"{layer}linear2.weight"].T + s[f"{layer}linear2.bias"]
    x = s["head.0.weight"] @ norm(x, s, "encoder.norm").max(dim=0).values + s["head.0.bias"]
    x = (x - s["head.1.running_mean"]) / (s["head.1.running_var"] + 1e-5).sqrt()
    x = torch.relu(x * s["head.1.weight"] + s["head.1.bias"])
    wanted = (s["head.4.weight"] @ x + s["head.4.bias"]).softmax(0).numpy()
    assert np.allclose(transformer.probabilities(["the old house feeling5 by water"])[0], wanted, atol=1e-5)


def norm(x: torch.Tensor, state: dict[str, torch.Tensor], name: str) -> torch.Tensor:
    centred = x - x.mean(dim=1, keepdim=True)
    scaled = centred / (centred.pow(2).mean(dim=1, keepdim=True) + 1e-5).sqrt()
    return scaled * state[f"{name}.weight"] + state[f"{name}.bias"]


def test_zeros_join_the_maximum_where_they_are_asked_for() -> None:
    states = torch.tensor([[[-1.0, 2.0], [-3.0, -4.0], [9.0, 9.0]]])
    ids = torch.tensor([[5, 6, 0]])
    assert max_over_words(states, ids, "none").tolist() == [[-1.0, 2.0]]
    assert max_over_words(states, ids, "zeros").tolist() == [[0.0, 2.0]]


def test_heads_must_divide_the_width_and_an_unknown_architecture_is_named(tmp_path: Path) -> None:
    params = dataclasses.replace(SMALL, architecture="transformer", heads=3)
    with pytest.raises(UserError, match=r"alignment.heads = 3 does not divide alignment.hidden = 16"):
        train_classifier(*toy(18, 0), params)
    train_classifier(*toy(18, 0), SMALL).save(tmp_path)
    config = tmp_path / "config.json"
    (tmp_path / "SHA256SUMS").unlink()
    config.write_text(config.read_text().replace('"lstm"', '"gru"'))
    with pytest.raises(UserError, match="'gru' is none of lstm, transformer"):
        EmotionClassifier.load(tmp_path)
