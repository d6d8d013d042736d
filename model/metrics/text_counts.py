"""BLEU and METEOR of a corpus from counts summed over its sentences.

Neither is a mean over sentences; both are functions of sums, so that the score of any resample of a corpus
follows from its sentences' counts. BLEU: Papineni et al. 2002 with pycocoevalcap's guards against zero.
METEOR: version 1.5's statistics of a sentence and its weights for English (Denkowski and Lavie 2014, Sec. 3
and Tab. 1).
"""

import functools
from collections import Counter
from collections.abc import Sequence

import numpy as np

BLEU = 4
"""Longest n-grams."""
BLEU_COUNTS = 2 + 2 * BLEU
"""Words, closest reference's words, the hypothesis's n-grams per length, matched n-grams per length."""
METEOR_COUNTS = 23
SMALL, TINY = 1e-9, 1e-15
ALPHA, BETA, GAMMA, DELTA = 0.85, 0.2, 0.6, 0.75
STAGES = np.array([1.0, 0.6, 0.8, 0.6])
"""Weights of exact words, stems, synonyms, paraphrases."""


def bleu_counts(hypothesis: str, references: Sequence[str]) -> list[int]:
    """`BLEU_COUNTS` counts of one tokenised sentence. Of references equally close, the shorter counts."""
    ngrams, wanted = _ngrams(hypothesis), _most(tuple(references))
    words = len(hypothesis.split())
    closest = min((abs(len(r.split()) - words), len(r.split())) for r in references)[1]
    right = [0] * BLEU
    for ngram, count in (ngrams & wanted).items():
        right[len(ngram) - 1] += count
    return [words, closest, *(max(0, words - n) for n in range(BLEU)), *right]


@functools.lru_cache(1 << 14)
def _most(references: tuple[str, ...]) -> Counter[tuple[str, ...]]:
    """N-grams of all references, each as often as in the one that has it most. Not to be changed."""
    most: Counter[tuple[str, ...]] = Counter()
    for reference in references:
        most |= _ngrams(reference)
    return most


def _ngrams(sentence: str) -> Counter[tuple[str, ...]]:
    words = sentence.split()
    return Counter(tuple(words[i : i + n]) for n in range(1, BLEU + 1) for i in range(len(words) - n + 1))


def bleu(sums: np.ndarray) -> np.ndarray:
    """BLEU-1..4 of summed counts, (..., BLEU_COUNTS), in percent: float64 (..., 4)."""
    words, closest = sums[..., 0], sums[..., 1]
    total, right = sums[..., 2 : 2 + BLEU], sums[..., 2 + BLEU :]
    logs = np.log((right + TINY) / (total + SMALL)).cumsum(axis=-1) / np.arange(1, BLEU + 1)
    ratio = (words + TINY) / (closest + SMALL)
    short = np.minimum(1 - 1 / ratio, 0.0)
    scores: np.ndarray = 100.0 * np.exp(logs + short[..., None])
    return scores


def meteor_counts(statistics: str) -> list[float]:
    """`METEOR_COUNTS` counts of METEOR's answer to one sentence. Raises `ValueError` for another answer.

    In METEOR's own sums a sentence that is its reference, whole, has no chunk.
    """
    counts = [float(number) for number in statistics.split()]
    if len(counts) != METEOR_COUNTS:
        raise ValueError(f"{METEOR_COUNTS} numbers were expected, not {statistics[:200]!r}")
    if counts[20] == 1 and counts[21:23] == counts[0:2]:
        counts[20] = 0.0
    return counts


def meteor(sums: np.ndarray) -> np.ndarray:
    """METEOR of summed counts, (..., METEOR_COUNTS), in percent: float64 (...).

    The counts: words of hypothesis and reference, function words of both, then per stage content words
    matched in both and function words matched in both, then chunks and words matched in both.
    """
    lengths, functions = sums[..., 0:2], sums[..., 2:4]
    stages = sums[..., 4:20].reshape(*sums.shape[:-1], 4, 2, 2)  # (stage, content or function, side)
    matched = np.einsum("s,...skl->...kl", STAGES, stages)
    with np.errstate(invalid="ignore", divide="ignore"):
        weighted = DELTA * (lengths - functions) + (1 - DELTA) * functions
        share = (DELTA * matched[..., 0, :] + (1 - DELTA) * matched[..., 1, :]) / weighted
        mean = 1.0 / ((1 - ALPHA) / share[..., 0] + ALPHA / share[..., 1])
        fragments = sums[..., 20] / sums[..., 21:23].mean(axis=-1)
    found: np.ndarray = np.where((share > 0).all(axis=-1), 100.0 * mean * (1 - GAMMA * fragments**BETA), 0.0)
    return found
