"""The section `similarity`; read without torch."""

from typing import Annotated, Literal

import pydantic
from pydantic import Field

from pipeline.common.params import STRICT


@pydantic.dataclasses.dataclass(frozen=True, config=STRICT)
class SimilarityParams:
    """Region-utterance similarity."""

    utterances: Literal["average", "concatenate"] = "average"
    """Several utterances of one (artwork, emotion): average their cosines, or encode them as one text in the
    order of the csv, as WESD's data joins them. The paper does not say."""
    regions: Literal["crop", "pool"] = "crop"
    """What CLIP sees of a region: its crop (the paper's), or the whole artwork once, its patch tokens pooled
    under each region (RoIAlign): one encoding an artwork; on the gallery Seg Pr@25 falls from 69 to 18."""
    fit: Literal["center", "squash"] = "squash"
    """How a crop becomes CLIP's square: `squash` keeps all of it; `center` is CLIP's own preprocessing,
    which cuts the ends off long regions. The paper does not say; on the gallery they tie."""
    peers: Annotated[int, Field(ge=0)] = 64
    """Artworks of the shard, the first by key, beside which an artwork's utterances are asked to find its own
    regions: `own_rank` of the table, which shard-stats shows. 0: not asked. Masks do not depend on it."""
    batch: Annotated[int, Field(gt=0)] = 256
    """Crops (or pooled artworks) encoded at once; batches of crops run across artworks. Changes speed, and
    results by float noise only."""
