"""Scale: a step's memory and reading do not grow with the tables; the generator has ArtEmis's proportions."""

import csv
import json
import subprocess
import sys
from collections import Counter
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipeline.common import schema
from pipeline.common.emotions import EMOTIONS
from pipeline.common.params import Paths
from pipeline.common.tables import open_artworks, open_utterances, read_artworks, read_groups
from pipeline.parallel.input_digests import input_digests
from pipeline.utterances.step import UtterancesParams, build_utterances
from tests.imports import ROOT
from tests.worlds import scale_world
from tests.worlds.scale_world import ARTWORKS, UTTERANCES

SHARDS = 6


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Paths:
    """A world of 300 artworks after the utterances step. Read only."""
    paths = scale_world.write(tmp_path_factory.mktemp("scale") / "world", 300)
    build_utterances(paths, UtterancesParams(num_shards=SHARDS))
    return paths


def test_the_generator_has_the_size_and_proportions_of_artemis(small: Paths) -> None:
    repetitions = scale_world._repetitions(ARTWORKS, np.random.default_rng(0))
    assert (len(repetitions), int(repetitions.sum())) == (80_031, 454_684) == (ARTWORKS, UTTERANCES)
    assert int((repetitions >= 41).sum()) == 701 and repetitions.min() == 5
    with small.artemis.open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == round(300 * UTTERANCES / ARTWORKS)
    assert len({(row["art_style"], row["painting"]) for row in rows}) == 300
    said = Counter(row["emotion"] for row in rows)
    positive = sum(said[emotion] for emotion in EMOTIONS[:4]) / len(rows)
    assert 0.57 < positive < 0.67 and 0.08 < said["something else"] / len(rows) < 0.16
    lengths = [len(row["utterance"].split()) for row in rows]
    assert 14 < np.mean(lengths) < 18 and max(lengths) > 40


def test_nothing_of_the_world_is_lost(small: Paths) -> None:
    works = pq.read_table(small.step("utterances") / "artworks.parquet")
    said = pq.read_table(small.step("utterances") / "utterances.parquet")
    assert works.num_rows == 300
    assert said.num_rows == round(300 * UTTERANCES / ARTWORKS)


def brute_groups(paths: Paths, shard: int) -> dict[tuple[str, str], list[tuple[int, str]]]:
    """What `tables.read_groups` should say, from all rows of both tables."""
    works = pq.read_table(paths.step("utterances") / "artworks.parquet").to_pylist()
    keys = {work["key"] for work in works if work["shard"] == shard}
    groups: dict[tuple[str, str], list[tuple[int, str]]] = {}
    for row in pq.read_table(paths.step("utterances") / "utterances.parquet").to_pylist():
        if row["key"] in keys and row["emotion"] in EMOTIONS:
            groups.setdefault((row["key"], row["emotion"]), []).append((row["artemis_id"], row["utterance"]))
    return {pair: sorted(rows) for pair, rows in groups.items()}


def test_a_shard_is_read_as_all_rows_would_be(small: Paths) -> None:
    seen = 0
    for shard in range(SHARDS):
        works = read_artworks(small, shard)
        assert [work["key"] for work in works] == sorted(work["key"] for work in works)
        assert all(schema.shard_of(work["key"], SHARDS) == shard for work in works)
        groups = read_groups(small, shard)
        expected = brute_groups(small, shard)
        assert list(groups) == sorted(expected, key=lambda pair: (pair[0], EMOTIONS.index(pair[1])))
        for pair, group in groups.items():
            rows = zip(group["artemis_id"], group["utterance"], strict=True)
            assert list(rows) == expected[pair]
        seen += len(works)
    assert seen == 300
    assert read_artworks(small, SHARDS) == [] and read_groups(small, SHARDS) == {}


def test_tables_in_any_order_are_read_alike(small: Paths, tmp_path: Path) -> None:
    """Tables of another writer, unsorted and in one row group."""
    shuffled = Paths(data=tmp_path)
    rng = np.random.default_rng(0)
    for name in ("artworks", "utterances"):
        table = pq.read_table(small.step("utterances") / f"{name}.parquet")
        path = shuffled.step("utterances") / f"{name}.parquet"
        path.parent.mkdir(parents=True, exist_ok=True)
        pq.write_table(table.take(pa.array(rng.permutation(table.num_rows))), path)
    for shard in range(SHARDS):
        assert read_artworks(shuffled, shard) == read_artworks(small, shard)
        assert read_groups(shuffled, shard) == read_groups(small, shard)


def test_reading_a_shard_touches_no_other_rows(small: Paths, tmp_path: Path) -> None:
    """All other row groups are overwritten with rubbish: whoever reads them fails."""
    wanted = 3
    damaged = Paths(data=tmp_path)
    for name in ("artworks", "utterances"):
        source = small.step("utterances") / f"{name}.parquet"
        data = bytearray(source.read_bytes())
        metadata = pq.read_metadata(source)
        assert metadata.num_row_groups == SHARDS
        for group in range(SHARDS):
            if group != wanted:
                first = metadata.row_group(group).column(0)
                last = metadata.row_group(group).column(metadata.num_columns - 1)
                start = first.dictionary_page_offset or first.data_page_offset
                end = (last.dictionary_page_offset or last.data_page_offset) + last.total_compressed_size
                data[start:end] = b"\xa5" * (end - start)
        path = damaged.step("utterances") / f"{name}.parquet"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    assert read_artworks(damaged, wanted) == read_artworks(small, wanted)
    assert read_groups(damaged, wanted) == read_groups(small, wanted)
    with pytest.raises((OSError, pa.ArrowException)):
        read_artworks(damaged, wanted + 1)


def test_a_digest_changes_with_its_own_shard_alone(small: Paths, tmp_path: Path) -> None:
    def digests(paths: Paths) -> dict[int, str]:
        return input_digests(open_artworks(paths), open_utterances(paths), schema.ARTWORKS.names)

    before = digests(small)
    assert sorted(before) == list(range(SHARDS))
    changed = Paths(data=tmp_path, wikiart=small.wikiart)
    for name in ("artworks", "utterances"):
        table = pq.read_table(small.step("utterances") / f"{name}.parquet")
        if name == "utterances":
            texts = table["utterance"].to_pylist()
            at = next(i for i, emotion in enumerate(table["emotion"].to_pylist()) if emotion in EMOTIONS)
            shard = schema.shard_of(table["key"][at].as_py(), SHARDS)
            texts[at] += "!"
            column = table.schema.get_field_index("utterance")
            table = table.set_column(column, table.schema.field(column), pa.array(texts, pa.string()))
        path = changed.step("utterances") / f"{name}.parquet"
        path.parent.mkdir(parents=True, exist_ok=True)
        pq.write_table(table, path)
    after = digests(changed)
    assert {number for number in before if before[number] != after[number]} == {shard}


ALL_STEPS = """
import json, sys
from pathlib import Path
from tests.worlds.scale_steps import BUILD, peak_mib
from tests.worlds.scale_world import paths_in
counts = {step: build(paths_in(Path(sys.argv[1])), 2) for step, build in BUILD.items()}
kept = [counts[step]["kept"] for step in list(BUILD)[1:-1]]
print(json.dumps([counts["verify"]["problems"], kept, peak_mib()]))
"""


def test_every_step_runs_on_a_world(tmp_path: Path) -> None:
    """In a process of its own, because the stand-ins take the networks' places."""
    paths = scale_world.write(tmp_path / "world", 40)
    command = [sys.executable, "-c", ALL_STEPS, str(tmp_path / "world")]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    problems, kept, peak = json.loads(done.stdout.splitlines()[-1])
    assert problems == [] and kept == [40] * 5 and peak > 50
    statistics = json.loads((paths.step("shards") / "stats.json").read_text())
    said = pq.read_table(paths.step("utterances") / "utterances.parquet")["emotion"].to_pylist()
    assert statistics["utterances"] == sum(emotion in EMOTIONS for emotion in said)
    boxes = [
        len(boxes)
        for file in paths.step("regions").glob("*.parquet")
        for boxes in pq.read_table(file)["boxes"].to_pylist()
    ]
    assert len(boxes) == 40 and 33 <= np.mean(boxes) <= 36  # a few of the 36 hold no pixel


def test_a_step_is_measured_in_a_process_of_its_own(tmp_path: Path) -> None:
    scale_world.write(tmp_path / "world", 50)
    measured = scale_world.measure(tmp_path / "world", "utterances", 50)
    assert (measured.step, measured.artworks, measured.counts["artworks_kept"]) == ("utterances", 50, 50)
    assert measured.cpu_seconds > 0 and 50 < measured.peak_mib < 3000


def test_the_table_by_hand() -> None:
    rows = [
        scale_world.Measured("masks", 100, 2.0, 1.0, 200, {}),
        scale_world.Measured("masks", 1000, 21.0, 10.0, 300, {}),
    ]
    assert scale_world.table(rows).splitlines()[2] == (
        "| masks | 2.0 | 1.0 | 100 | 200 | 21.0 | 10.0 | 100 | 300 | 1.50x |"
    )


@pytest.mark.slow
@pytest.mark.timeout(7200)
def test_memory_at_full_size(tmp_path: Path) -> None:
    """The whole of ArtEmis, made up: every step stays below 1.3 times its memory at a tenth, or 3 GB."""
    peaks: dict[str, list[int]] = {}
    for artworks in (ARTWORKS // 10, ARTWORKS):
        root = tmp_path / str(artworks)
        scale_world.write(root, artworks)
        for step in scale_world.STEPS:
            measured = scale_world.measure(root, step, artworks)
            peaks.setdefault(step, []).append(measured.peak_mib)
            assert not measured.counts.get("rejected") and not measured.counts.get("problems")
    for step, (tenth, full) in peaks.items():
        assert full <= max(1.3 * tenth, 3e9 / 2**20), step
