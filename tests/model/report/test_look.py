"""`look`: one artwork's page shows what each step knows of it, and finds the artwork that a person means."""

import shutil
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from model.report.look import find_artwork, look
from pipeline.common.emotions import EMOTIONS
from pipeline.common.errors import UserError
from pipeline.common.files import write_parquet
from pipeline.common.params import Paths
from pipeline.common.schema import REGIONS, SIMILARITY
from tests.model.report.test_step import Page, assert_loads_nothing
from tests.worlds import indexed_shards


def write_regions(paths: Paths, count: int = 8, num_shards: int = 2) -> None:
    """Two regions an artwork, the second more similar to what was said."""
    for shard in range(num_shards):
        here = list(enumerate(indexed_shards.keys(count)))[shard::num_shards]
        regions = [
            {
                "key": key,
                "boxes": [[4.0, 8.0, 20.0, 24.0], [26.0, 8.0, 42.0, 24.0]],
                "scores": [0.9, 0.8],
                "labels": ["crooked house", "quiet boat"],
                "source": "made up",
            }
            for _, key in here
        ]
        similarity = [
            {"key": key, "emotion": emotion, "artemis_ids": [0], "scores": [0.125, 0.25]}
            for number, key in here
            for emotion in indexed_shards.EMOTIONS_OF[number % 4]
        ]
        stem = f"{shard:06d}.parquet"
        write_parquet(paths.step("regions") / stem, pa.Table.from_pylist(regions, schema=REGIONS))
        write_parquet(paths.step("similarity") / stem, pa.Table.from_pylist(similarity, schema=SIMILARITY))


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Paths:
    """A world in which every step has run. Read only: change a copy."""
    paths = indexed_shards.write_everything(tmp_path_factory.mktemp("look"))
    write_regions(paths)
    return paths


def test_the_page_shows_what_every_step_knows(world: Paths, tmp_path: Path) -> None:
    key, _ = indexed_shards.artworks(8)[1]  # contentment and sadness
    page_file = look(world, key, tmp_path / "page.html")
    text = page_file.read_text(encoding="utf-8")
    page = Page(text)
    assert_loads_nothing(page, text)
    for word in (
        key,
        "contentment one of 1",
        "sadness two of 1",
        "it looks like sadness",
        "quiet boat 0.250",
    ):
        assert word in page.text
    assert page.text.index("contentment") < page.text.index("sadness")
    assert "awe" not in page.text.split()
    # picture, regions; per emotion the truth, the pseudo-mask, single and multi
    assert page.tags["img"] == 2 + 2 * 4


def test_the_iou_is_that_of_the_shown_map_with_the_truth(world: Paths, tmp_path: Path) -> None:
    text = Page(
        look(world, indexed_shards.keys(8)[1], tmp_path / "page.html").read_text(encoding="utf-8")
    ).text
    after = {name: text.split(name)[1].split("IoU ")[1][:4] for name in ("emosem-single", "emosem-multi")}
    assert after == {"emosem-single": "1.00", "emosem-multi": "0.50"}  # the whole truth, and half of it


def test_words_are_escaped(tmp_path: Path) -> None:
    paths = indexed_shards.write_everything(tmp_path, hostile=True)
    text = look(paths, indexed_shards.keys(8)[0], tmp_path / "page.html").read_text(encoding="utf-8")
    page = Page(text)
    assert_loads_nothing(page, text)
    assert indexed_shards.HOSTILE in page.text


def test_only_the_first_step_has_run(world: Paths, tmp_path: Path) -> None:
    paths = indexed_shards.paths_in(tmp_path / "young")
    shutil.copytree(world.step("utterances"), paths.step("utterances"))
    shutil.copytree(world.wikiart, paths.wikiart)
    page = Page(look(paths, indexed_shards.keys(8)[1], tmp_path / "page.html").read_text(encoding="utf-8"))
    assert page.tags["img"] == 1
    assert "contentment one of 1" in page.text


def test_a_rejected_artwork_says_why(world: Paths, tmp_path: Path) -> None:
    root = tmp_path / "world"
    shutil.copytree(world.data.parent, root)
    paths = indexed_shards.paths_in(root)
    key = indexed_shards.keys(8)[1]
    indexed_shards.vouch(paths.step("regions"), 1, rejects=[(key, "no-regions")])
    assert "regions: no-regions" in look(paths, key, tmp_path / "page.html").read_text(encoding="utf-8")


def test_the_page_goes_to_the_folder_look(
    world: Paths, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert look(world, indexed_shards.keys(8)[0]) == Path("look") / f"{indexed_shards.keys(8)[0]}.html"


@pytest.mark.parametrize(
    "name", ["ada-artist_title.3", "Drawn/ada-artist_title.3", "Ada Artist: Title 3", "title.3"]
)
def test_an_artwork_is_found_by_its_name(world: Paths, name: str) -> None:
    assert find_artwork(world, name)["painting"] == "ada-artist_title.3"


def test_unclear_names_are_answered_with_a_way_out(world: Paths) -> None:
    with pytest.raises(UserError, match=r"8 artworks match 'title'; say which: [0-9a-f]{16} \(Drawn/"):
        find_artwork(world, "title")
    with pytest.raises(UserError, match="did you mean ada artist title"):
        find_artwork(world, "adda-artist_tittle.3")
    with pytest.raises(UserError, match="no artwork 'zzz' among 8; keys and names are in"):
        find_artwork(world, "zzz")


def test_a_picture_that_is_gone_is_the_users_mistake(world: Paths, tmp_path: Path) -> None:
    paths = Paths(wikiart=tmp_path, data=world.data)
    with pytest.raises(UserError, match="cannot be shown: missing"):
        look(paths, indexed_shards.keys(8)[0], tmp_path / "page.html")


def test_a_model_shows_all_eight_emotions(world: Paths, tmp_path: Path) -> None:
    def predict(image: np.ndarray) -> dict[str, tuple[np.ndarray, str]]:
        return {emotion: (image[..., 0], f"<b>{emotion}</b> by the model") for emotion in EMOTIONS}

    text = look(world, indexed_shards.keys(8)[1], tmp_path / "page.html", predict).read_text(encoding="utf-8")
    page = Page(text)
    assert_loads_nothing(page, text)
    assert page.tags["img"] == 2 + 2 * 4 + 8
    assert all(f"<b>{emotion}</b> by the model" in page.text for emotion in EMOTIONS)
    assert page.text.count("Nobody named") == 6
