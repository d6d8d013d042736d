"""What the gallery's annotators say: short, informal sentences about one motif and the feeling it leaves.

Modelled on ArtEmis: lower case, first person, 8 to 22 words, a named thing, its look, and a reason. The
constructions are shared by all emotions and the feeling words are not, so that a classifier can tell the
emotions apart by what is said and not by how long or in which order it is said.
"""

from collections.abc import Sequence

import numpy as np

from pipeline.gallery.words.lexicon import DETAILS, FEELINGS, Feeling
from pipeline.gallery.world import KINDS, Look, Motif, Scene

_LOOKS: tuple[tuple[str, ...], ...] = (
    ("size", "state", "colour"),
    ("state", "colour"),
    ("state", "colour"),
    ("size", "colour"),
    ("colour",),
    ("state",),
)
"""Which parts of the look a speaker names; at least one, so that two motifs of a kind can be told apart."""

_PRONOUNS = {"jester": "he", "rider": "he", "soldier": "he"}

_SENTENCES: tuple[str, ...] = (
    "{the} {looks} {very} {adj} and {makes} me {react}",
    "i feel {feel} because {the} {looks} {very} {adj}",
    "{the} {detail} and it makes me feel {feel}",
    "{the} {detail} which makes me want to {wish}",
    "{these} {reminds} me of {like} and i feel {feel}",
    "there is something {adj} about {the} that makes me {react}",
    "looking at {the} i feel {feel} and i want to {wish}",
    "the way {the} {detail} is {very} {adj}",
    "{the} {makes} me {react} because {it} {detail}",
    "{these} {is} {very} {adj} and i can not help but {react}",
    "{a} like this {makes} me feel {feel} because {it} {detail}",
    "it is {very} {adj} how {the} {detail}",
    "{the} {is} so {adj} that i want to {wish}",
    "my eye goes to {the} and i feel {feel} at once",
    "{the} in this painting {is} like {like} and {makes} me {react}",
    "when i see {the} i want to {wish} because {it} {looks} {adj}",
    "i see {a} that {detail} and i feel {feel}",
    "the artist painted {a} that {looks} {adj} like {like}",
)

_GENERIC: tuple[str, ...] = (
    "the {thing} of this painting makes me feel {feel}",
    "there is something {adj} about the {thing} here that makes me {react}",
    "i can not say why but the whole picture feels {very} {adj} to me",
    "the {thing} reminds me of {like} and i feel {feel}",
    "the {thing} here is {very} {adj} and i want to {wish}",
    "overall the {thing} makes me {react} and i feel {feel}",
    "everything in this picture is {adj} and it reminds me of {like}",
    "i look at the {thing} and i feel {feel} and want to {wish}",
)
_THINGS = ("light", "colouring", "brushwork", "mood", "paintwork", "background", "composition", "drawing")

_ELSE: tuple[str, ...] = (
    "i wonder what {the} {is} doing in the middle of this painting",
    "i am confused by {the} and do not know what to think",
    "i am not sure what {the} {is} supposed to mean here",
    "{the} {makes} me curious about the story behind the picture",
    "i do not feel much about it, there {is} just {a} next to {other}",
    "the composition is interesting but {the} {leaves} me indifferent",
    "it makes me think about how the artist mixed the paint for {the}",
    "nothing here moves me much, i only noticed {the} and {other}",
    "i am puzzled why {a} would be painted beside {other}",
    "i can not decide how i feel, {the} could mean many things",
    "{the} {makes} me think of a book i once read in school",
    "i feel neutral, it is an ordinary picture of {a} and {other}",
    "i keep asking myself who put {the} there and for what reason",
    "it leaves me with mixed feelings, i see {a} but no clear message",
)

_VERY = ("", "very", "really", "so", "quite", "rather")


_ONE = {
    "is": "is",
    "looks": "looks",
    "makes": "makes",
    "reminds": "reminds",
    "leaves": "leaves",
    "it": "it",
    "these": "this",
}
_MANY = {
    "is": "are",
    "looks": "look",
    "makes": "make",
    "reminds": "remind",
    "leaves": "leave",
    "it": "they",
    "these": "these",
}
"""Slots that must agree with the motif: one thing, or several."""


def _pick(options: Sequence[str], rng: np.random.Generator) -> str:
    """One of the options; much faster than `Generator.choice` on a list of strings."""
    return options[int(rng.integers(len(options)))]


def noun_phrase(kind: str, look: Look, rng: np.random.Generator) -> str:
    """A motif in words, with some parts of its look: "a small crooked house", "bursting red fireworks".

    Raises `KeyError` for a kind that the world does not hold.
    """
    return KINDS[kind].phrase(look, _LOOKS[int(rng.integers(len(_LOOKS)))])


def _agreement(kind: str) -> dict[str, str]:
    """Verb and pronoun slots for a kind; a couple takes plural verbs and "this", as in speech."""
    if KINDS[kind].plural:
        return _MANY
    if kind == "embracing couple":
        return _MANY | {"these": "this"}
    return _ONE | {"it": _PRONOUNS.get(kind, "it")}


def _feeling_slots(feeling: Feeling, rng: np.random.Generator) -> dict[str, str]:
    """Random words of one emotion for the slots that name a feeling."""
    return {
        "adj": _pick(feeling.adjectives, rng),
        "feel": _pick(feeling.feels, rng),
        "react": _pick(feeling.reactions, rng),
        "wish": _pick(feeling.wishes, rng),
        "like": _pick(feeling.likenesses, rng),
        "very": _pick(_VERY, rng),
    }


def _motif_slots(motif: Motif, rng: np.random.Generator) -> dict[str, str]:
    """The motif in words, and the verbs that agree with it; one look for all of a sentence."""
    verbs = _agreement(motif.kind)
    phrase = noun_phrase(motif.kind, motif.look, rng)
    bare = phrase if KINDS[motif.kind].plural else phrase.split(" ", 1)[1]  # without its article
    return verbs | {"a": phrase, "the": f"the {bare}", "these": f"{verbs['these']} {bare}"}


def _say(sentence: str, slots: dict[str, str]) -> str:
    """Fill a sentence; an empty word leaves no double space."""
    return " ".join(sentence.format_map(slots).split())


def utterance(motif: Motif, emotion: str, rng: np.random.Generator) -> str:
    """What somebody says who feels `emotion` because of `motif`; names the motif, its look and the feeling.

    Raises `KeyError` for an emotion that has no mask, or that the motif does not evoke.
    """
    slots = _motif_slots(motif, rng) | _feeling_slots(FEELINGS[emotion], rng)
    slots["detail"] = _pick(DETAILS[motif.kind, emotion], rng)
    return _say(_pick(_SENTENCES, rng), slots)


def disagreement(emotion: str, rng: np.random.Generator) -> str:
    """What somebody says who feels what nothing in the picture evokes: about the whole, naming no motif."""
    slots = _feeling_slots(FEELINGS[emotion], rng)
    slots["thing"] = _pick(_THINGS, rng)
    return _say(_pick(_GENERIC, rng), slots)


def something_else(scene: Scene, rng: np.random.Generator) -> str:
    """What somebody says who feels none of the eight emotions, about two motifs of the scene."""
    first, second = rng.permutation(len(scene.motifs))[:2] if len(scene.motifs) > 1 else (0, 0)
    slots = _motif_slots(scene.motifs[first], rng)
    other = scene.motifs[second]
    slots["other"] = noun_phrase(other.kind, other.look, rng)
    return _say(_pick(_ELSE, rng), slots)
