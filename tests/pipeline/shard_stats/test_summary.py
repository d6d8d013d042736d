"""The numbers are those that counting by hand over the tars and tables gives; the views show them."""

import json
from collections import Counter
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from pipeline.common.emotions import EMOTIONS
from pipeline.common.errors import UserError
from pipeline.common.params import Paths
from pipeline.common.tars import read_tar
from pipeline.shard_stats.command import answer
from pipeline.shard_stats.labels import Labels, ShardStatsParams
from pipeline.shard_stats.summary import summarise
from pipeline.shard_stats.text import bars
from tests.worlds import indexed_shards
from tests.worlds.labelled_shards import NAMES, index_labelled, plant_faults, write_labelled

PARAMS = ShardStatsParams()


@pytest.fixture(scope="module")
def paths(tmp_path_factory: pytest.TempPathFactory) -> Paths:
    made = indexed_shards.paths_in(tmp_path_factory.mktemp("labelled"))
    write_labelled(made, count=24)
    index_labelled(made)
    return made


def cards(paths: Paths) -> dict[str, dict]:
    tars = sorted(paths.step("masks").glob("*.tar"))
    return {key: json.loads(members["json"]) for tar in tars for key, members in read_tar(tar)}


def test_numbers_equal_a_count_over_the_tars(paths: Paths) -> None:
    found = summarise(paths.step("shards"), PARAMS)
    known = cards(paths)
    assert found["totals"]["artworks"] == len(known) == 24
    assert found["totals"]["masks"] == sum(len(card["emotions"]) for card in known.values()) == 96
    for emotion in EMOTIONS:
        of_it = [card for card in known.values() if emotion in card["emotions"]]
        part = found["by"]["emotion"][emotion]
        assert part["masks"] == len(of_it)
        assert part["splits"] == Counter(card["split"] for card in of_it)
        said = [len(card["emotions"][emotion]["utterances"]) for card in of_it]
        assert part["utterances_per_mask"] == pytest.approx(np.mean(said))
        areas = [card["emotions"][emotion]["area"] for card in of_it]
        assert part["area"] == pytest.approx(np.percentile(areas, [10, 50, 90]))
    styles = Counter(card["art_style"] for card in known.values() for _ in card["emotions"])
    assert {name: part["masks"] for name, part in found["by"]["style"].items()} == styles
    areas = [entry["area"] for card in known.values() for entry in card["emotions"].values()]
    assert found["distributions"]["area"]["counts"] == np.histogram(areas, 20, (0, 1))[0].tolist()


def test_similarities_equal_a_loop_over_the_tables(paths: Paths) -> None:
    contrasts: dict[str, list[float]] = {}
    entropies: dict[str, list[float]] = {}
    best: dict[str, Counter[str]] = {}
    for file in sorted(paths.step("similarity").glob("*.parquet")):
        for row in pq.read_table(file).to_pylist():
            scores = [float(score) for score in row["scores"]]
            contrasts.setdefault(row["emotion"], []).append(max(scores) - sum(scores) / len(scores))
            shares = [max(score, 0) / sum(max(s, 0) for s in scores) for score in scores]
            entropy = -sum(share * np.log(share) for share in shares if share > 0) / np.log(len(scores))
            entropies.setdefault(row["emotion"], []).append(entropy)
            best.setdefault(row["emotion"], Counter())[NAMES[scores.index(max(scores)) % len(NAMES)]] += 1
    found = summarise(paths.step("shards"), PARAMS)["by"]["emotion"]
    for emotion in EMOTIONS:
        assert found[emotion]["contrast"] == pytest.approx(np.median(contrasts[emotion]))
        assert found[emotion]["entropy"] == pytest.approx(np.median(entropies[emotion]))
        assert dict(found[emotion]["best_regions"]) == best[emotion]


def test_rows_and_shards_reconcile(paths: Paths) -> None:
    found = summarise(paths.step("shards"), PARAMS)
    rows, said = found["rows"], pq.read_table(paths.step("utterances") / "utterances.parquet")
    other = said["emotion"].to_pylist().count("something else")
    assert (rows["in"], rows["something_else"]) == (said.num_rows + 5, other)
    assert rows["kept"] == rows["in_shards"] == said.num_rows - other
    assert rows["rejected"] == {"empty-utterance": 5}
    assert sum(row["artworks"] for row in found["shards"]) == 24
    assert sum(row["masks"] for row in found["shards"]) == 96
    for row in found["shards"]:
        tars = [paths.step(step) / f"{row['shard']}.tar" for step in ("features", "masks")]
        assert row["bytes"] == sum(tar.stat().st_size for tar in tars)


def test_a_folder_with_tars_and_index_alone_is_enough(tmp_path: Path) -> None:
    """As it comes from a hub: no tables, no sidecars; what is not known is not flagged."""
    made = indexed_shards.paths_in(tmp_path)
    indexed_shards.write_shards(made)
    index_labelled(made)
    for file in [*made.step("utterances").iterdir(), *made.data.glob("*/[0-9]*.json")]:
        file.unlink()
    found = summarise(made.step("shards"), PARAMS)
    assert found["rows"] is None
    assert found["totals"]["masks"] == 12
    assert found["flags"]["altered"] == found["flags"]["lost"] == found["flags"]["flat"] == 0


def test_a_comparison_finds_what_changed(tmp_path: Path) -> None:
    old, new = (indexed_shards.paths_in(tmp_path / name) for name in ("old", "new"))
    for made in (old, new):
        write_labelled(made, count=24)
    emptied = plant_faults(new, 3, 8, seed=3)
    for made in (old, new):
        index_labelled(made)
    values, text = answer(
        new.step("shards"), PARAMS, "emotion", 0, old.step("shards"), csv_file=None, page=None
    )
    found = values["compared"]
    assert found["numbers"]["flag altered"] == (0, len(emptied))
    assert found["masks"]["in_both"] == 96
    assert "flag altered" in text and "changed" in text


class Cells(HTMLParser):
    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: Counter[str] = Counter()
        self.words: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list) -> None:
        self.tags[tag] += 1

    def handle_data(self, data: str) -> None:
        self.words.append(data)


def test_text_page_and_csv_show_names_as_they_are(
    paths: Paths, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Region names come from files: brackets are no markup of the terminal's, tags none of the page's."""
    monkeypatch.setenv("COLUMNS", "200")
    page, table = tmp_path / "page.html", tmp_path / "t.csv"
    _, text = answer(paths.step("shards"), PARAMS, "emotion", 96, None, table, page)
    assert "[b]x" in text
    seen = Cells(page.read_text(encoding="utf-8"))
    assert any("[b]x" in word for word in seen.words)
    assert seen.tags["script"] == seen.tags["img"] == seen.tags["link"] == 0
    assert seen.tags["tr"] == 5 + 96 + 8 + 2 + 3 + 4  # five heads; labels, emotions, styles, shards, columns
    lines = table.read_text(encoding="utf-8").splitlines()
    assert len(lines) == 1 + 8
    assert lines[0].startswith("emotion,masks,")


def test_damaged_labels_are_named(tmp_path: Path) -> None:
    made = indexed_shards.paths_in(tmp_path)
    indexed_shards.write_shards(made)
    index_labelled(made)
    file = made.step("shards") / "labels.parquet"
    data = bytearray(file.read_bytes())
    data[len(data) // 2] ^= 1
    file.write_bytes(data)
    with pytest.raises(UserError, match=r"labels\.parquet"):
        Labels.read(made.step("shards"), PARAMS)
    file.unlink()
    with pytest.raises(UserError, match="run the shards step"):
        Labels.read(made.step("shards"), PARAMS)


def test_bars_by_hand() -> None:
    assert bars([0, 1, 8, 16]) == " ▁▄█"
    assert bars([]) == ""
