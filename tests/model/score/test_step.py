"""Step `score` on a made-up world whose every number can be said beforehand, and on the real paintings."""

import dataclasses
import gzip
import hashlib
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import open_clip
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import safetensors.torch
import torch

from model.alignment.step import AlignmentParams, train_classifier
from model.maps.predictions import read_predictions
from model.metrics import text
from model.metrics.columns import COLUMNS
from model.score.explanations import over_draws
from model.score.inputs import check_judges, load_judges
from model.score.items import describe_release, read_items
from model.score.params import ScoreParams
from model.score.result_tables import ITEM_SCORES, SWEEP, TEXTS
from model.score.score_page import markdown
from model.score.step import score_methods
from pipeline.backbones.clip import build_clip
from pipeline.backbones.params import BackbonesParams, ClipParams
from pipeline.common import schema
from pipeline.common.emotions import emotion_index
from pipeline.common.errors import UserError
from pipeline.common.files import write_bytes, write_json, write_parquet
from pipeline.common.params import Paths
from pipeline.common.tars import npy_bytes, write_tar
from pipeline.releases.gallery_mark import drawn_evaluation, write_mark
from tests.model.metrics.test_clipscore import CONFIG
from tests.worlds.indexed_shards import paths_in, png

HEIGHT, WIDTH = 16, 24
SAID = {
    "awe": "the endless sky leaves me in awe",
    "fear": "the dark storm fills me with fear",
    "sadness": "the empty bench makes me sad",
}
ITEMS = (  # painting, emotion, split
    ("a.one", "awe", "test"),
    ("a.one", "fear", "test"),
    ("b", "awe", "test"),
    ("b", "sadness", "test"),
    ("c", "fear", "test"),  # its label is empty
    ("c", "sadness", "val"),
    ("d", "awe", "test"),  # its label is pickled
)
COUNTED = ITEMS[:4]


def key(painting: str) -> str:
    return schema.artwork_key("Drawn", painting)


def label(painting: str, emotion: str) -> np.ndarray:
    """A box of a quarter of the picture, in a corner of its own per emotion."""
    mask = np.zeros((HEIGHT, WIDTH), np.uint8)
    if (painting, emotion) != ("c", "fear"):
        y, x = {"awe": (0, 0), "fear": (0, 12), "sadness": (8, 0)}[emotion]
        mask[y : y + 8, x : x + 12] = 1
    return mask


def write_inputs(paths: Paths) -> None:
    """The tables, pictures, labels and pseudo-masks that earlier steps would have left."""
    utterances, records = [], []
    for number, (painting, emotion, split) in enumerate(ITEMS):
        utterances.append(
            {
                "key": key(painting),
                "artemis_id": number,
                "emotion": emotion,
                "utterance": SAID[emotion],
                "repetition": 5,
                "split": split,
            }
        )
        records.append({"painting": painting, "artemis_id": [number], "split": split})
        path = paths.apolo / "apolo_pixel_map" / f"{painting}_{emotion}.npy"
        path.parent.mkdir(parents=True, exist_ok=True)
        np.save(path, label(painting, emotion).astype(object if painting == "d" else np.uint8))
    write_json(paths.apolo / "apolo.json", records)
    paintings = sorted({painting for painting, _, _ in ITEMS})
    artworks = []
    for number, painting in enumerate(paintings):
        name = f"Drawn/{painting}.png"
        write_bytes(paths.wikiart / name, png(np.full((40, 60, 3), 60 * number, np.uint8)))
        artworks.append(
            {
                "key": key(painting),
                "art_style": "Drawn",
                "painting": painting,
                "path": name,
                "width": 60,
                "height": 40,
                "split": "test",
                "shard": 0,
            }
        )
    folder = paths.step("utterances")
    write_parquet(folder / "artworks.parquet", pa.Table.from_pylist(artworks, schema=schema.ARTWORKS))
    write_parquet(folder / "utterances.parquet", pa.Table.from_pylist(utterances, schema=schema.UTTERANCES))
    # the teacher knows awe of a.one rightly and sees all of b's sadness elsewhere; of the rest it has nothing
    wrong = 255 * (1 - label("b", "sadness"))
    samples = {
        key("a.one"): {"awe.png": png(200 * label("a.one", "awe"))},
        key("b"): {"sadness.png": png(wrong)},
    }
    write_tar(paths.step("masks") / "000000.tar", sorted(samples.items()))


def write_predictions(
    paths: Paths, variant: str, method: str, items: dict[tuple[str, str], Any], seeds: int = 1
) -> None:
    """`items`: (painting, emotion) -> (map or None, explanation)."""
    rows, members = [], {}
    for (painting, emotion), (map_, said) in items.items():
        for seed in range(seeds):
            rows.append(
                {
                    "method": method,
                    "key": key(painting),
                    "painting": painting,
                    "split": "test",
                    "item_emotion": emotion,
                }
                | {"asked_emotion": emotion, "explanation": said, "seed": seed}
            )
        if map_ is not None:
            ext = schema.map_name(method, emotion)
            members.setdefault(key(painting), {})[ext] = npy_bytes(map_)
    folder = paths.step("predict") / variant
    write_parquet(folder / "predictions.parquet", pa.Table.from_pylist(rows, schema=schema.PREDICTIONS))
    write_tar(folder / "maps.tar", sorted(members.items()))


def write_clip(folder: Path) -> BackbonesParams:
    """A small random CLIP in the layout of the built-in one."""
    torch.manual_seed(0)
    state = build_clip(CONFIG).state_dict()
    write_bytes(folder / "clip.safetensors", safetensors.torch.save(state))
    write_json(folder / "clip.json", CONFIG)
    with gzip.open(open_clip.tokenizer.default_bpe()) as merges:
        write_bytes(folder / "bpe.txt.gz", gzip.compress(merges.read()))
    return BackbonesParams(clip=ClipParams(name="tiny", checkpoint=folder / "clip.safetensors"), device="cpu")


def quarter_map(painting: str, emotion: str) -> np.ndarray:
    """The label at half size, as a model would predict it: float16, soft."""
    return (0.2 + 0.6 * label(painting, emotion)[::2, ::2]).astype(np.float16)


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> tuple[Paths, BackbonesParams]:
    root = tmp_path_factory.mktemp("world")
    paths = paths_in(root)
    write_inputs(paths)
    perfect = {(p, e): (quarter_map(p, e), SAID[e]) for p, e, _ in COUNTED}
    halo = label("c", "sadness").astype(np.float32)  # of the val item: half as bright around the label
    halo[6:, :14] = np.maximum(halo[6:, :14], 0.5)
    write_predictions(paths, "single", "emosem-single", perfect | {("c", "sadness"): (halo, SAID["sadness"])})
    half = {
        ("a.one", "awe"): (quarter_map("a.one", "awe"), SAID["fear"]),  # right place, wrong feeling
        ("a.one", "fear"): (
            np.full((8, 12), np.nan, np.float16),
            SAID["fear"],
        ),  # unusable map, right feeling
        ("b", "awe"): (np.full((8, 12), 0.5, np.float16), ""),  # constant map, silence
    }
    write_predictions(paths, "multi", "emosem-multi", half, seeds=2)
    control = {item: (1 - quarter_map(*item), None) for item in perfect}
    write_predictions(paths, "no-prefix", "emosem-single:no-prefix", control)
    sentences = [SAID[e] for e in SAID for _ in range(20)]
    labels = np.repeat([emotion_index(e) for e in SAID], 20)
    params = AlignmentParams(embedding=16, hidden=16, epochs=15, batch=8, learning_rate=2e-2, device="cpu")
    classifier = train_classifier(sentences, labels, params)
    classifier.training = {"test": {"accuracy": 87.5}}
    classifier.save(paths.step("alignment"))
    return paths, write_clip(root / "weights")


@pytest.fixture(scope="module")
def metrics(world: tuple[Paths, BackbonesParams]) -> dict[str, Any]:
    return score_methods(world[0], ScoreParams(), world[1])


def row(metrics: dict[str, Any], method: str) -> dict[str, Any]:
    return next(row for row in metrics["rows"] if row["method"] == method)


def test_every_method_has_a_row_in_the_order_of_the_table(metrics: dict[str, Any]) -> None:
    names = [row["method"] for row in metrics["rows"]]
    assert names == [
        "entire-artwork",
        "clip+vinvl",
        "emosem-multi",
        "emosem-single",
        "emosem-single:no-prefix",
    ]
    assert {row["items"] for row in metrics["rows"]} == {4}
    assert metrics["items"] == {"apolo": 6, "counted": 4, "rejected": 0, "val": 1}
    assert json.loads(json.dumps(metrics, allow_nan=False)) == metrics


def test_masks_by_hand(metrics: dict[str, Any]) -> None:
    columns = ("seg_pr25", "seg_pr50", "box_pr25", "box_pr50", "missing")
    assert [row(metrics, "entire-artwork")[c] for c in columns] == [100.0, 0.0, 100.0, 0.0, 0]  # IoU is 1/4
    assert [row(metrics, "clip+vinvl")[c] for c in columns] == [
        25.0,
        25.0,
        50.0,
        25.0,
        2,
    ]  # boxed, the rest is all
    assert [row(metrics, "emosem-single")[c] for c in columns] == [100.0, 100.0, 100.0, 100.0, 0]
    assert [row(metrics, "emosem-multi")[c] for c in columns] == [25.0, 25.0, 25.0, 25.0, 1]
    assert [row(metrics, "emosem-single:no-prefix")[c] for c in columns[:2]] == [0.0, 0.0]


def test_every_method_is_also_scored_at_the_threshold_of_its_val_items(
    metrics: dict[str, Any], world: tuple[Paths, BackbonesParams]
) -> None:
    """Above the halo's 0.5 the val item is perfect; of those thresholds 0.5 is the nearest to 0.35."""
    columns = ("seg_pr25", "seg_pr50", "box_pr25", "box_pr50")
    single = row(metrics, "emosem-single")
    assert single["threshold_val"] == 0.5
    assert [single[f"{c}_val"] for c in columns] == [single[c] for c in columns]  # those maps have no halo
    whole = row(metrics, "entire-artwork")  # a finished foreground has no threshold
    assert "threshold_val" not in whole
    assert [whole[f"{c}_val"] for c in columns] == [whole[c] for c in columns]
    assert (
        not {"threshold_val", "seg_pr25_val"} & row(metrics, "emosem-multi").keys()
    )  # it answers no val item

    sweep = pq.read_table(world[0].step("score") / "sweep.parquet")
    assert sweep.schema.equals(SWEEP)
    curve = {r["threshold"]: r["mean_iou"] for r in sweep.to_pylist() if r["method"] == "emosem-single"}
    assert len(curve) == 100
    around = 100 * 8 * 12 / (10 * 14)
    assert (curve[0.35], curve[0.49], curve[0.5], curve[0.99]) == pytest.approx((around, around, 100, 100))
    assert "| emosem-single | 0.50 | 100.00 |" in markdown(metrics)
    assert "| entire-artwork | - | 100.00 |" in markdown(metrics)


def test_explanations_by_hand(metrics: dict[str, Any]) -> None:
    single, multi = row(metrics, "emosem-single"), row(metrics, "emosem-multi")
    assert single["ea"] == 100.0
    assert single["bleu1"] == pytest.approx(100.0)
    assert single["bleu4"] == pytest.approx(100.0)
    assert single["rouge_l"] == pytest.approx(100.0)
    assert multi["ea"] == 25.0  # one right feeling, one wrong, one silence, one missing
    assert multi["rouge_l"] < 50 < single["rouge_l"]
    assert 0 < multi["meteor"] < single["meteor"]
    for name in ("entire-artwork", "clip+vinvl", "emosem-single:no-prefix"):
        assert not {"ea", "bleu1", "meteor", "clipscore"} & row(metrics, name).keys()


def test_several_draws_are_averaged_with_their_deviation(metrics: dict[str, Any]) -> None:
    multi = row(metrics, "emosem-multi")
    assert multi["draws"] == 2
    assert multi["bleu1_sd"] == multi["ea_sd"] == 0.0  # both draws say the same
    assert "bleu1_sd" not in row(metrics, "emosem-single")
    merged = over_draws([{"ea": 10.0}, {"ea": 20.0}, {"ea": 60.0}])
    assert merged == {"draws": 3, "ea": 30.0, "ea_sd": pytest.approx(700**0.5)}


def test_clipscore_counts_silence_as_zero(
    metrics: dict[str, Any], world: tuple[Paths, BackbonesParams]
) -> None:
    items = pq.read_table(world[0].step("score") / "items.parquet").to_pylist()
    multi = [r["clipscore"] for r in items if r["method"] == "emosem-multi" and r["iou_seg"] is not None]
    assert multi[2:] == [0.0, 0.0]
    assert row(metrics, "emosem-multi")["clipscore"] == pytest.approx(np.mean(multi))


def test_what_was_scored_is_said(metrics: dict[str, Any], world: tuple[Paths, BackbonesParams]) -> None:
    digest = hashlib.sha256((world[0].apolo / "apolo.json").read_bytes()).hexdigest()
    assert metrics["data"] == f"APOLO release (SHA-256 of apolo.json: {digest[:12]})"
    assert metrics["drawn"] == {} and metrics["tiny"] is True
    assert metrics["backbones"] == "tiny (not the paper's)"
    assert metrics["protocol"]["threshold"] == 0.35
    assert metrics["alignment"]["test"]["accuracy"] == 87.5


def test_no_path_of_this_disk_is_written(
    metrics: dict[str, Any], world: tuple[Paths, BackbonesParams]
) -> None:
    """Labels with faults, named in the problems, lie under absolute paths here."""
    root = str(world[0].data.parent)
    assert "apolo_pixel_map/d_awe.npy" in "\n".join(metrics["problems"])
    assert root not in json.dumps(metrics, ensure_ascii=False)
    for file in (path for path in world[0].metrics.rglob("*") if path.is_file()):
        assert root not in file.read_text(encoding="utf-8"), file
    for file in world[0].step("score").glob("*.parquet"):
        assert root not in str(pq.read_table(file).to_pylist()), file


@pytest.mark.parametrize("name", ["apolo", "gallery/apolo"])
def test_drawn_labels_are_known_by_their_mark(
    world: tuple[Paths, BackbonesParams], tmp_path: Path, name: str
) -> None:
    apolo = tmp_path / name
    shutil.copytree(world[0].apolo, apolo)
    assert describe_release(apolo).startswith("APOLO release (SHA-256 of apolo.json: ")
    write_mark(apolo, {"seed": 3, "artworks": 2})
    assert describe_release(apolo) == "built-in gallery"
    paths = dataclasses.replace(world[0], apolo=apolo)
    assert drawn_evaluation(paths) == {"apolo": {"version": 1, "seed": 3, "artworks": 2}}


def test_nothing_is_silently_scored(metrics: dict[str, Any]) -> None:
    problems = "\n".join(metrics["problems"])
    assert "label: empty: no pixel is foreground: c_fear" in problems
    assert "label: pickled: " in problems and "d_awe" in problems
    assert "clip+vinvl: missing: a.one_fear, b_awe" in problems
    assert (
        "emosem-multi: unusable map: map holds 96 of 96 values that are NaN or infinite: a.one_fear"
        in problems
    )
    assert "emosem-multi: no foreground (a constant map has none): b_awe" in problems
    assert "emosem-multi: missing: b_sadness" in problems


def test_the_item_table_holds_every_pair(
    metrics: dict[str, Any], world: tuple[Paths, BackbonesParams]
) -> None:
    items = pq.read_table(world[0].step("score") / "items.parquet")
    assert items.schema.equals(ITEM_SCORES)
    assert items.num_rows == 5 * 6
    rows = {(r["method"], r["painting"], r["emotion"]): r for r in items.to_pylist()}
    whole = rows["entire-artwork", "a.one", "fear"]
    assert (whole["iou_seg"], whole["iou_box"], whole["explanation"], whole["problem"]) == (
        0.25,
        0.25,
        None,
        None,
    )
    empty = rows["emosem-single", "c", "fear"]
    assert empty["iou_seg"] is None
    assert empty["problem"].startswith("label: empty")
    wrong = rows["emosem-multi", "a.one", "awe"]
    assert (wrong["iou_seg"], wrong["ea"], wrong["explanation"]) == (1.0, "fear", SAID["fear"])
    assert rows["emosem-multi", "b", "awe"]["ea"] is None
    assert wrong["iou_seg_val"] is None
    assert rows["emosem-single", "b", "awe"]["iou_seg_val"] == 1.0


def test_every_draw_is_kept_and_every_cell_has_an_interval(
    metrics: dict[str, Any], world: tuple[Paths, BackbonesParams]
) -> None:
    texts = pq.read_table(world[0].step("score") / "texts.parquet")
    assert texts.schema.equals(TEXTS)
    assert texts.num_rows == 4 * (1 + 2)  # one method with one draw, one with two
    statistics = json.loads((world[0].metrics / "statistics.json").read_text())
    for scored in metrics["rows"]:
        told = statistics["methods"][scored["method"]]
        for column, _, _ in COLUMNS:
            assert (column in scored) == (column in told)
            if column in scored:
                assert told[column]["value"] == pytest.approx(scored[column])
                assert told[column]["low"] <= scored[column] + 1e-4
                assert told[column]["high"] >= scored[column] - 1e-4


def test_the_table_for_people(metrics: dict[str, Any], world: tuple[Paths, BackbonesParams]) -> None:
    page = (world[0].metrics / "score.md").read_text()
    assert page == markdown(metrics)
    lines = [line for line in page.splitlines() if line.startswith("| ")]
    assert {line.count("|") for line in lines} == {16, 7}  # all columns; masks at the chosen threshold
    assert "| CLIP own |\n" in page  # and no column of motifs, for nobody knows what is in these pictures
    assert not any(name.startswith("motif") for row in metrics["rows"] for name in row)
    assert "| entire-artwork | 4 | 100.00 | 0.00 | 100.00 | 0.00 | - | - |" in page
    assert "87.5 %" in page
    assert "tiny (not the paper's)" in page


NO_JAVA = "BLEU, METEOR and ROUGE-L are absent: no Java found"


def no_java() -> Path:
    raise UserError("no Java found")


def test_a_second_run_writes_the_same_bytes_and_goes_without_what_cannot_run(
    metrics: dict[str, Any], world: tuple[Paths, BackbonesParams], monkeypatch: pytest.MonkeyPatch
) -> None:
    paths, backbones = world
    before = (paths.step("score") / "items.parquet").read_bytes()
    monkeypatch.setattr(text, "find_java", no_java)
    again = score_methods(paths, ScoreParams(), backbones)
    assert again["problems"] == [NO_JAVA, *metrics["problems"]]
    absent = {f"bleu{n}" for n in range(1, 5)} | {"meteor", "rouge_l"}
    wanted = {
        column: value for column, value in row(metrics, "emosem-single").items() if column not in absent
    }
    assert row(again, "emosem-single") == wanted
    assert f"- {NO_JAVA}" in (paths.metrics / "score.md").read_text()
    assert (paths.step("score") / "items.parquet").read_bytes() == before


def test_judges_that_are_absent_are_named_as_their_loaders_do(
    world: tuple[Paths, BackbonesParams], tmp_path: Path
) -> None:
    paths, backbones = world
    check_judges(paths, ScoreParams(), backbones)
    nowhere = dataclasses.replace(paths, data=tmp_path)
    blind = ScoreParams(clip=ClipParams("ViT-B-32", tmp_path / "ViT-B-32.pt"))
    for where, params, message in (
        (nowhere, ScoreParams(), "alignment/model.safetensors does not exist; run the alignment step"),
        (paths, blind, "ViT-B-32.pt do not exist"),
    ):
        for step in (check_judges, lambda *given: load_judges(*given, {})):
            with pytest.raises(UserError, match=message):
                step(where, params, backbones)


def test_user_mistakes_end_in_one_message(tmp_path: Path) -> None:
    paths = paths_in(tmp_path)
    with pytest.raises(UserError, match="run the utterances step"):
        read_items(paths.apolo, "test", paths)
    write_inputs(paths)
    with pytest.raises(UserError, match="no usable trial item"):
        read_items(paths.apolo, "trial", paths)
    folder = paths.step("predict") / "single"
    with pytest.raises(
        UserError, match=r"predictions.parquet cannot be read .* run the predict step for single"
    ):
        read_predictions(folder, "before-resize")
    write_predictions(paths, "single", "m", {("b", "awe"): (quarter_map("b", "awe"), "x")})
    table = pq.read_table(folder / "predictions.parquet")
    write_parquet(folder / "predictions.parquet", pa.concat_tables([table, table]))
    with pytest.raises(UserError, match=r"predicts m for b, awe, seed 0 more than once"):
        read_predictions(folder, "before-resize")
    (folder / "maps.tar").write_bytes(b"no tar")
    with pytest.raises(UserError, match=r"maps.tar is damaged"):
        read_predictions(folder, "before-resize")


def test_the_papers_tables_stand_beside_with_intervals(
    world: tuple[Paths, BackbonesParams], metrics: dict[str, Any]
) -> None:
    folder = world[0].metrics / "tables"
    table = json.loads((folder / "table1.json").read_text())
    ours = {line["method"]: line["cells"] for line in table["rows"] if line["source"] == "here"}
    for name in ("entire-artwork", "clip+vinvl", "emosem-single"):
        cell = ours[name]["seg_pr50"]
        assert cell["value"] == row(metrics, name)["seg_pr50"]
        assert cell["low"] <= cell["value"] <= cell["high"] and "†" in cell["marks"]
    assert "interval over the items" in (folder / "table6.md").read_text()
