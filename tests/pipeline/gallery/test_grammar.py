"""The annotators' sentences: many, about the right thing, in good grammar, and telling the emotions apart."""

import re
from collections import Counter

import numpy as np
import pytest

from pipeline.common.emotions import EMOTIONS
from pipeline.gallery.words import grammar
from pipeline.gallery.words.lexicon import DETAILS, FEELINGS
from pipeline.gallery.world import COLOURS, EVOKES, KINDS, KINDS_OF, Look, Motif, Scene

LOOK_WORDS = {"small", "large", *COLOURS, *(state for kind in KINDS.values() for state in kind.states)}
OTHER_WORDS = {
    word
    for phrases in (*DETAILS.values(), *(feeling.feels for feeling in FEELINGS.values()))
    for phrase in phrases
    for word in phrase.split()
}
"""Words that also stand in details and feelings, such as "laughing"."""


def motif(kind: str, rng: np.random.Generator) -> Motif:
    """A motif of a kind in a random look; only its words matter here."""
    row = KINDS[kind]
    look = Look(
        str(rng.choice(row.colours)), str(rng.choice(row.states)), str(rng.choice(["small", "", "large"]))
    )
    return Motif(kind, row.emotions, row.phrase(look), np.ones((1, 1), bool), (0.0, 0.0, 1.0, 1.0), look)


def sentences(emotion: str, count: int, seed: int) -> list[tuple[Motif, str]]:
    rng = np.random.default_rng(seed)
    motifs = [motif(KINDS_OF[emotion][i % len(KINDS_OF[emotion])], rng) for i in range(count)]
    return [(m, grammar.utterance(m, emotion, rng)) for m in motifs]


@pytest.mark.parametrize("emotion", EMOTIONS)
def test_at_least_two_thousand_distinct_sentences(emotion: str) -> None:
    said = [text for _, text in sentences(emotion, 3000, 0)]
    assert len(set(said)) >= 2000
    lengths = np.array([len(text.split()) for text in said])
    assert ((lengths >= 8) & (lengths <= 22)).mean() > 0.98
    assert lengths.max() <= 26


@pytest.mark.parametrize("emotion", EMOTIONS)
def test_each_names_the_motif_its_look_and_a_feeling(emotion: str) -> None:
    feeling = FEELINGS[emotion]
    feelings = [*feeling.adjectives, *feeling.feels, *feeling.reactions, *feeling.wishes, *feeling.likenesses]
    for found, text in sentences(emotion, 400, 1):
        assert found.kind in text
        look = (found.look.colour, found.look.state, found.look.size)
        assert any(word and word in text for word in look)
        before_noun = text.split(found.kind)[0].split()
        assert not (LOOK_WORDS - OTHER_WORDS - set(look)) & set(before_noun), text  # nothing untrue
        assert any(word in text for word in feelings), text


def test_style_of_all_sentences() -> None:
    for emotion in EMOTIONS:
        for found, text in sentences(emotion, 300, 2):
            assert text == text.lower().strip() and "  " not in text and text.isprintable()
            assert "{" not in text
            if KINDS[found.kind].plural:
                for wrong in ("looks", "makes me feel", "this", "is so"):
                    assert f"{found.kind} {wrong}" not in text
            assert not any(f" a {vowel}" in text for vowel in "aeio"), text


def test_the_table_of_details_is_complete() -> None:
    pairs = {(kind, emotion) for kind, emotions in EVOKES.items() for emotion in emotions}
    assert set(DETAILS) == pairs
    assert all(len(set(clauses)) >= 3 for clauses in DETAILS.values())


def test_no_feeling_belongs_to_two_emotions() -> None:
    assert set(FEELINGS) == set(EMOTIONS)
    every = [
        word
        for feeling in FEELINGS.values()
        for word in {
            *feeling.adjectives,
            *feeling.feels,
            *feeling.reactions,
            *feeling.wishes,
            *feeling.likenesses,
        }
    ]
    assert [word for word, count in Counter(every).items() if count > 1] == []


def test_unknown_pairs_are_refused() -> None:
    rng = np.random.default_rng(0)
    with pytest.raises(KeyError):
        grammar.utterance(motif("snake", rng), "amusement", rng)
    with pytest.raises(KeyError):
        grammar.utterance(motif("tree", rng), "awe", rng)
    with pytest.raises(KeyError):
        grammar.disagreement("something else", rng)


def test_the_same_random_state_says_the_same() -> None:
    assert sentences("awe", 20, 5) != sentences("awe", 20, 6)
    assert [text for _, text in sentences("awe", 20, 5)] == [text for _, text in sentences("awe", 20, 5)]


def test_disagreement_names_no_motif() -> None:
    rng = np.random.default_rng(0)
    for emotion in EMOTIONS:
        said = {grammar.disagreement(emotion, rng) for _ in range(200)}
        assert len(said) > 100
        assert not [text for text in said if re.search(rf"\b({'|'.join(KINDS)})\b", text)]


def test_something_else_names_motifs_and_no_feeling() -> None:
    rng = np.random.default_rng(0)
    adjectives = {word for feeling in FEELINGS.values() for word in feeling.adjectives}
    for _ in range(300):
        motifs = tuple(motif(str(kind), rng) for kind in rng.choice(list(KINDS), int(rng.integers(1, 5))))
        text = grammar.something_else(Scene(np.zeros((1, 1, 3), np.uint8), "", "", "", motifs), rng)
        assert any(found.kind in text for found in motifs)
        assert not adjectives & set(text.split())


def bag(texts: list[str], vocabulary: dict[str, int]) -> np.ndarray:
    counts = np.zeros((len(texts), len(vocabulary)))
    for row, text in enumerate(texts):
        for word in text.split():
            if word in vocabulary:
                counts[row, vocabulary[word]] += 1
    return counts


def naive_bayes_accuracy(train: list[tuple[str, int]], test: list[tuple[str, int]]) -> float:
    """Multinomial naive Bayes over words: the plainest text-to-emotion classifier."""
    vocabulary = {word: i for i, word in enumerate(sorted({w for text, _ in train for w in text.split()}))}
    counts, labels = bag([text for text, _ in train], vocabulary), np.array([label for _, label in train])
    totals = np.stack([counts[labels == label].sum(axis=0) + 1 for label in range(labels.max() + 1)])
    scores = bag([text for text, _ in test], vocabulary) @ np.log(totals / totals.sum(1, keepdims=True)).T
    return float((scores.argmax(1) == [label for _, label in test]).mean())


def test_a_classifier_tells_the_emotions_apart_by_the_feeling_and_not_only_by_the_motif() -> None:
    def labelled(seed: int) -> list[tuple[Motif, str, int]]:
        return [(*pair, i) for i, emotion in enumerate(EMOTIONS) for pair in sentences(emotion, 250, seed)]

    def without_motif(found: Motif, text: str) -> str:
        return " ".join(w for w in text.replace(found.kind, "thing").split() if w not in LOOK_WORDS)

    train, test = labelled(3), labelled(4)
    assert naive_bayes_accuracy([r[1:] for r in train], [r[1:] for r in test]) > 0.9
    bare = [[(without_motif(m, text), label) for m, text, label in rows] for rows in (train, test)]
    assert naive_bayes_accuracy(*bare) > 0.9
