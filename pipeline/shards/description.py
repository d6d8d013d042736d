"""What the dataset's cards say of it as a whole: the words of the params, or those that its sources allow."""

from dataclasses import dataclass
from typing import Protocol

from pipeline.releases.gallery_mark import Marks, drawn_text

GALLERY = {
    "name": "emosem-gallery",
    "description": "Frozen SAM and CLIP features and pseudo emotion masks of drawn scenes, "
    "a stand-in for ArtEmis, WikiArt and APOLO in their released layouts.",
    "url": "https://www.artemisdataset.org/",
    "license": "https://spdx.org/licenses/CC0-1.0.html",
}
"""Of the built-in gallery, which is this repository's own."""
NOT_DESCRIBED = "not described (section shards of the params)"
OTHERS = {
    "name": "emosem-shards",
    "description": "Frozen SAM and CLIP features and pseudo emotion masks of artworks; which these are is "
    + NOT_DESCRIBED
    + ".",
    "url": "https://www.artemisdataset.org/",
    "license": NOT_DESCRIBED,
}
"""Of data that nobody described."""


class Words(Protocol):
    """What the params say; `ShardsParams` is one."""

    @property
    def name(self) -> str | None: ...
    @property
    def description(self) -> str | None: ...
    @property
    def url(self) -> str | None: ...
    @property
    def license(self) -> str | None: ...
    @property
    def version(self) -> str: ...
    @property
    def citation(self) -> str: ...
    @property
    def date_published(self) -> str: ...


@dataclass(frozen=True)
class DatasetDescription:
    """The words on the cards."""

    name: str
    description: str
    url: str
    license: str
    version: str
    citation: str
    date_published: str


def describe(params: Words, drawn: Marks) -> DatasetDescription:
    """The words on the cards: the params', where they give any, and what is drawn, whatever they say.

    `drawn`: see `gallery_mark.noted_sources`. Pictures and utterances decide: labels are in no shard.
    """
    whole = {"artemis", "wikiart"} <= drawn.keys()
    usual = GALLERY if whole else OTHERS
    name = usual["name"] if params.name == GALLERY["name"] else params.name or usual["name"]
    description = params.description or usual["description"]
    shown = {source: mark for source, mark in drawn.items() if source != "apolo"}
    return DatasetDescription(
        name=name,
        description=f"{description} {drawn_text(shown)}".strip(),
        url=params.url or usual["url"],
        license=params.license or usual["license"],
        version=params.version,
        citation=params.citation,
        date_published=params.date_published,
    )
