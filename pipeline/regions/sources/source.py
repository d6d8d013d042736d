"""Which source gives the regions: every source is a module of this package with a `SOURCE`.

A source turns rows of `schema.ARTWORKS` into `Found` or `Rejected`; everything after that (cutting to the
picture, artworks without boxes, counting, writing) is the same for all and lies in `region_row` and the step.
Sources are never mixed: an artwork that the chosen one does not know is a reject, because two detectors'
scores and habits in one data set would make artworks differ for no reason.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipeline.common.params import Paths
from pipeline.regions.region_row import Found, Rejected

if TYPE_CHECKING:
    from pipeline.backbones.params import BackbonesParams
    from pipeline.regions.params import RegionsParams

Artwork = dict[str, Any]
"""A row of `schema.ARTWORKS`."""
Answers = Iterator[tuple[Artwork, Found | Rejected]]


def picture_of(paths: Paths, artwork: Artwork) -> Path:
    """The artwork's picture: what a detector reads."""
    path: Path = paths.wikiart / artwork["path"]
    return path


def no_file(_paths: Paths, _artwork: Artwork) -> Path | None:
    """For sources that read one file for all artworks, which their identity covers."""
    return None


def no_counts(
    _works: Sequence[Artwork], _paths: Paths, _params: RegionsParams, _backbones: BackbonesParams
) -> dict[str, int]:
    """For sources that have nothing of their own to count."""
    return {}


@dataclass(frozen=True)
class RegionSource:
    """What a source must be able to do. Functions get the step's paths, params and backbones."""

    regions: Callable[[Sequence[Artwork], Paths, RegionsParams, BackbonesParams], Answers]
    """Yield every artwork, in the order given, with its regions or why it has none. Runs on workers; keep
    what is heavy (a network, an index) in an `lru_cache`, so that a worker loads it once."""
    identity: Callable[[Paths, RegionsParams, BackbonesParams], str]
    """Fingerprint of all that decides the result besides the artworks: the settings that this source reads,
    its weights or file, its code. Called once per run, before any shard; raises `UserError` early."""
    file_of: Callable[[Paths, Artwork], Path | None] = picture_of
    """The file that is read for one artwork; what it holds enters the fingerprint of its shard."""
    detects: bool = False
    """Whether it runs a network over the pictures, rather than reading what another program found."""
    counts: Callable[[Sequence[Artwork], Paths, RegionsParams, BackbonesParams], dict[str, int]] = no_counts
    """Further counts of a run over all artworks, for metrics/regions.json."""
