"""The built-in language model's recipe, at a size for tests."""

from pathlib import Path

import numpy as np
import pydantic
import pytest
import torch
from transformers import AutoTokenizer, GPT2LMHeadModel

from model.pretrain.language_model import LanguageModelPretrainParams, compose, speak, train_language_model
from pipeline.common.emotions import EMOTIONS, prompt

PARAMS = LanguageModelPretrainParams(
    sentences=1500, held_out=100, vocabulary=900, layers=1, width=32, heads=2, steps=120, batch_size=32
)


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, float]]:
    torch.set_num_threads(1)
    out = tmp_path_factory.mktemp("weights")
    return out / "gpt2", train_language_model(out, PARAMS, "cpu")


def test_it_learns(trained: tuple[Path, dict[str, float]]) -> None:
    assert trained[1]["perplexity"] < 200  # 900 before the first step


def test_what_it_writes_is_a_plain_gpt2(trained: tuple[Path, dict[str, float]]) -> None:
    folder = trained[0]
    model = GPT2LMHeadModel.from_pretrained(folder, dtype=torch.float32, local_files_only=True)
    assert model.config.n_embd == 32 and not model.config.add_cross_attention
    tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True)
    assert len(tokenizer) == model.config.vocab_size == 900
    assert tokenizer.eos_token_id == model.config.eos_token_id
    for emotion in EMOTIONS:
        ids = tokenizer.encode(prompt(emotion), add_special_tokens=False)
        assert tokenizer.decode(ids) == prompt(emotion)
        assert tokenizer.decode(ids[-1:]) == f" {emotion}"  # a token of its own


def test_any_text_survives_the_tokenizer(trained: tuple[Path, dict[str, float]]) -> None:
    tokenizer = AutoTokenizer.from_pretrained(trained[0], local_files_only=True)
    for text in (" a snow-covered église, 1889", " 星月夜", "  two  spaces"):
        assert tokenizer.decode(tokenizer.encode(text), clean_up_tokenization_spaces=False) == text


def test_texts_are_a_function_of_the_seed_and_speak_of_all_emotions() -> None:
    assert compose(1_000_000, 40) == compose(1_000_000, 40) != compose(1_000_001, 40)
    rng = np.random.default_rng(0)
    assert {speak(rng)[0] for _ in range(300)} == set(EMOTIONS)


def test_no_gallery_shares_its_seed() -> None:
    with pytest.raises(pydantic.ValidationError):
        LanguageModelPretrainParams(seed=7)
