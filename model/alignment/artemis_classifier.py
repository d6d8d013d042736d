"""ArtEmis's released text-to-emotion classifier, without running anything that is in its files.

Its authors publish ``best_model.pt``, a whole pickled ``TextEmotionClassifier`` (by ``torch.save(model)``, in
the format of PyTorch 1.3 or later), and ``vocabulary.pkl``, a pickled ``Vocabulary``. Both are unpickled with
an allow-list: their classes become inert stand-ins that only hold attributes, tensors are rebuilt by torch,
and any other name is refused before it is imported. What is taken are tensors, words, and the end symbol.
A plain state dict of the same network is read as well. Source of names and shapes: github.com/optas/artemis,
``neural_models/{text_emotional_clf,lstm_encoder,mlp}.py`` and ``utils/vocabulary.py``.
"""

import io
import pickle
import types
import warnings
import zipfile
from collections import OrderedDict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import torch

from model.alignment.networks import EmotionClassifier, EmotionLSTM, NetworkConfig, Padding
from pipeline.common.errors import UserError

PAD, SOS, EOS, UNKNOWN = "<pad>", "<sos>", "<eos>", "<unk>"
DROPOUT = 0.25
"""Of their network; it is off when judging."""


class Inert:
    """Stands in for a class of a pickle: holds what was saved in it, and does nothing."""

    dump_patches = False  # torch asks classes in files of its old format

    def __init__(self, *_: object) -> None:
        """Whatever the pickle would have called its class with."""


_MODULES = frozenset(
    {
        "artemis.neural_models.text_emotional_clf.TextEmotionClassifier",
        "artemis.neural_models.lstm_encoder.LSTMEncoder",
        "artemis.neural_models.mlp.MLP",
        "torch.nn.modules.container.Sequential",
        "torch.nn.modules.sparse.Embedding",
        "torch.nn.modules.dropout.Dropout",
        "torch.nn.modules.linear.Linear",
        "torch.nn.modules.activation.ReLU",
        "torch.nn.modules.rnn.LSTM",
        "torch.nn.modules.batchnorm.BatchNorm1d",
        "torch.nn.modules.linear.Identity",
    }
)
_VOCABULARIES = frozenset(
    {"artemis.utils.vocabulary.Vocabulary", "artemis.language.vocabulary.Vocabulary", "__main__.Vocabulary"}
)


_UNREADABLE = (
    *(pickle.UnpicklingError, zipfile.BadZipFile, EOFError, OSError, ImportError, MemoryError, OverflowError),
    *(RuntimeError, ValueError, TypeError, LookupError, AttributeError, AssertionError),
)
"""What reading a broken file was seen to raise: it can call for anything, in any order."""


def _said(error: BaseException) -> str:
    return " ".join(str(error).split()) or type(error).__name__


class _Unpickler(pickle.Unpickler):
    """Finds nothing but the names on its list."""

    inert: frozenset[str] = frozenset()
    called: Mapping[str, Any] = {}

    def find_class(self, module: str, name: str) -> Any:
        full = f"{module}.{name}"
        if full in self.inert:
            return type(name, (Inert,), {"__module__": module})
        if full in self.called:
            return self.called[full]
        raise pickle.UnpicklingError(f"it names {full}, which no such file needs; it was not run")


class _ModuleUnpickler(_Unpickler):
    inert = _MODULES
    called: Mapping[str, Any] = {
        "collections.OrderedDict": OrderedDict,
        "builtins.set": set,
        "__builtin__.set": set,
        "torch._utils._rebuild_tensor_v2": torch._utils._rebuild_tensor_v2,
        "torch._utils._rebuild_parameter": torch._utils._rebuild_parameter,
    }


class _VocabularyUnpickler(_Unpickler):
    inert = _VOCABULARIES


def _pickle_module() -> types.ModuleType:
    """What `torch.load` takes in place of `pickle`."""
    module = types.ModuleType("restricted_pickle")

    def load(file: BinaryIO, **options: Any) -> Any:
        return _ModuleUnpickler(file, **options).load()

    def loads(data: bytes, **options: Any) -> Any:
        return _ModuleUnpickler(io.BytesIO(data), **options).load()

    module.load, module.loads = load, loads  # type: ignore[attr-defined]
    module.Unpickler, module.UnpicklingError = _ModuleUnpickler, pickle.UnpicklingError  # type: ignore[attr-defined]
    return module


@dataclass(frozen=True)
class Checkpoint:
    """What is taken from ``best_model.pt``."""

    tensors: dict[str, torch.Tensor]
    """By the names of its state dict."""
    eos: int | None
    """Id of the end symbol, as the encoder was told; None in a plain state dict."""


def read_checkpoint(path: Path) -> Checkpoint:
    """Tensors of ``best_model.pt``, a pickled network or its state dict, in either format of torch.

    Raises `UserError` when it is missing, no such file, pools otherwise, or names anything unexpected.
    """
    try:
        if not path.is_file():
            raise UserError(f"{path} does not exist; it is ArtEmis's best_model.pt")
        if _is_program(path):
            raise UserError(f"{path} is a TorchScript program, not ArtEmis's best_model.pt")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of sources that changed: stand-ins have none
            with path.open("rb") as file:  # of a path torch would believe the ending
                found = torch.load(  # our unpickler finds listed names only
                    file, map_location="cpu", pickle_module=_pickle_module(), weights_only=False
                )
    except _UNREADABLE as error:
        raise UserError(f"{path} cannot be read as ArtEmis's best_model.pt: {_said(error)}") from None
    if isinstance(found, Mapping):
        tensors = {str(k): v for k, v in found.items() if isinstance(v, torch.Tensor)}
        return Checkpoint(tensors, None)
    encoder = _parts(found).get("text_encoder")
    if encoder is None:
        raise UserError(f"{path} holds a {type(found).__name__}, not ArtEmis's TextEmotionClassifier")
    pooling = vars(encoder).get("feature_type")
    if pooling != "max":
        raise UserError(f"{path}: its encoder pools by {pooling!r}; only ArtEmis's 'max' is supported")
    eos = vars(encoder).get("eos")
    return Checkpoint(dict(_tensors(found)), eos if isinstance(eos, int) else None)


def _is_program(path: Path) -> bool:
    """Whether `torch.load` would take it for TorchScript, which is code."""
    if not zipfile.is_zipfile(path):
        return False
    with zipfile.ZipFile(path) as archive:
        return any(name.endswith("constants.pkl") for name in archive.namelist())


def _parts(module: object) -> Mapping[str, object]:
    parts = vars(module).get("_modules") if isinstance(module, Inert) else None
    return parts if isinstance(parts, Mapping) else {}


def _tensors(module: object, prefix: str = "") -> Iterator[tuple[str, torch.Tensor]]:
    """Parameters and buffers of a stand-in and its parts, by their names in a state dict."""
    for kind in ("_parameters", "_buffers"):
        for name, tensor in (vars(module).get(kind) or {}).items():
            if isinstance(tensor, torch.Tensor):
                yield f"{prefix}{name}", tensor
    for name, part in _parts(module).items():
        if part is not None:
            yield from _tensors(part, f"{prefix}{name}.")


def read_vocabulary(path: Path) -> list[str]:
    """The word of each id in ``vocabulary.pkl``.

    Raises `UserError` when it is missing, no such file, names anything unexpected, or has gaps.
    """
    try:
        with path.open("rb") as file:
            found = _VocabularyUnpickler(file).load()  # finds the vocabulary's class only, as a stand-in
        ids = vars(found)["word2idx"]
        words = {int(index): str(word) for word, index in ids.items()}
    except FileNotFoundError:
        raise UserError(f"{path} does not exist; it is ArtEmis's vocabulary.pkl") from None
    except _UNREADABLE as error:
        raise UserError(f"{path} cannot be read as ArtEmis's vocabulary.pkl: {_said(error)}") from None
    if sorted(words) != list(range(len(ids))):
        raise UserError(f"{path} has {len(ids)} words, but their ids are not 0 to {len(ids) - 1}")
    missing = [symbol for symbol in (PAD, SOS, EOS, UNKNOWN) if symbol not in ids]
    if missing or ids[PAD] != 0:
        raise UserError(f"{path} lacks {', '.join(missing) or f'{PAD} as id 0'}: no vocabulary of ArtEmis")
    return [words[i] for i in range(len(words))]


def load_artemis(checkpoint: Path, vocabulary: Path, padding: Padding, max_words: int) -> EmotionClassifier:
    """ArtEmis's classifier from its two files, as one of ours.

    Theirs skips the start symbol and stops before the end symbol: words only, as here. Raises `UserError`
    when the files cannot be used or do not belong together.
    """
    words, saved = read_vocabulary(vocabulary), read_checkpoint(checkpoint)
    if saved.eos is not None and (not 0 <= saved.eos < len(words) or words[saved.eos] != EOS):
        raise UserError(f"{checkpoint} ends sentences by id {saved.eos}, which is not {EOS} in {vocabulary}")
    try:
        state = _renamed(saved.tensors)
        num_words, width = state["embedding.weight"].shape
        config = NetworkConfig(
            num_words=num_words,
            embedding=width,
            hidden=state["lstm.weight_hh_l0"].shape[1],
            dropout=DROPOUT,
            max_words=max_words,
            padding=padding,
            unknown=words.index(UNKNOWN),
            tokens="artemis",
        )
        network = EmotionLSTM(config)
        network.load_state_dict(state)
    except (KeyError, ValueError, RuntimeError) as error:
        raise UserError(f"{checkpoint} is not the network of ArtEmis's classifier: {_said(error)}") from None
    if num_words != len(words):
        raise UserError(
            f"{checkpoint} knows {num_words} words, {vocabulary} {len(words)}: not of one training"
        )
    return EmotionClassifier(network, config, words)


def _renamed(tensors: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Their names as `EmotionLSTM`'s; in front of the LSTM an embedding and two linear layers, in order."""
    front = "text_encoder.word_embedding."
    found: dict[str, torch.Tensor] = {}
    fronts = [name.removeprefix(front) for name in tensors if name.startswith(front)]
    places = sorted({int(name.split(".")[0]) for name in fronts})
    if len(places) != 3:
        raise ValueError(f"an embedding and two linear layers were expected, not {len(places)} layers")
    ours = dict(zip(places, ("embedding", "encoder.1", "encoder.4"), strict=True))
    for name, tensor in tensors.items():
        if name.startswith(front):
            place, leaf = name.removeprefix(front).split(".", 1)
            renamed = f"{ours[int(place)]}.{leaf}"
        else:
            renamed = name.replace("text_encoder.rnn.", "lstm.", 1).replace("clf_head.net.", "head.", 1)
        found[renamed] = tensor.detach().float() if tensor.is_floating_point() else tensor
    return found
