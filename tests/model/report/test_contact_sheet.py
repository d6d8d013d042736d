"""Contact sheets show the labels asked for, in order; one without a picture keeps its place."""

from pathlib import Path

import cv2
import numpy as np
import pytest

from model.report.contact_sheet import CAPTION, CELL, COLUMNS, ROOM, Choice, choose, write_contact_sheet
from pipeline.common.errors import UserError
from pipeline.common.params import Paths
from pipeline.shard_stats.labels import Labels, ShardStatsParams
from pipeline.shard_stats.summary import worst_rows
from tests.model.report.test_step import Page, assert_loads_nothing
from tests.worlds import indexed_shards
from tests.worlds.labelled_shards import HEIGHT, WIDTH, index_labelled, write_labelled

PARAMS = ShardStatsParams()


@pytest.fixture(scope="module")
def paths(tmp_path_factory: pytest.TempPathFactory) -> Paths:
    made = indexed_shards.paths_in(tmp_path_factory.mktemp("labelled"))
    write_labelled(made, count=12)
    index_labelled(made)
    rng = np.random.default_rng(0)
    for _, painting in indexed_shards.artworks(12)[1:]:
        made.wikiart.mkdir(exist_ok=True)
        picture = rng.integers(0, 255, (HEIGHT, WIDTH, 3), np.uint8)
        cv2.imwrite(str(made.wikiart / f"{painting}.jpg"), picture)
    return made


def test_a_sheet_of_the_worst(paths: Paths, tmp_path: Path) -> None:
    done = write_contact_sheet(paths, Choice(worst=8), PARAMS, tmp_path / "sheet.html")
    text = (tmp_path / "sheet.html").read_text(encoding="utf-8")
    page = Page(text)
    assert_loads_nothing(page, text)
    wanted = worst_rows(Labels.read(paths.step("shards"), PARAMS), 8)
    places = [page.text.index(row["key"]) for row in wanted]
    assert len(set(places)) > 1 and [row["emotion"] in page.text for row in wanted] == [True] * 8
    assert page.tags["img"] == 8 - done["without_picture"]
    picture = cv2.imread(str(tmp_path / "sheet.png"))
    assert picture.shape == (2 * (CELL + CAPTION + ROOM) + ROOM, COLUMNS * (CELL + ROOM) + ROOM, 3)


def test_filters_and_samples(paths: Paths) -> None:
    labels = Labels.read(paths.step("shards"), PARAMS)
    rows = labels.table.to_pylist()
    fear = [n for n, row in enumerate(rows) if row["emotion"] == "fear" and row["art_style"] == "Baroque"]
    assert choose(labels, Choice(sample=99, emotion="fear", style="Baroque")) == (len(fear), fear)
    total, one = choose(labels, Choice(sample=5))
    assert total == len(rows) and len(set(one)) == 5 and one == sorted(one)
    assert choose(labels, Choice(sample=5))[1] == one != choose(labels, Choice(sample=5, seed=1))[1]
    _, worst = choose(labels, Choice(worst=3, split="val"))
    assert worst == [n for n in labels.worst_first().tolist() if rows[n]["split"] == "val"][:3]


def test_a_label_without_its_picture_keeps_its_place(paths: Paths, tmp_path: Path) -> None:
    done = write_contact_sheet(paths, Choice(sample=999), PARAMS, tmp_path / "all.html")
    assert (done["labels"], done["of"], done["without_picture"]) == (48, 48, 4)  # an artwork of four emotions
    page = Page((tmp_path / "all.html").read_text(encoding="utf-8"))
    assert page.tags["img"] == 44 and page.tags["figure"] == 48


def test_nothing_fits(paths: Paths, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="is fear and Rococo"):
        choice = Choice(sample=5, emotion="fear", style="Rococo")
        write_contact_sheet(paths, choice, PARAMS, tmp_path / "x.html")
    assert not any(tmp_path.iterdir())
