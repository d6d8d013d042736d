"""Step `report`: the page is whole, safe, honest about its data, and shows what it says it shows."""

import base64
import json
import math
import re
import shutil
from collections import Counter
from html.parser import HTMLParser
from pathlib import Path

import cv2
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from model.maps.overlay import data_uri, fit, lit, unit_map
from model.report.charts import Line, line_chart, thin, ticks
from model.report.curves import read_curves, read_kept
from model.report.items import choose
from model.report.look import look
from model.report.step import ReportParams, build_report
from model.report.templates import artist_and_title
from pipeline.backbones.params import BackbonesParams, VinvlParams
from pipeline.common.digests import read_sealed, seal
from pipeline.common.emotions import EMOTIONS
from pipeline.common.errors import UserError
from pipeline.common.files import write_json, write_parquet
from pipeline.common.params import Paths
from pipeline.common.schema import ARTWORKS, map_name
from pipeline.common.tars import npy_bytes
from tests.worlds import indexed_shards


class Page(HTMLParser):
    """Tags, attributes and text of a page, as a browser would split them."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: Counter[str] = Counter()
        self.attributes: list[tuple[str, str]] = []
        self.text = ""
        self.bold: list[str] = []
        self._open: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags[tag] += 1
        self.attributes += [(name, value or "") for name, value in attrs]
        self._open.append(tag)

    def handle_data(self, data: str) -> None:
        self.text += data
        if self._open and self._open[-1] == "strong":
            self.bold.append(data)

    def handle_endtag(self, tag: str) -> None:
        while self._open and self._open.pop() != tag:
            pass


def build(paths: Paths, **params: int) -> str:
    build_report(paths, ReportParams(**{"strip": 0, "artworks": 0} | params), BackbonesParams())
    return (paths.report / "index.html").read_text(encoding="utf-8")


def assert_loads_nothing(page: Page, text: str) -> None:
    """No script, no frame, no sheet, and every address is a picture within the page."""
    assert not {"script", "link", "iframe", "object", "embed", "form", "base", "video", "audio"} & set(
        page.tags
    )
    for name, value in page.attributes:
        assert not name.startswith("on"), name
        if name in ("src", "href", "srcset", "poster", "action", "data", "background"):
            within = name == "href" and re.fullmatch(r"#[a-z0-9-]+", value)
            assert within or value.startswith("data:image/"), value[:60]
    style = "".join(re.findall(r"<style>(.*?)</style>", text, re.DOTALL)) + "".join(
        value for name, value in page.attributes if name == "style"
    )
    assert "url(" not in style
    assert "@import" not in style


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Paths:
    """A world in which every step has run. Read only: change a copy."""
    return indexed_shards.write_everything(tmp_path_factory.mktemp("report"))


@pytest.fixture(scope="module")
def text(world: Paths) -> str:
    return build(world, items=6)


def copy_of(world: Paths, tmp_path: Path) -> Paths:
    root = tmp_path / "world"
    shutil.copytree(world.data.parent, root)
    return indexed_shards.paths_in(root)


def test_the_page_loads_nothing_from_outside(text: str) -> None:
    page = Page(text)
    assert_loads_nothing(page, text)
    assert page.tags["img"] == 6 * 6  # painting, truth, pseudo-mask, single, multi, asked for another
    assert "default-src 'none'" in dict(page.attributes)["content"] or "default-src 'none'" in text


def test_words_from_files_are_escaped(tmp_path: Path) -> None:
    paths = indexed_shards.write_everything(tmp_path, hostile=True)
    records = read_sealed(paths.metrics / "score.json")
    records["problems"] = [indexed_shards.HOSTILE]
    records["rows"][1]["method"] = "<b onclick=x>mine</b>"
    write_json(paths.metrics / "score.json", seal(records))
    text = build(paths, items=4)
    page = Page(text)
    assert_loads_nothing(page, text)
    assert indexed_shards.HOSTILE in page.text  # as words, after unescaping
    assert page.tags["b"] == 4 * 4  # the IoU numbers of four maps of four items
    assert "<b onclick" not in text


def test_titles_are_escaped(world: Paths, tmp_path: Path) -> None:
    """A painting's name is a file name, which may hold markup."""
    paths = copy_of(world, tmp_path)
    name = "ada-artist_<img src=x onerror=alert(1)>"
    key, old = indexed_shards.artworks(8)[0]
    table = paths.step("utterances") / "artworks.parquet"
    rows = pq.read_table(table).to_pylist()
    for row in rows:
        if row["key"] == key:
            row |= {"painting": name, "path": f"Drawn/{name}.jpg"}
    write_parquet(table, pa.Table.from_pylist(rows, schema=ARTWORKS))
    (paths.wikiart / "Drawn" / f"{old}.jpg").rename(paths.wikiart / "Drawn" / f"{name}.jpg")
    records = json.loads((paths.apolo / "apolo.json").read_text().replace(json.dumps(old), json.dumps(name)))
    (paths.apolo / "apolo.json").write_text(json.dumps(records))
    for path in list((paths.apolo / "apolo_pixel_map").glob(f"{old}_*")):
        path.rename(path.with_name(path.name.replace(old, name)))
    text = build(paths, items=16, strip=4, artworks=8)
    page = Page(text)
    assert_loads_nothing(page, text)
    assert "<img src=x onerror=alert(1)>" in page.text


def test_it_says_whose_data_and_backbones_made_it(world: Paths, tmp_path: Path, text: str) -> None:
    assert "These are not the paper's numbers." in Page(text).bold
    assert "built-in gallery" in text
    paths = copy_of(world, tmp_path)
    score = read_sealed(paths.metrics / "score.json")
    official = {"data": "APOLO release of the National Gallery", "drawn": {}, "tiny": False}
    score |= official | {"backbones": "SAM vit_b, CLIP ViT-B-16, tiny-gpt2"}
    write_json(paths.metrics / "score.json", seal(score))
    page = build(paths, items=1)
    assert "These are not the paper's numbers" not in page  # whatever the names hold
    assert "SAM vit_b, CLIP ViT-B-16, tiny-gpt2" in page
    del score["drawn"]
    write_json(paths.metrics / "score.json", seal(score))
    with pytest.raises(UserError, match="run the score step again"):
        build(paths, items=1)


def test_no_path_of_this_disk_is_on_the_page(world: Paths, tmp_path: Path) -> None:
    paths = copy_of(world, tmp_path)
    weights = tmp_path / "weights"
    backbones = BackbonesParams(vinvl=VinvlParams(weights / "v.safetensors"), language_model=weights / "gpt2")
    build_report(paths, ReportParams(items=16), backbones)
    page = (paths.report / "index.html").read_text(encoding="utf-8")
    assert "v.safetensors" in page and "gpt2" in page
    assert str(tmp_path) not in page


def bold_numbers(text: str) -> list[str]:
    """What is bold in the score table."""
    (table,) = re.findall(r'aria-label="Score table">(.*?)</table>', text, re.DOTALL)
    return Page(table).bold


def test_bold_is_what_leads_beyond_noise_and_never_a_control(world: Paths, tmp_path: Path, text: str) -> None:
    # clip+vinvl 60, single 61, other-emotion 62, multi 63; EA 70 to 73; Pr@50 is 40 everywhere
    assert bold_numbers(text) == []  # multi is 2 points ahead of single, which is noise
    paths = copy_of(world, tmp_path)
    rows = read_sealed(paths.metrics / "score.json")["rows"]
    indexed_shards.write_statistics(paths, rows, apart=2.0)
    assert bold_numbers(build(paths, items=0)) == ["63.00", "73.0"]
    indexed_shards.write_statistics(paths, rows, apart=2.5)  # apart from the third is not enough
    assert bold_numbers(build(paths, items=0)) == []


def test_a_rerun_gives_the_same_bytes_and_another_seed_other_items(world: Paths, text: str) -> None:
    assert build(world, items=6) == text
    assert build(world, items=6, seed=8) != text


def test_a_missing_variant_is_left_out(world: Paths, tmp_path: Path) -> None:
    paths = copy_of(world, tmp_path)
    shutil.rmtree(paths.step("predict") / "multi")
    shutil.rmtree(paths.runs / "multi")
    indexed_shards.write_scores(paths, methods=("clip+vinvl", "emosem-single"))
    text = build(paths, items=3)
    assert "EmoSEM single" in text
    assert "EmoSEM multi" not in text


def test_without_any_model_the_teacher_is_shown(world: Paths, tmp_path: Path) -> None:
    paths = copy_of(world, tmp_path)
    shutil.rmtree(paths.step("predict"))
    shutil.rmtree(paths.runs)
    indexed_shards.write_scores(paths, methods=("clip+vinvl",))
    text = build(paths, items=3)
    assert Page(text).tags["img"] == 3 * 3
    assert "No training curves were found." in text
    assert "No method has explained this item." in text


def test_an_unreadable_picture_is_named_and_not_fatal(world: Paths, tmp_path: Path) -> None:
    paths = copy_of(world, tmp_path)
    _, painting = indexed_shards.artworks(8)[3]
    (paths.wikiart / "Drawn" / f"{painting}.jpg").write_bytes(b"not a picture")
    text = build(paths, items=16)
    assert text.count("<article>") == 14
    assert "not-an-image" in text
    assert painting in text


def test_a_map_that_cannot_be_used_is_named_and_not_fatal(world: Paths, tmp_path: Path) -> None:
    paths = copy_of(world, tmp_path)
    key, painting = indexed_shards.artworks(8)[3]
    name = map_name("emosem-multi", "anger")
    unusable = npy_bytes(np.full((8, 12), np.nan, np.float16))
    indexed_shards.rewrite(
        paths.step("predict") / "multi" / "maps.tar",
        lambda samples: [(k, m | {name: unusable} if k == key else m) for k, m in samples],
    )
    text = build(paths, items=16)
    assert text.count("<article>") == 15
    assert f"{painting}, anger" in text
    with pytest.raises(UserError, match=f"a map of {key} cannot be shown"):
        look(paths, key, tmp_path / "page.html")


def test_no_items_at_all_still_gives_a_page(world: Paths) -> None:
    assert "There is no item to show." in build(world, items=0)


@pytest.mark.parametrize("gone", ["metrics/score.json", "data/score/items.parquet", "data/shards/stats.json"])
def test_a_step_that_has_not_run_is_named(world: Paths, tmp_path: Path, gone: str) -> None:
    paths = copy_of(world, tmp_path)
    (paths.data.parent / gone).unlink()
    with pytest.raises(UserError, match=f"run the {'shards' if 'shards' in gone else 'score'} step"):
        build(paths)


def test_rejects_are_listed(text: str) -> None:
    assert "unknown-emotion" in text


# Which items are shown

ITEMS = st.dictionaries(
    st.tuples(st.text("0123456789abcdef", min_size=4, max_size=4), st.sampled_from(EMOTIONS)),
    st.floats(0, 1),
    max_size=60,
)


@given(ITEMS, st.integers(0, 30), st.integers(0, 5))
def test_items_are_spread_over_emotions_and_quality(ious: dict, count: int, seed: int) -> None:
    chosen = choose(ious, count, seed)
    items = [item for item, _ in chosen]
    assert len(items) == len(set(items)) == min(count, len(ious))
    assert set(items) <= set(ious)
    available = Counter(emotion for _, emotion in ious)
    shown = Counter(emotion for _, emotion in items)
    for emotion in available:  # no emotion waits while another has two more
        if shown[emotion] < available[emotion] and shown:
            assert max(shown.values()) - shown[emotion] <= 1
    means = {third: [ious[item] for item, t in chosen if t == third] for third in ("best", "middle", "worst")}
    if means["best"] and means["worst"]:
        assert min(means["best"]) >= max(means["worst"])


def test_all_thirds_are_shown_where_there_are_many_items() -> None:
    ious = {(f"{n:04x}", emotion): n / 30 for n in range(30) for emotion in EMOTIONS}
    assert Counter(third for _, third in choose(ious, 24, 7)) == {"best": 8, "middle": 8, "worst": 8}


# Charts


@given(st.floats(-1e6, 1e6), st.floats(1e-6, 1e6), st.integers(2, 8))
def test_ticks_are_round_few_and_inside(low: float, span: float, most: int) -> None:
    assume(span > 1e-7 * abs(low))  # less, and neighbouring ticks differ by the rounding of floats
    high = low + span
    found = ticks(low, high, most)
    assert len(found) <= most + 1
    assert all(low - span * 1e-6 <= tick <= high + span * 1e-6 for tick in found)
    if len(found) > 1:
        step = found[1] - found[0]
        mantissa = step / 10 ** math.floor(math.log10(step) + 1e-6)
        assert any(abs(mantissa - wanted) < 1e-3 for wanted in (1, 2, 5, 10))


@given(st.lists(st.floats(-100, 100), min_size=1, max_size=700))
def test_thinning_keeps_the_mean_of_equal_stretches(values: list[float]) -> None:
    line = thin(Line("x", 0, list(range(len(values))), values), most=50)
    assert len(line.steps) == len(line.values) == min(len(values), 50)
    assert min(values) - 1e-9 <= min(line.values)
    assert max(line.values) <= max(values) + 1e-9
    if len(values) % 50 == 0:
        assert np.mean(line.values) == pytest.approx(np.mean(values), abs=1e-9)


def test_a_chart_draws_points_where_they_belong() -> None:
    svg = str(line_chart("<t>", [Line("a", 0, [0, 10], [0.0, 1.0])]))
    (x0, y0), (x1, y1) = (
        tuple(map(float, point.split(",")))
        for point in re.search(r'points="([^"]+)"', svg).group(1).split()  # type: ignore[union-attr]
    )
    assert x0 < x1
    assert y0 > y1  # up is more
    assert "<title>&lt;t&gt;</title>" in svg


def test_curves_are_read_by_variant_and_skip_what_is_no_number(world: Paths) -> None:
    (curve,) = read_curves(world.runs)
    assert curve.name == "train/loss"
    assert [line.name for line in curve.lines] == ["single", "multi"]
    assert curve.lines[0].steps == list(range(30))
    assert curve.lines[1].values[0] == pytest.approx(2.0)


@pytest.mark.parametrize("select, epoch", [("last", 4), ("best", 3)])
def test_the_epoch_that_was_kept_is_marked(tmp_path: Path, select: str, epoch: int) -> None:
    run = tmp_path / "single"
    write_json(run / "config.json", {"about": {"training": {"select": select}}})
    curve = run / "dvclive" / "plots" / "metrics" / "val" / "seg_pr50.tsv"
    curve.parent.mkdir(parents=True)
    curve.write_text("step\tseg_pr50\n10\t5\n20\t9\n30\t9\n40\t7\n")  # training keeps the later of equals
    kept = read_kept(tmp_path)
    assert {name: (one.epoch, one.of, one.best) for name, one in kept.items()} == {"single": (epoch, 4, 3)}
    (val,) = read_curves(tmp_path, kept)
    assert str(val.chart).count('class="mark') == 1


def test_of_a_loss_the_lowest_epoch_was_kept(tmp_path: Path) -> None:
    run = tmp_path / "single"
    write_json(run / "config.json", {"about": {"training": {"select": "best", "select_by": "language"}}})
    folder = run / "dvclive" / "plots" / "metrics" / "val"
    folder.mkdir(parents=True)
    (folder / "seg_pr50.tsv").write_text("step\tseg_pr50\n10\t5\n20\t9\n30\t9\n40\t7\n")
    (folder / "language.tsv").write_text("step\tlanguage\n10\t0.9\n20\t0.7\n30\t0.7\n40\t0.8\n")
    (kept,) = read_kept(tmp_path).values()
    assert (kept.epoch, kept.step, kept.by) == (3, 30, "language")


def test_a_run_whose_config_does_not_say_has_no_mark(tmp_path: Path) -> None:
    write_json(tmp_path / "single" / "config.json", {"about": None})
    assert read_kept(tmp_path) == {}


def test_no_runs_no_curves(tmp_path: Path) -> None:
    assert read_curves(tmp_path / "runs") == []


# Pictures


def test_light_keeps_colours_and_darkness_takes_them() -> None:
    image = np.random.default_rng(0).integers(0, 256, (40, 60, 3), dtype=np.uint8)
    nothing = np.zeros((40, 60), dtype=bool)
    assert np.array_equal(lit(image, np.ones((40, 60)), nothing), image)
    dark = lit(image, np.zeros((40, 60)), nothing)
    assert np.array_equal(dark[..., 0], dark[..., 1])
    assert np.array_equal(dark[..., 1], dark[..., 2])
    assert dark.mean() < image.mean()


def test_the_outline_follows_the_mask() -> None:
    image = np.full((200, 200, 3), 128, np.uint8)
    mask = np.zeros((200, 200), dtype=bool)
    mask[60:140, 40:120] = True
    picture = lit(image, mask)
    changed = np.any(picture[mask] != 128, axis=1)
    assert 0.05 < changed.mean() < 0.3  # its border only
    assert np.array_equal(picture[70:130, 50:110], image[70:130, 50:110])


def test_a_map_of_any_range_becomes_light() -> None:
    assert unit_map(np.array([[-3, 5]])).tolist() == [[0.0, 1.0]]
    assert unit_map(np.full((2, 2), 7.0)).tolist() == [[0.0, 0.0], [0.0, 0.0]]


@given(st.integers(1, 400), st.integers(1, 400))
def test_fit_keeps_the_aspect_and_never_enlarges(height: int, width: int) -> None:
    image = fit(np.zeros((height, width, 3), np.uint8), 100)
    assert image.shape[0] <= height
    assert image.shape[1] <= width
    assert image.shape[0] * image.shape[1] <= 100 * 100 * 1.3 or 1 in image.shape[:2]
    assert abs(image.shape[0] / image.shape[1] / (height / width) - 1) < 0.2 or min(image.shape[:2]) < 10


def test_a_uri_holds_the_picture() -> None:
    image = np.full((16, 16, 3), (200, 100, 50), np.uint8)
    data = base64.b64decode(data_uri(image).partition(",")[2])
    back = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)[..., ::-1]
    assert np.abs(back.astype(int) - image).max() <= 4


def test_names_are_written_as_people_do() -> None:
    assert artist_and_title("claude-monet_water-lilies-1919-2") == ("Claude Monet", "Water lilies 1919 2")
    assert artist_and_title("untitled") == ("", "Untitled")
