"""The grammar read backwards: motifs in sentences of the gallery, of people, and of nobody in particular."""

import itertools
import re

import pytest

from model.score.motifs.words import SIZES, NamedMotif, named_motifs
from pipeline.gallery.words import grammar
from pipeline.gallery.words.lexicon import DETAILS, FEELINGS
from pipeline.gallery.world import KINDS, Look


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("the grey monkey is so silly that i want to laugh along", [("monkey", ("grey",))]),
        ("A large, crooked red HOUSE!", [("house", ("large", "crooked", "red"))]),  # commas, capitals
        ("these fireworks remind me of a festival", [("fireworks", ())]),
        ("one firework and two cats", [("fireworks", ()), ("cat", ())]),
        ("geese and wolves under a storm cloud", [("goose", ()), ("wolf", ()), ("storm cloud", ())]),
        ("a white cloud and a grey storm cloud", [("cloud", ("white",)), ("storm cloud", ("grey",))]),
        ("the leaping jester in green acts like a clown", [("jester", ("leaping", "green"))]),
        ("a laden feast table under a blue cloth", [("feast table", ("laden", "blue"))]),
        ("the galloping rider on a brown horse", [("rider", ("galloping", "brown"))]),
        ("a twin-spired golden cathedral", [("cathedral", ("twin-spired", "golden"))]),
        ("the mouldy apple makes me gag", [("rotten apple", ("mouldy",))]),  # the kind's last word alone
        ("the dancing couple in blue", [("embracing couple", ("dancing", "blue"))]),
        ("the tall tower burns", [("burning tower", ("tall",))]),
        ("the house, the house", [("house", ()), ("house", ())]),
        ("a category of ruins is bullish about rats' catharsis", [("ruin", ()), ("rat", ())]),  # whole words
        ("this towering mountain feels majestic", []),  # half a name is none
        ("rotten teeth and empty eyes", []),
        ("", []),
        ("<b>cat</b> & naïve größe 12 cats", [("cat", ()), ("cat", ())]),
    ],
)
def test_what_people_may_write(text: str, wanted: list[tuple[str, tuple[str, ...]]]) -> None:
    assert named_motifs(text) == [NamedMotif(kind, look) for kind, look in wanted]


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_is_known_in_every_look(kind: str) -> None:
    row = KINDS[kind]
    parts = [words for n in range(4) for words in itertools.combinations(("size", "state", "colour"), n)]
    for colour, state, size in itertools.product(row.colours, row.states, ["", *sorted(SIZES)]):
        for words in parts:
            phrase = row.phrase(Look(colour, state, size), words)
            said = {"size": size, "state": state, "colour": colour}
            (found,) = named_motifs(f"I feel something because of {phrase} there")
            assert found.kind == kind
            assert found.look == tuple(said[word] for word in words if said[word]), phrase


def test_no_other_words_of_the_grammar_name_a_motif() -> None:
    """What an annotator says beside the motif's name: feelings, details, and the sentences they stand in."""
    texts = [text for clauses in DETAILS.values() for text in clauses]
    for feeling in FEELINGS.values():
        texts += [*feeling.adjectives, *feeling.feels, *feeling.reactions, *feeling.wishes]
        texts += feeling.likenesses
    sentences = (*grammar._SENTENCES, *grammar._GENERIC, *grammar._ELSE)
    texts += [re.sub(r"\{\w+\}", " so ", sentence) for sentence in sentences]
    assert len(texts) > 400
    assert {text: found for text in texts if (found := named_motifs(text))} == {}
