"""The only contract between steps: keys, shard numbers, Arrow schemas and member names."""

import hashlib

import pyarrow as pa

UTTERANCES = pa.schema(
    [
        ("key", pa.string()),
        ("artemis_id", pa.int64()),  # row of the ArtEmis csv, 0-based
        ("emotion", pa.string()),
        ("utterance", pa.string()),
        ("repetition", pa.int32()),
        ("split", pa.string()),  # train | val | test | rest
    ]
)

ARTWORKS = pa.schema(
    [
        ("key", pa.string()),
        ("art_style", pa.string()),
        ("painting", pa.string()),
        ("path", pa.string()),  # relative to paths.wikiart
        ("width", pa.int32()),  # pixels of the upright picture
        ("height", pa.int32()),
        ("split", pa.string()),
        ("shard", pa.int32()),
        ("sha256", pa.string()),  # of the picture's file; null where its bytes were not read
        ("phash", pa.string()),  # `perceptual_hash` of the upright picture; null where it was not decoded
    ]
)

DOUBLES = pa.schema(
    [
        ("key", pa.string()),  # of the artwork that is kept
        ("source", pa.string()),  # ART_STYLE/PAINTING as in the csv
        ("reason", pa.string()),  # spelling | same-bytes
        ("detail", pa.string()),
    ]
)

REJECTS = pa.schema(
    [
        ("source", pa.string()),
        ("row", pa.int64()),  # row of the csv, or -1 for a file
        ("reason", pa.string()),
        ("detail", pa.string()),
    ]
)

REGIONS = pa.schema(
    [
        ("key", pa.string()),
        ("boxes", pa.list_(pa.list_(pa.float32()))),  # xyxy, pixels of the upright original
        ("scores", pa.list_(pa.float32())),
        ("labels", pa.list_(pa.string())),
        ("attributes", pa.list_(pa.list_(pa.string()))),  # null where the source has none
        ("masks", pa.list_(pa.string())),  # COCO RLE as JSON, null where regions are boxes
        ("source", pa.string()),
    ]
)

SIMILARITY = pa.schema(
    [
        ("key", pa.string()),
        ("emotion", pa.string()),
        ("artemis_ids", pa.list_(pa.int64())),
        ("scores", pa.list_(pa.float32())),  # one per region, in REGIONS' order
        (
            "own_rank",
            pa.float32(),
        ),  # share of other artworks that the utterances fit less well
    ]
)

MEMBER = pa.struct(
    [
        ("file", pa.string()),  # "features" | "masks": the folder whose tar of this shard holds it
        ("name", pa.string()),  # the member without its key: "sam.npy", "awe.png", "json"
        ("offset", pa.int64()),  # of the first data byte in the tar
        ("size", pa.int64()),
    ]
)

INDEX = pa.schema(
    [
        ("key", pa.string()),
        ("shard", pa.int32()),
        ("split", pa.string()),
        ("emotions", pa.list_(pa.string())),
        ("utterance_counts", pa.list_(pa.int32())),  # one per emotion
        ("members", pa.list_(MEMBER)),
        ("sha256", pa.string()),  # over the members' bytes, in the order of `members`
    ]
)

LABELS = pa.schema(
    [
        ("key", pa.string()),
        ("emotion", pa.string()),
        ("split", pa.string()),
        ("shard", pa.int32()),
        ("art_style", pa.string()),
        ("utterances", pa.int32()),
        ("area", pa.float64()),  # share of the artwork above the protocol's threshold
        ("mean", pa.float64()),  # of the mask, in [0, 1]
        ("agreement", pa.float64()),  # correlation of the mask with what its recipe makes of the tables
        ("twin", pa.float64()),  # largest correlation with the mask of another emotion of the artwork
        ("twin_emotion", pa.string()),
        ("regions", pa.int32()),
        ("contrast", pa.float64()),  # cosine of the best region less the mean over the regions
        ("entropy", pa.float64()),  # of the non-negative cosines as shares, over log(regions): 1 is flat
        ("best_region", pa.string()),  # name of the most similar region, where its detector names them
        ("own_rank", pa.float64()),  # of SIMILARITY
    ]
)

PREDICTIONS = pa.schema(
    [
        ("method", pa.string()),
        ("key", pa.string()),
        ("painting", pa.string()),
        ("split", pa.string()),  # APOLO's: val | test
        ("item_emotion", pa.string()),
        ("asked_emotion", pa.string()),
        ("explanation", pa.string()),
        ("seed", pa.int64()),
    ]
)


def artwork_key(art_style: str, painting: str) -> str:
    """First 16 hex digits of SHA-256 of ``art_style/painting`` (UTF-8).

    WikiArt titles hold dots, accents and mojibake, which break tar member names; keys never do.
    """
    return hashlib.sha256(f"{art_style}/{painting}".encode()).hexdigest()[:16]


def shard_of(key: str, num_shards: int) -> int:
    """Shard number of a key: its leading 32 bits scaled to `num_shards`.

    A function of the key alone, so a grown dataset touches only the shards that its new artworks fall in.
    """
    return (int(key[:8], 16) * num_shards) >> 32


def shard_stem(shard: int) -> str:
    """File stem of a shard: six digits, so that names sort like numbers."""
    return f"{shard:06d}"


def map_name(method: str, item_emotion: str) -> str:
    """Member extension of a predicted map in ``data/predict/VARIANT/maps.tar``."""
    return f"{method.replace(':', '-')}__{item_emotion}.npy"
