"""Sentences as the words that an emotion classifier was taught.

``plain`` is for classifiers trained here. ``artemis`` follows ArtEmis's preparation (Achlioptas et al. 2021,
their script ``preprocess_artemis_data``) rule by rule: lower case, quotes around single words dropped,
contractions spelled out, punctuation to spaces, then the Treebank's words. Its spelling correction needs
GloVe's word list and is left out.
"""

import re
from collections.abc import Callable
from typing import Literal

Tokens = Literal["plain", "artemis"]

_TYPOGRAPHIC = str.maketrans({"’": "'", "‘": "'", "`": "'", "“": '"', "”": '"'})
_WHOLE = (("can't", "can not"), ("won't", "will not"), ("shan't", "shall not"), ("let's", "let us"))
_CLITIC = re.compile(r"(?<=\w)'(s|re|ve|ll|d|m)\b")
_WORD = re.compile(r"'(?:s|re|ve|ll|d|m)\b|\w+")

_QUOTED = re.compile(r"['\"](\w+)['\"]")
_PUNCTUATION = str.maketrans(dict.fromkeys(r".?!,:;/\-~*_=[–]{}$^@|%#<—>", " "))
_SPELLED = (
    (re.compile(r"\b(?:can't|cannot)\b"), "can not"),
    (re.compile(r"\b(wo|sha)n't\b"), lambda m: {"wo": "will", "sha": "shall"}[m[1]] + " not"),
    (re.compile(r"\bain't\b"), "am not"),
    (re.compile(r"\blet's\b"), "let us"),
    (re.compile(r"n't\b"), " not"),
    (re.compile(r"\b(he|how|it|she|so|that|there|what|when|where|who|why)'s\b"), r"\1 is"),
    (re.compile(r"\b(how|where)'d\b"), r"\1 did"),
    (re.compile(r"\b(he|i|it|she|that|there|they|we|you)'d\b"), r"\1 had"),
    (re.compile(r"\bi'm\b"), "i am"),
    (re.compile(r"(?<=\w)'re\b"), " are"),
    (re.compile(r"(?<=\w)'ve\b"), " have"),
    (re.compile(r"(?<=\w)'ll\b"), " will"),
    (re.compile(r"\b(gon|wan)na\b"), r"\1 na"),
    (re.compile(r"\bo'clock\b"), "of the clock"),
    (re.compile(r"\bma'am\b"), "madam"),
    (re.compile(r"\by'all\b"), "you all"),
)
_OPENING = re.compile(r'(?<![^\s(])"')
_TREEBANK = re.compile(r"``|''|'(?:s|d|m)\b|\w+(?:'(?!(?:s|d|m)\b)\w+)*|[()&+']")


def plain_words(sentence: str) -> list[str]:
    """Lower-case words of a sentence: punctuation dropped, n't spelled out, 's and 're words of their own."""
    text = sentence.translate(_TYPOGRAPHIC).lower()
    for contraction, spelled in _WHOLE:
        text = text.replace(contraction, spelled)
    text = text.replace("n't", " not").replace("_", " ")
    return _WORD.findall(_CLITIC.sub(r" '\1", text))


def artemis_words(sentence: str) -> list[str]:
    """Words as ArtEmis's preparation leaves them, but for spelling: "It's the dog's" -> it is the dog 's."""
    text = _QUOTED.sub(r" \1 ", sentence.translate(_TYPOGRAPHIC).lower())
    for pattern, spelled in _SPELLED:
        text = pattern.sub(spelled, text)
    text = _OPENING.sub(" `` ", text.translate(_PUNCTUATION)).replace('"', " '' ")
    return _TREEBANK.findall(text)


TOKENISERS: dict[Tokens, Callable[[str], list[str]]] = {"plain": plain_words, "artemis": artemis_words}
