"""ArtEmis's files, written here as its authors' code writes them, read without running anything in them."""

import os
import pickle
import subprocess
import sys
import types
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import torch
from torch import nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from model.alignment.artemis_classifier import load_artemis, read_checkpoint, read_vocabulary
from model.alignment.networks import EmotionClassifier, Padding
from model.alignment.step import AlignmentParams, build_alignment
from model.alignment.words import artemis_words
from pipeline.common import schema
from pipeline.common.emotions import ALL_EMOTIONS
from pipeline.common.errors import UserError
from pipeline.common.files import write_parquet
from pipeline.common.fingerprint import sha256_file
from tests.worlds.indexed_shards import paths_in

WORDS = ("the", "crooked", "house", "looks", "lonely", "and", "it", "is", "a", "'s", "cold", "warm", "sky")
HIDDEN, WIDTH = 12, 8


class Named(nn.Module):
    """A module of named parts, as those of ArtEmis are."""

    def __init__(self, **parts: Any) -> None:
        super().__init__()
        for name, part in parts.items():
            setattr(self, name, part)


class Words:
    """A vocabulary with ArtEmis's attributes."""

    def __init__(self, words: tuple[str, ...]) -> None:
        self.special_symbols = ["<pad>", "<sos>", "<eos>", "<unk>"]
        every = [*self.special_symbols, *words]
        self.word2idx = {word: i for i, word in enumerate(every)}
        self.idx2word = dict(enumerate(every))
        self.idx, self.pad, self.sos, self.eos, self.unk = len(every), 0, 1, 2, 3


CLASSES = {
    "artemis.neural_models.text_emotional_clf": ("TextEmotionClassifier", Named),
    "artemis.neural_models.lstm_encoder": ("LSTMEncoder", Named),
    "artemis.neural_models.mlp": ("MLP", Named),
    "artemis.utils.vocabulary": ("Vocabulary", Words),
}


@pytest.fixture(scope="module")
def artemis() -> dict[str, type]:
    """Classes under ArtEmis's names."""
    return {name: type(name, (base,), {"__module__": module}) for module, (name, base) in CLASSES.items()}


@contextmanager
def installed(artemis: dict[str, type]) -> Iterator[None]:
    """ArtEmis importable, as where its files are written."""
    with pytest.MonkeyPatch.context() as patch:
        for module, (name, _) in CLASSES.items():
            for parent in (module.split(".")[0], module.rsplit(".", 1)[0], module):
                patch.setitem(sys.modules, parent, types.ModuleType(parent))
            setattr(sys.modules[module], name, artemis[name])
        yield


@pytest.fixture(scope="module")
def network(artemis: dict[str, type]) -> nn.Module:
    """Random weights, in the notebook's arrangement; the batch norm has seen some data."""
    torch.manual_seed(3)
    front = nn.Sequential(
        nn.Embedding(4 + len(WORDS), WIDTH, padding_idx=0),
        nn.Dropout(0.25, inplace=True),
        nn.Linear(WIDTH, HIDDEN),
        nn.ReLU(),
        nn.Dropout(0.25, inplace=True),
        nn.Linear(HIDDEN, HIDDEN),
    )
    encoder = artemis["LSTMEncoder"](word_embedding=front, rnn=nn.LSTM(HIDDEN, HIDDEN, batch_first=True))
    encoder.n_hidden, encoder.eos, encoder.feature_type = HIDDEN, 2, "max"
    encoder.word_transformation = encoder.init_h = encoder.init_c = None
    net = nn.Sequential(
        nn.Linear(HIDDEN, 100),
        nn.BatchNorm1d(100),
        nn.ReLU(inplace=True),
        nn.Dropout(0.25),
        nn.Linear(100, 9),
    )
    net[1].running_mean = torch.randn(100) / 5
    net[1].running_var = torch.rand(100) + 0.1
    head = artemis["MLP"](net=net)
    head.hidden_dimensions, head.embedding_dimension = [100], 9
    whole: nn.Module = artemis["TextEmotionClassifier"](text_encoder=encoder, clf_head=head)
    whole.register_module("img_encoder", None)
    return whole.eval()


@pytest.fixture(scope="module")
def files(
    network: nn.Module, artemis: dict[str, type], tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, Path]:
    """best_model.pt and vocabulary.pkl; ArtEmis is gone when they are read."""
    folder = tmp_path_factory.mktemp("artemis")
    with installed(artemis), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # classes made here have no source
        torch.save(network, folder / "best_model.pt")
        torch.save(network, folder / "old.pt", _use_new_zipfile_serialization=False)
        torch.save(network.state_dict(), folder / "state.pt")
        for name, words in (("vocabulary", WORDS), ("other", (*WORDS, "more"))):
            vocabulary = artemis["Vocabulary"](words)
            (folder / f"{name}.pkl").write_bytes(pickle.dumps(vocabulary, protocol=2))
        vocabulary.word2idx["sky"] = 99
        (folder / "gaps.pkl").write_bytes(pickle.dumps(vocabulary, protocol=2))
    return folder / "best_model.pt", folder / "vocabulary.pkl"


def theirs(network: Any, sentences: list[list[int]]) -> np.ndarray:
    """Their forward pass on one batch of word ids: start, words, end, padding; packed up to the end."""
    longest = max(map(len, sentences))
    tokens = torch.tensor([[1, *ids, 2] + [0] * (longest - len(ids)) for ids in sentences])
    lengths = torch.where(tokens == 2)[1] - 1
    embedded = network.text_encoder.word_embedding(tokens[:, 1:])
    packed = pack_padded_sequence(embedded, lengths, enforce_sorted=False, batch_first=True)
    out, _ = pad_packed_sequence(network.text_encoder.rnn(packed)[0], batch_first=True)
    with torch.no_grad():
        return network.clf_head.net(out.max(1).values).softmax(1).numpy()


def step_by_step(state: dict[str, torch.Tensor], ids: list[int], zeros: bool) -> np.ndarray:
    """One sentence in float64, cell by cell, from their state dict."""
    s = {name: tensor.detach().double() for name, tensor in state.items()}
    front, rnn, head = "text_encoder.word_embedding.", "text_encoder.rnn.", "clf_head.net."
    h, c = torch.zeros(HIDDEN).double(), torch.zeros(HIDDEN).double()
    seen = [torch.zeros(HIDDEN).double()] if zeros else []
    for word in ids:
        x = s[f"{front}0.weight"][word]
        x = torch.relu(s[f"{front}2.weight"] @ x + s[f"{front}2.bias"])
        x = s[f"{front}5.weight"] @ x + s[f"{front}5.bias"]
        gates = s[f"{rnn}weight_ih_l0"] @ x + s[f"{rnn}bias_ih_l0"]
        gates = gates + s[f"{rnn}weight_hh_l0"] @ h + s[f"{rnn}bias_hh_l0"]
        i, f, g, o = gates.split(HIDDEN)
        c = torch.sigmoid(f) * c + torch.sigmoid(i) * torch.tanh(g)
        h = torch.sigmoid(o) * torch.tanh(c)
        seen.append(h)
    x = s[f"{head}0.weight"] @ torch.stack(seen).max(0).values + s[f"{head}0.bias"]
    x = (x - s[f"{head}1.running_mean"]) / (s[f"{head}1.running_var"] + 1e-5).sqrt()
    x = torch.relu(x * s[f"{head}1.weight"] + s[f"{head}1.bias"])
    return (s[f"{head}4.weight"] @ x + s[f"{head}4.bias"]).softmax(0).numpy()


SENTENCES = ["The crooked house looks lonely.", "a warm sky", "It's unheard of, and cold!", "cold"]
IDS = [[4, 5, 6, 7, 8], [12, 15, 16], [10, 11, 3, 3, 9, 14], [14]]


@pytest.mark.parametrize("padding", ["zeros", "none"])
def test_it_equals_every_cell_written_out(
    files: tuple[Path, Path], network: nn.Module, padding: Padding
) -> None:
    classifier = load_artemis(*files, padding, 60)
    wanted = [step_by_step(network.state_dict(), ids, padding == "zeros") for ids in IDS]
    assert classifier.encode(SENTENCES).tolist() == [ids + [0] * (6 - len(ids)) for ids in IDS]
    assert np.allclose(classifier.probabilities(SENTENCES), wanted, atol=1e-5)
    alone = np.concatenate([classifier.probabilities([sentence]) for sentence in SENTENCES])
    assert np.allclose(alone, wanted, atol=1e-5)


def test_it_equals_their_forward_pass_with_and_without_padding(
    files: tuple[Path, Path], network: nn.Module
) -> None:
    """In their batch all but the longest sentence see zeros; alone, none does; and that can matter."""
    zeros = load_artemis(*files, "zeros", 60).probabilities(SENTENCES)
    none = load_artemis(*files, "none", 60).probabilities(SENTENCES)
    batch = theirs(network, IDS)
    alone = np.concatenate([theirs(network, [ids]) for ids in IDS])
    longer = theirs(network, [*IDS, [4] * 9])[:-1]
    assert np.allclose(none, alone, atol=1e-6)
    assert np.allclose(zeros, longer, atol=1e-6)
    assert np.allclose(batch[[0, 1, 3]], zeros[[0, 1, 3]], atol=1e-6)
    assert np.allclose(batch[2], none[2], atol=1e-6)
    assert not np.allclose(zeros, none, atol=1e-3)


@pytest.mark.parametrize("name", ["old.pt", "state.pt"])
def test_both_formats_of_torch_and_a_state_dict_give_the_same_tensors(
    files: tuple[Path, Path], network: nn.Module, name: str
) -> None:
    found = read_checkpoint(files[0].parent / name)
    wanted = network.state_dict()
    assert found.tensors.keys() == wanted.keys() == read_checkpoint(files[0]).tensors.keys()
    assert all(torch.equal(found.tensors[key], wanted[key]) for key in wanted)
    assert found.eos == (2 if name == "old.pt" else None)
    assert "artemis" not in sys.modules
    assert read_vocabulary(files[1])[2:5] == ["<eos>", "<unk>", "the"]


class Evil:
    """A pickle that writes a file when it is loaded by the usual means."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple[Any, ...]:
        return os.system, (f"touch {self.mark}",)


def test_a_pickle_that_wants_to_run_something_is_refused_by_name(tmp_path: Path) -> None:
    mark, evil = tmp_path / "ran", tmp_path / "evil"
    for new in (True, False):
        torch.save({"weight": Evil(mark)}, evil, _use_new_zipfile_serialization=new)
        with pytest.raises(UserError, match=r"names \w+\.system, which no such file needs; it was not run"):
            read_checkpoint(evil)
    evil.write_bytes(pickle.dumps(Evil(mark), protocol=2))
    for read in (read_vocabulary, read_checkpoint):
        with pytest.raises(UserError, match=r"evil"):
            read(evil)
    assert not mark.exists()
    usual = f"import pickle; pickle.load(open({str(evil)!r}, 'rb'))"
    subprocess.run([sys.executable, "-c", usual], check=True)
    assert mark.exists()  # the file was a real threat


def test_files_that_are_something_else_end_in_one_message(files: tuple[Path, Path], tmp_path: Path) -> None:
    model, vocabulary = files
    with pytest.raises(UserError, match=r"nowhere.pt does not exist; it is ArtEmis's best_model.pt"):
        load_artemis(tmp_path / "nowhere.pt", vocabulary, "zeros", 60)
    with pytest.raises(UserError, match=r"nowhere.pkl does not exist; it is ArtEmis's vocabulary.pkl"):
        load_artemis(model, tmp_path / "nowhere.pkl", "zeros", 60)
    for content in (b"", b"no weights", b"PK\x03\x04", pickle.dumps({"a": 1}), bytes(range(256))):
        (tmp_path / "odd").write_bytes(content)
        with pytest.raises(UserError, match="odd"):
            load_artemis(tmp_path / "odd", vocabulary, "zeros", 60)
        with pytest.raises(UserError, match="odd"):
            read_vocabulary(tmp_path / "odd")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # TorchScript is on its way out
        torch.jit.save(torch.jit.script(nn.Linear(2, 2)), tmp_path / "program.pt")
    with pytest.raises(UserError, match="is a TorchScript program"):
        read_checkpoint(tmp_path / "program.pt")
    torch.save({"weight": torch.zeros(3)}, tmp_path / "odd")
    with pytest.raises(UserError, match="not the network of ArtEmis's classifier"):
        load_artemis(tmp_path / "odd", vocabulary, "zeros", 60)


@pytest.mark.parametrize("name", ["best_model.pt", "old.pt", "state.pt", "vocabulary.pkl"])
def test_damaged_files_are_read_or_refused_in_one_line(
    files: tuple[Path, Path], tmp_path: Path, name: str
) -> None:
    """Cut short, or with bytes changed: whatever comes of it, one message or an answer, never a traceback."""
    whole = (files[0].parent / name).read_bytes()
    rng = np.random.default_rng(len(whole))
    refused = 0
    for n in range(60):
        data = bytearray(whole[: rng.integers(len(whole))] if n % 4 == 0 else whole)
        for place in rng.integers(min(len(data), 3000) + 1, size=n % 4):
            data[place : place + 1] = bytes([rng.integers(256)])
        (tmp_path / name).write_bytes(data)
        try:
            if name == "vocabulary.pkl":
                read_vocabulary(tmp_path / name)
            else:
                load_artemis(tmp_path / name, files[1], "zeros", 60)
        except UserError as error:
            refused += 1
            assert name in str(error)
    assert refused >= 15


def test_files_of_two_trainings_are_told_apart(files: tuple[Path, Path]) -> None:
    model, folder = files[0], files[0].parent
    with pytest.raises(UserError, match=r"knows 17 words, .*other.pkl 18: not of one training"):
        load_artemis(model, folder / "other.pkl", "zeros", 60)
    with pytest.raises(UserError, match="their ids are not 0 to 17"):
        read_vocabulary(folder / "gaps.pkl")


def test_the_step_writes_them_in_a_safe_format_and_measures_them(
    files: tuple[Path, Path], tmp_path: Path
) -> None:
    paths = paths_in(tmp_path / "world")
    found = load_artemis(*files, "zeros", 60)
    said = ALL_EMOTIONS[int(found.classify(["a warm sky"])[0])]
    other = next(e for e in ALL_EMOTIONS if e != said)
    rows = [("test", said), ("test", other), ("val", said), ("train", other)]
    table = [
        {
            "key": "0" * 16,
            "artemis_id": i,
            "emotion": e,
            "utterance": "A warm sky!",
            "repetition": 5,
            "split": s,
        }
        for i, (s, e) in enumerate(rows)
    ]
    write_parquet(
        paths.step("utterances") / "utterances.parquet", pa.Table.from_pylist(table, schema=schema.UTTERANCES)
    )
    params = AlignmentParams(source="artemis", checkpoint=files[0], vocabulary=files[1], device="cpu")
    metrics = build_alignment(paths, params)
    assert (metrics["source"], metrics["words"], "train" in metrics) == ("artemis", 17, False)
    assert (metrics["test"]["accuracy"], metrics["val"]["accuracy"]) == (50.0, 100.0)
    assert metrics["checkpoint_sha256"] == sha256_file(files[0])
    again = EmotionClassifier.load(paths.step("alignment"))
    assert np.array_equal(again.probabilities(SENTENCES), found.probabilities(SENTENCES))
    with pytest.raises(UserError, match=r"alignment.source = artemis needs alignment.checkpoint"):
        build_alignment(paths, AlignmentParams(source="artemis", checkpoint=files[0]))


@pytest.mark.parametrize(
    ("sentence", "wanted"),
    [
        ("It's the dog's 'eye'—she can't, I'd say", "it is the dog 's eye she can not i had say"),
        ("they'll (all) re-run;", "they will ( all ) re run"),
        ("Don't! Won’t shan't isn't ain't let's", "do not will not shall not is not am not let us"),
        ("we've you're I'm how'd o'er", "we have you are i am how did o'er"),
        ("gonna cannot", "gon na can not"),
        ("the painters' \"odd and cold\" 1800's", "the painters ' `` odd and cold '' 1800 's"),
        (" ... -", ""),
    ],
)
def test_words_are_prepared_as_by_artemis(sentence: str, wanted: str) -> None:
    assert " ".join(artemis_words(sentence)) == wanted
