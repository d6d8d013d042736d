"""The dataset card of the shards, in the Croissant 1.0 format of MLCommons.

A loader that knows Croissant checks the tars' SHA-256, iterates over the index (record set ``artworks``) and
over the pseudo-masks as images (record set ``masks``). Paths are relative to the card. Nothing depends on
the clock, so the card is the same on every rerun.
"""

from typing import Any

from pipeline.common.schema import shard_stem
from pipeline.shards.description import DatasetDescription

CONTEXT: dict[str, Any] = {
    "@language": "en",
    "@vocab": "https://schema.org/",
    "cr": "http://mlcommons.org/croissant/",
    "dct": "http://purl.org/dc/terms/",
    "rai": "http://mlcommons.org/croissant/RAI/",
    "sc": "https://schema.org/",
    "conformsTo": "dct:conformsTo",
    "data": {"@id": "cr:data", "@type": "@json"},
    "dataType": {"@id": "cr:dataType", "@type": "@vocab"},
    "examples": {"@id": "cr:examples", "@type": "@json"},
} | {
    term: f"cr:{term}"
    for term in (
        *("citeAs", "column", "equivalentProperty", "extract", "field", "fileObject", "fileProperty"),
        *("fileSet", "format", "includes", "isLiveDataset", "jsonPath", "key", "md5", "parentField", "path"),
        *("recordSet", "references", "regex", "repeated", "replace", "samplingRate", "separator", "source"),
        *("subField", "transform"),
    )
}
"""The standard JSON-LD context of Croissant 1.0: which words are Croissant's, which schema.org's."""

INDEX_COLUMNS = (
    ("key", "sc:Text", False, "First 16 hex digits of SHA-256 of ART_STYLE/PAINTING."),
    ("shard", "sc:Integer", False, "Number of the features and masks tars that hold the artwork."),
    ("split", "sc:Text", False, "train, val, test or rest."),
    ("emotions", "sc:Text", True, "Emotions with a pseudo-mask, in the order of ArtEmis."),
    ("utterance_counts", "sc:Integer", True, "Utterances behind each mask, one number per emotion."),
    ("sha256", "sc:Text", False, "SHA-256 over the artwork's members in both tars."),
)
"""Columns of index.parquet on the card: name, type, whether a list, meaning."""


def croissant_card(dataset: DatasetDescription, statistics: dict[str, Any]) -> dict[str, Any]:
    """The card as JSON-LD, from the description and the statistics of step `shards`."""
    tars = [
        _file_object(f"{f}-{stem}", f"../{f}/{stem}.tar", "application/x-tar", entry[f])
        for f in ("features", "masks")
        for entry in statistics["shards"]
        for stem in [shard_stem(entry["shard"])]
    ]
    return {
        "@context": CONTEXT,
        "@type": "sc:Dataset",
        "conformsTo": "http://mlcommons.org/croissant/1.0",
        "name": dataset.name,
        "description": dataset.description,
        "url": dataset.url,
        "license": dataset.license,
        "version": dataset.version,
        "citeAs": dataset.citation,
        "datePublished": dataset.date_published,
        "distribution": [
            _file_object("index", "index.parquet", "application/x-parquet", statistics["index"]),
            *tars,
            _file_set("sam-features", "features", "*.sam.npy", "application/x-npy", statistics),
            _file_set("clip-features", "features", "*.clip.npy", "application/x-npy", statistics),
            _file_set("mask-images", "masks", "*.png", "image/png", statistics),
        ],
        "recordSet": [_artworks(), _masks()],
    }


def _file_object(name: str, url: str, encoding: str, content: dict[str, Any]) -> dict[str, Any]:
    return {
        "@type": "cr:FileObject",
        "@id": name,
        "name": name,
        "contentUrl": url,
        "contentSize": f"{content['bytes']} B",
        "encodingFormat": encoding,
        "sha256": content["sha256"],
    }


def _file_set(
    name: str, file: str, pattern: str, encoding: str, statistics: dict[str, Any]
) -> dict[str, Any]:
    """Members of every tar of one folder that match a pattern."""
    return {
        "@type": "cr:FileSet",
        "@id": name,
        "name": name,
        "containedIn": [{"@id": f"{file}-{shard_stem(shard['shard'])}"} for shard in statistics["shards"]],
        "encodingFormat": encoding,
        "includes": pattern,
    }


def _artworks() -> dict[str, Any]:
    return {
        "@type": "cr:RecordSet",
        "@id": "artworks",
        "name": "artworks",
        "description": "One row per artwork.",
        "key": {"@id": "artworks/key"},
        "field": [
            {
                "@type": "cr:Field",
                "@id": f"artworks/{name}",
                "name": name,
                "description": meaning,
                "dataType": kind,
                "source": {"fileObject": {"@id": "index"}, "extract": {"column": name}},
                **({"repeated": True} if repeated else {}),
            }
            for name, kind, repeated, meaning in INDEX_COLUMNS
        ],
    }


def _masks() -> dict[str, Any]:
    """Pseudo-masks as images; key and emotion are the two parts of the member's name."""

    def field(name: str, meaning: str, kind: str, wanted: str, pattern: str | None) -> dict[str, Any]:
        source: dict[str, Any] = {"fileSet": {"@id": "mask-images"}, "extract": {"fileProperty": wanted}}
        if pattern is not None:
            source["transform"] = {"regex": pattern}
        place = {"@type": "cr:Field", "@id": f"masks/{name}", "name": name}
        return {**place, "description": meaning, "dataType": kind, "source": source}

    return {
        "@type": "cr:RecordSet",
        "@id": "masks",
        "name": "masks",
        "description": "One 8-bit grey picture per artwork and emotion: how much each pixel evokes it.",
        "field": [
            field("key", "The artwork.", "sc:Text", "filename", r"^([0-9a-f]+)\."),
            field("emotion", "The emotion.", "sc:Text", "filename", r"^[0-9a-f]+\.([a-z]+)\.png$"),
            field("image", "255 where it is evoked most.", "sc:ImageObject", "content", None),
        ],
    }
