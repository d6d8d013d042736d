"""Params of the step `utterances`."""

from typing import Annotated, Literal

import pydantic
from pydantic import Field

from pipeline.common.params import STRICT
from pipeline.releases.source import Source
from pipeline.releases.wikiart import MAX_PIXELS, PILLOW_CEILING


@pydantic.dataclasses.dataclass(frozen=True, config=STRICT)
class UtterancesParams(Source):
    """How the csv is read (`Source`), what counts as a usable row and picture, how artworks are split and
    sharded."""

    num_shards: Annotated[int, Field(gt=0, le=100_000)] = 8
    """Shards of later steps. SAM's embeddings decide: 2 MiB an artwork; 256-512 MiB a shard is handy."""
    max_chars: Annotated[int, Field(gt=0)] = 2000
    """Longer utterances are rejected."""
    max_pixels: Annotated[int, Field(gt=0, le=PILLOW_CEILING)] = MAX_PIXELS
    """Pictures with more pixels are rejected, from their header."""
    min_side: Annotated[int, Field(gt=0)] = 16
    """Pictures with a shorter side, in pixels, are rejected: nothing can be seen in them."""
    max_aspect: Annotated[float, Field(gt=1)] = 32.0
    """Pictures with a larger ratio of long to short side are rejected: a line in SAM's frame."""
    verify: Literal["decode", "header"] = "decode"
    """Decode every picture, which finds damaged and equal files now, and hash it, which tells later steps
    when it changed; or trust the headers (later steps find damage, and see a change only where it changes
    the file's size)."""
    fractions: tuple[float, float, float] = (0.85, 0.05, 0.10)
    """Train, val and test share of the artworks where APOLO has no index files. ArtEmis's default; the
    paper's "85/5/15" sums to 105 %."""
    split_seed: Annotated[int, Field(ge=0, lt=2**32)] = 2021
    """Of that split; ArtEmis's."""
    rest_repetition: Annotated[int, Field(ge=0)] = 41
    """Without index files, artworks with this many annotations or more go to split "rest", as in ArtEmis's
    preprocessing for neural speakers (701 of them were annotated to study coverage); 0 for none."""

    def __post_init__(self) -> None:
        """Refuse shares that are no partition, and what `Source` refuses."""
        super().__post_init__()
        if min(self.fractions) < 0 or abs(sum(self.fractions) - 1) > 1e-9:
            raise ValueError(f"fractions {self.fractions} must be three shares that sum to 1")
