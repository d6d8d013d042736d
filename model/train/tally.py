"""Which artworks a model was trained on, and why others were not, for the table that ends the step."""

from collections.abc import Mapping
from typing import Any

from pipeline.common.params import Paths
from pipeline.common.tally import Tally
from pipeline.reader.tally import tally_index


def tally_training(paths: Paths, counts: Mapping[str, Any]) -> list[Tally]:
    """Artworks of the train split, and the samples they make. A streamed index has no artworks here."""
    samples = Tally("training samples", counts["train_samples"], {})
    there = (paths.step("shards") / "index.parquet").is_file()
    return [tally_index(paths, "train"), samples] if there else [samples]
