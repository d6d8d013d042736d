"""What the gallery's world holds: the kinds of motif, the emotions they evoke, the looks they can have.

This table is the ground truth of the built-in data: the painter (`scenes`), the grammar (`grammar`) and the
tests read it, and nothing else says which motif leaves which feeling.
"""

from dataclasses import dataclass, field
from typing import Annotated, Literal

import numpy as np
import numpy.typing as npt
import pydantic
from pydantic import Field

from pipeline.common.emotions import EMOTIONS
from pipeline.common.params import STRICT

Place = Literal["sky", "far", "water", "ground"]
"""Where a kind belongs: in the air, standing at the horizon, afloat, or on the ground."""

COLOURS: dict[str, tuple[int, int, int]] = {
    "white": (240, 238, 230),
    "black": (44, 42, 48),
    "grey": (138, 140, 144),
    "brown": (134, 88, 48),
    "red": (204, 40, 36),
    "orange": (238, 128, 30),
    "golden": (238, 186, 52),
    "yellow": (246, 220, 64),
    "green": (62, 146, 62),
    "turquoise": (54, 184, 180),
    "blue": (48, 92, 190),
    "purple": (124, 66, 162),
    "pink": (238, 134, 170),
}
"""Colour word -> RGB 0..255 of the paint, before light and style."""


@dataclass(frozen=True)
class Look:
    """How one motif was drawn, in words; every word holds for the drawing."""

    colour: str
    """A key of `COLOURS`: the colour of the motif's main part."""
    state: str
    """One of its kind's states, such as "crooked" or "howling"."""
    size: str
    """"small", "large", or "" for the sizes between."""


@dataclass(frozen=True)
class Kind:
    """One row of the table."""

    name: str
    """The kind, and the noun for it."""
    emotions: tuple[str, ...]
    """What it evokes; empty for a neutral kind."""
    colours: tuple[str, ...]
    states: tuple[str, ...]
    """Adjectives that the drawing honours."""
    place: Place = "ground"
    plural: bool = False
    """Whether the noun takes no article ("fireworks")."""
    coloured: str = "{colour} {noun}"
    """How the colour joins the noun: "{noun} in {colour}" for people's clothes."""

    def phrase(self, look: Look, words: tuple[str, ...] = ("size", "state", "colour")) -> str:
        """A noun phrase with an article from the named parts of the look: "a large crooked red house"."""
        noun = self.coloured.format(colour=look.colour, noun=self.name) if "colour" in words else self.name
        front = [getattr(look, part) for part in ("size", "state") if part in words]
        text = " ".join([*(word for word in front if word), noun])
        if self.plural:
            return text
        return f"{'an' if text[0] in 'aeiou' else 'a'} {text}"


_IN = "{noun} in {colour}"

# fmt: off
_TABLE: tuple[Kind, ...] = (
    Kind("jester", ("amusement",), ("red", "green", "purple", "orange", "blue"),
         ("juggling", "laughing", "leaping"), coloured=_IN),
    Kind("dancing bear", ("amusement",), ("brown", "white", "black"), ("chubby", "hatted", "waving")),
    Kind("monkey", ("amusement",), ("brown", "orange", "grey"), ("grinning", "hatted", "tumbling")),
    Kind("goose", ("amusement",), ("white", "grey", "pink"), ("hatted", "honking", "waddling")),
    Kind("mountain peak", ("awe",), ("blue", "grey", "purple"), ("jagged", "snowy", "twin"), place="far"),
    Kind("cathedral", ("awe",), ("golden", "grey", "white", "pink"), ("domed", "towering", "twin-spired"),
         place="far"),
    Kind("waterfall", ("awe",), ("white", "blue", "turquoise"), ("rainbow-lit", "slender", "thundering"),
         place="far"),
    Kind("comet", ("awe",), ("golden", "white", "turquoise"), ("blazing", "double-tailed", "long-tailed"),
         place="sky"),
    Kind("house", ("contentment",), ("red", "yellow", "blue", "white", "orange", "pink"),
         ("crooked", "snug", "tall")),
    Kind("feast table", ("contentment",), ("white", "red", "blue", "yellow"),
         ("candlelit", "flowered", "laden"), coloured="{noun} under a {colour} cloth"),
    Kind("cat", ("contentment",), ("orange", "grey", "black", "white"), ("sitting", "sleeping", "striped")),
    Kind("embracing couple", ("contentment",), ("blue", "green", "red", "purple"),
         ("dancing", "kissing", "seated"), coloured=_IN),
    Kind("fireworks", ("excitement",), ("red", "golden", "green", "pink"),
         ("bursting", "showering", "sparkling"), place="sky", plural=True),
    Kind("rider", ("excitement",), ("brown", "white", "black"), ("banner-waving", "galloping", "leaping"),
         coloured="{noun} on a {colour} horse"),
    Kind("sailboat", ("excitement",), ("red", "white", "yellow", "blue"), ("racing", "striped", "two-masted"),
         place="water"),
    Kind("balloon", ("excitement",), ("red", "yellow", "green", "blue", "purple", "pink"),
         ("chequered", "plain", "striped"), place="sky"),
    Kind("carousel", ("excitement",), ("red", "blue", "purple", "green"), ("flagged", "lamp-lit", "striped")),
    Kind("soldier", ("anger",), ("red", "blue", "green"), ("charging", "shielded", "shouting"), coloured=_IN),
    Kind("fist", ("anger",), ("red", "brown", "grey"), ("chained", "clenched", "torch-bearing")),
    Kind("bull", ("anger",), ("black", "brown", "red"), ("charging", "pawing", "snorting")),
    Kind("burning tower", ("anger", "fear"), ("grey", "brown", "golden"), ("leaning", "smoking", "tall")),
    Kind("rat", ("disgust",), ("grey", "brown", "black"), ("fat", "gnawing", "mangy")),
    Kind("rotten apple", ("disgust",), ("brown", "green", "red"), ("bitten", "mouldy", "wormy")),
    Kind("slime", ("disgust",), ("green", "yellow", "purple"), ("bubbling", "dripping", "staring")),
    Kind("fish skeleton", ("disgust",), ("white", "yellow", "grey"), ("broken", "fly-ridden", "stinking")),
    Kind("snake", ("fear",), ("green", "black", "red", "yellow"), ("coiled", "striking", "striped")),
    Kind("storm cloud", ("fear",), ("grey", "black", "purple"), ("flashing", "rain-heavy", "towering"),
         place="sky"),
    Kind("ghost", ("fear",), ("white", "blue", "green"), ("pointing", "ragged", "wailing")),
    Kind("wolf", ("fear",), ("grey", "black", "white"), ("howling", "prowling", "snarling")),
    Kind("spider", ("fear",), ("black", "brown", "red"), ("crouching", "dangling", "hairy")),
    Kind("skull", ("disgust", "fear"), ("white", "yellow", "grey"), ("cracked", "grinning", "horned")),
    Kind("gravestone", ("sadness",), ("grey", "white", "brown"), ("broken", "mossy", "tilted")),
    Kind("wilted flowers", ("sadness",), ("pink", "yellow", "purple", "red"),
         ("drooping", "fallen", "potted"), plural=True),
    Kind("lonely figure", ("sadness",), ("grey", "blue", "black"), ("hooded", "hunched", "kneeling"),
         coloured=_IN),
    Kind("empty chair", ("sadness",), ("brown", "blue", "white"), ("broken", "high-backed", "toppled")),
    Kind("ruin", ("awe", "sadness"), ("grey", "golden", "brown"), ("crumbling", "ivied", "roofless")),
    Kind("tree", (), ("green", "orange", "yellow"), ("leafy", "leaning", "round")),
    Kind("pine", (), ("green", "turquoise"), ("slim", "stout", "tall")),
    Kind("bush", (), ("green", "turquoise", "orange"), ("berried", "round", "wide")),
    Kind("rock", (), ("grey", "brown"), ("mossy", "round", "split")),
    Kind("cloud", (), ("white", "pink"), ("fluffy", "long", "round"), place="sky"),
    Kind("fence", (), ("brown", "white"), ("long", "low", "picket")),
    Kind("haystack", (), ("yellow", "golden"), ("pointed", "round", "wide")),
    Kind("well", (), ("grey", "brown"), ("bucketed", "roofed", "round")),
    Kind("signpost", (), ("brown", "white"), ("crooked", "double", "plain")),
    Kind("barrel", (), ("brown", "green", "red"), ("standing", "stout", "tapped")),
)
# fmt: on

KINDS: dict[str, Kind] = {kind.name: kind for kind in _TABLE}
"""Every kind by its name, evoking ones first."""

EVOKES: dict[str, tuple[str, ...]] = {kind.name: kind.emotions for kind in _TABLE}
"""Kind -> the emotions it evokes (of `EMOTIONS`); an empty tuple for neutral kinds."""

NEUTRAL: tuple[str, ...] = tuple(kind.name for kind in _TABLE if not kind.emotions)

KINDS_OF: dict[str, tuple[str, ...]] = {
    emotion: tuple(kind.name for kind in _TABLE if emotion in kind.emotions) for emotion in EMOTIONS
}
"""Emotion -> the kinds that evoke it."""

SCENERY: tuple[str, ...] = ("sky", "sun", "moon", "mountains", "hills", "ground", "path", "snow", "water")
"""Names that `Scene.scenery` can use; a scene has "sky" and some of the others. They evoke nothing."""


@dataclass(frozen=True)
class Motif:
    """One painted thing of a scene."""

    kind: str
    emotions: tuple[str, ...]
    """What it evokes; empty for neutral motifs."""
    phrase: str
    """What it looks like, truthfully: "a crooked red house"."""
    mask: npt.NDArray[np.bool_]
    """(H, W) bool: the pixels of it that can be seen. Masks of one scene's motifs are disjoint."""
    box: tuple[float, float, float, float]
    """Tight box of `mask`, pixels, x1 y1 x2 y2 with x2 and y2 exclusive."""
    look: Look
    """The words of which `phrase` uses some."""


@dataclass(frozen=True)
class Scene:
    """One artwork with everything known about it."""

    image: npt.NDArray[np.uint8]
    """(H, W, 3) uint8 RGB."""
    style: str
    """A WikiArt style name, such as "Post_Impressionism"."""
    title: str
    artist: str
    """Both lower case, words joined by "-", as WikiArt's file names have them: `artist_title.jpg`."""
    motifs: tuple[Motif, ...]
    """In the order painted, far to near."""
    scenery: dict[str, npt.NDArray[np.bool_]] = field(default_factory=dict)
    """Visible pixels (H, W) of the background's parts, by `SCENERY` name."""
    setting: str = ""
    """Light and weather in words: "a snowy night"."""


Share = Annotated[float, Field(ge=0, le=1)]


@pydantic.dataclasses.dataclass(frozen=True, config=STRICT)
class GalleryParams:
    """The built-in stand-in for ArtEmis, WikiArt and APOLO."""

    artworks: Annotated[int, Field(ge=0)] = 600
    """How many artworks to draw; 0: the stage draws none, for params of other data."""
    seed: Annotated[int, Field(ge=0)] = 7
    """Of the pictures and the words. The backbones are trained on seeds from 1,000,000 upwards."""
    shortest_side: Annotated[int, Field(ge=96)] = 320
    longest_side: Annotated[int, Field(ge=96, le=1000)] = 800
    """Bounds of a picture's sides, pixels; width / height stays within 0.6 to 1.7."""
    motif_sizes: tuple[float, float] = (0.26, 0.48)
    """Smallest and largest extent of an evoking motif, as a share of the picture's long side."""
    most_evoking: Annotated[int, Field(ge=2, le=5)] = 4
    """Evoking motifs per artwork: from 2 to this many."""
    most_neutral: Annotated[int, Field(ge=1, le=6)] = 3
    """Neutral motifs per artwork: from 1 to this many."""
    least_annotators: Annotated[int, Field(ge=1)] = 5
    most_annotators: Annotated[int, Field(ge=1)] = 7
    """Bounds of utterances per artwork (ArtEmis asks at least 5 people)."""
    something_else: Share = 0.1
    """Share of annotators who answer "something else" (11.6 % in ArtEmis)."""
    disagreement: Share = 0.08
    """Share of annotators who name an emotion that nothing in the picture evokes."""
    val_share: Share = 0.05
    test_share: Share = 0.15
    """Shares of the artworks that APOLO annotates; the others are for training."""
    box_jitter: Annotated[float, Field(ge=0, lt=0.5)] = 0.06
    """How far the edges of a motif's box move at random, at most, as a share of the box's side."""
    noise_boxes: Annotated[int, Field(ge=0)] = 6
    """Boxes of nothing in particular among each artwork's region proposals."""
    jpeg_quality: Annotated[int, Field(ge=50, le=95)] = 92

    def __post_init__(self) -> None:
        """Refuse bounds that are the wrong way round."""
        if self.longest_side < 1.7 * self.shortest_side:
            raise ValueError(
                f"longest_side {self.longest_side} must be at least 1.7 x shortest_side {self.shortest_side}"
            )
        low, high = self.motif_sizes
        if not 0.1 <= low <= high <= 0.6:
            raise ValueError(f"motif_sizes {self.motif_sizes} must be a range within 0.1 to 0.6")
        if self.most_annotators < self.least_annotators:
            raise ValueError(
                f"most_annotators {self.most_annotators} is less than "
                f"least_annotators {self.least_annotators}"
            )
        if self.something_else + self.disagreement > 1 or self.val_share + self.test_share > 1:
            raise ValueError("something_else + disagreement and val_share + test_share must not exceed 1")
