"""What is in the gallery's artworks, and explanations judged by it: on a gallery as it is released."""

import dataclasses
import shutil
from pathlib import Path

import numpy as np
import pytest

from model.maps.method import Method, item_id
from model.score.explanations import over_draws
from model.score.motifs.judge import MotifJudge, MotifScores, marked_motifs, open_motif_judge
from model.score.motifs.truth import ArtworkMotifs, DrawnMotif, read_motifs
from model.score.params import ScoreParams
from model.score.statistics.cells import _motif_cells
from pipeline.common.errors import UserError
from pipeline.gallery.motif_table import FOLDER, NAME
from pipeline.gallery.release import CSV_NAME, draw_gallery
from pipeline.gallery.world import GalleryParams, Look
from pipeline.releases.apolo import ApoloItem
from pipeline.releases.apolo_arrays import load_truth
from pipeline.releases.apolo_ids import load_items_of_csv
from pipeline.releases.gallery_mark import MARK
from pipeline.releases.source import PLAIN

NAN = float("nan")


@pytest.fixture(scope="module")
def apolo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A drawn release of 9 artworks, all of them to be scored."""
    out = tmp_path_factory.mktemp("gallery")
    draw_gallery(out, GalleryParams(artworks=9, seed=41, val_share=0.0, test_share=1.0, longest_side=560))
    return out / "apolo"


@pytest.fixture(scope="module")
def items(apolo: Path) -> list[ApoloItem]:
    found, rejects = load_items_of_csv(apolo, apolo.parent / "artemis" / CSV_NAME, PLAIN)
    assert not rejects
    return [item for item in found if item.split == "test"]


@pytest.fixture(scope="module")
def artworks(apolo: Path, items: list[ApoloItem]) -> dict[str, ArtworkMotifs]:
    found = read_motifs(apolo, items)
    assert found is not None
    return found


def mask_of(motif: DrawnMotif, artwork: ArtworkMotifs) -> np.ndarray:
    mask = np.zeros(artwork.height * artwork.width, np.bool_)
    for first, behind in motif.spans.tolist():
        mask[first:behind] = True
    return mask.reshape(artwork.height, artwork.width)


def test_what_evokes_an_emotion_is_what_the_release_labels(
    items: list[ApoloItem], artworks: dict[str, ArtworkMotifs]
) -> None:
    assert set(artworks) == {item.key for item in items}
    for item in items:
        artwork = artworks[item.key]
        evoking = [mask_of(m, artwork) for m in artwork.motifs if item.emotion in m.emotions]
        label = load_truth(item.map_path)
        assert np.array_equal(np.any(evoking, axis=0), label > 0), item.painting


def test_people_name_what_is_there_and_other_artworks_mostly_do_not_have_it(
    items: list[ApoloItem], artworks: dict[str, ArtworkMotifs]
) -> None:
    said = [(item, text) for item in items for text in item.utterances]
    judge = MotifJudge(artworks)
    row = judge.score("people", [i.key for i, _ in said], [i.emotion for i, _ in said], [t for _, t in said])
    assert row.row() == {
        "motif_named": 100.0, "motif": 100.0, "motif_label": 100.0, "motif_look": 100.0,
        "motif_blind": row.row()["motif_blind"],
    }  # fmt: skip
    assert 10 < row.row()["motif_blind"] < 45  # four or five kinds evoke an emotion, some artworks have two
    texts = [text for _, text in said]
    other = judge.score("x", [i.key for i, _ in said], [i.emotion for i, _ in said], texts[7:] + texts[:7])
    assert other.row()["motif"] < 30


def test_a_mask_marks_the_motif_that_it_overlaps_most(artworks: dict[str, ArtworkMotifs]) -> None:
    rng = np.random.default_rng(0)
    for artwork in artworks.values():
        box = np.zeros((artwork.height, artwork.width), np.bool_)
        y, x = rng.integers(0, artwork.height // 2), rng.integers(0, artwork.width // 2)
        box[y : y + artwork.height // 2, x : x + artwork.width // 2] = True
        ious = [(mask_of(m, artwork) & box).sum() / (mask_of(m, artwork) | box).sum() for m in artwork.motifs]
        assert artwork.mark(box) == artwork.motifs[int(np.argmax(ious))].kind
        assert artwork.mark(np.zeros_like(box)) is None


def test_labels_as_masks_mark_what_evokes_the_emotion(
    items: list[ApoloItem], artworks: dict[str, ArtworkMotifs]
) -> None:
    def label(item: ApoloItem, height: int, width: int) -> np.ndarray | None:
        return None if item is items[0] else load_truth(item.map_path) > 0

    said = {item_id(item): item.utterances[:1] for item in items}
    methods = [
        Method("label", label, finished=True, explanations=said),
        Method("half", lambda item, h, w: 0.9 * load_truth(item.map_path), explanations=said),
        Method("silent", label, finished=True),
    ]
    marked = marked_motifs(items, methods, artworks, ScoreParams())
    assert set(marked) == {"label", "half"}
    assert set(marked["label"]) == {item_id(item) for item in items[1:]}  # the first has no mask
    for item in items[1:]:
        kinds = {m.kind for m in artworks[item.key].motifs if item.emotion in m.emotions}
        assert marked["label"][item_id(item)] in kinds
        assert marked["half"][item_id(item)] in kinds
    keys, emotions = [i.key for i in items], [i.emotion for i in items]
    scores = MotifJudge(artworks, marked).score("label", keys, emotions, [i.utterances[0] for i in items])
    assert np.isnan(scores.motif_mask[0])
    assert np.nanmean(scores.motif_mask[1:]) > 0.8  # else two motifs evoke it, and one is named


RED = Look("red", "tall", "")


def motif(kind: str, emotion: str, look: Look = RED) -> DrawnMotif:
    return DrawnMotif(kind, (emotion,) if emotion else (), look, np.zeros((0, 2), np.int32))


def test_by_hand() -> None:
    """Three artworks in which somebody is asked for fear, one of which somebody is also asked for awe."""
    judge = MotifJudge(
        {
            "a": ArtworkMotifs(4, 4, (motif("wolf", "fear", Look("grey", "howling", "")), motif("tree", ""))),
            "b": ArtworkMotifs(4, 4, (motif("ghost", "fear"), motif("comet", "awe"))),
            "c": ArtworkMotifs(4, 4, (motif("wolf", "fear"),)),
        },
        {"m": {("a", "fear"): "wolf", ("b", "fear"): "comet"}},
    )
    asked = [
        ("a", "fear", "the howling grey wolf"),
        ("a", "fear", "a small grey wolf near the tree"),  # no size was drawn, so none can be said
        ("b", "fear", "a spider"),
        ("b", "awe", "the tall red comet"),
        ("b", "fear", "the comet"),
        ("c", "fear", "the mood is dark"),
        ("c", "fear", ""),
    ]
    found = judge.score("m", *([row[n] for row in asked] for n in range(3)))
    wanted = {
        "motif_named": [1, 1, 1, 1, 1, 0, 0],
        "motif": [1, 1, 0, 1, 1, NAN, NAN],
        "motif_blind": [0.5, 0, 0, NAN, 0, NAN, NAN],
        "motif_label": [1, 1, 0, 1, 0, NAN, NAN],
        "motif_mask": [1, 1, 0, NAN, 1, NAN, NAN],
        "motif_look": [1, 0, NAN, 1, NAN, NAN, NAN],
    }
    for column, values in wanted.items():
        assert np.array_equal(getattr(found, column), values, equal_nan=True), column
    assert found.kinds[1] == ("wolf", "tree")
    assert found.row()["motif"] == pytest.approx(80.0)
    silent = judge.score("m", ["a"], ["fear"], ["the mood is dark"])
    assert silent.row() == {"motif_named": 0.0}
    assert isinstance(silent, MotifScores)


def test_a_column_of_several_draws_is_the_mean_of_their_shares(artworks: dict[str, ArtworkMotifs]) -> None:
    """The score table's value and the bootstrap's, though draws name something in different items."""
    key, artwork = next(iter(artworks.items()))
    here = f"the {artwork.motifs[0].kind}"
    judge = MotifJudge(artworks)
    draws = [
        judge.score("m", [key] * 3, ["fear"] * 3, texts)
        for texts in ([here, "nothing", "nothing"], [here, "nothing", "the haystack and the cathedral"])
    ]
    row = over_draws([draw.row() for draw in draws])
    assert row["motif"] == pytest.approx((100 + 50) / 2)
    cells = {cell.column: cell for cell in _motif_cells("m", draws)}
    assert cells["motif"].value(cells["motif"].counts.sum(axis=0)) == pytest.approx(row["motif"])
    assert cells["motif_named"].value(cells["motif_named"].counts.sum(axis=0)) == pytest.approx(50.0)
    assert np.isnan(cells["motif_mask"].value(cells["motif_mask"].counts.sum(axis=0)))


def test_only_a_drawn_release_is_judged_and_what_cannot_be_is_said(
    apolo: Path, items: list[ApoloItem], tmp_path: Path
) -> None:
    explaining = [Method("m", lambda *_: None, explanations={item_id(items[0]): ["a cat"]})]
    assert open_motif_judge(tmp_path, items, explaining, ScoreParams()) == (None, [])  # no mark: real data
    assert open_motif_judge(apolo, items, [Method("m", lambda *_: None)], ScoreParams()) == (None, [])
    judge, lines = open_motif_judge(apolo, items, explaining, ScoreParams())
    assert judge is not None
    assert lines == []

    (tmp_path / MARK).write_bytes((apolo / MARK).read_bytes())
    judge, lines = open_motif_judge(tmp_path, items, explaining, ScoreParams())
    assert judge is None
    assert "older code drew this gallery; draw the gallery again" in lines[0]
    shutil.copytree(apolo / FOLDER, tmp_path / FOLDER)
    assert read_motifs(tmp_path, items).keys() == {item.key for item in items}
    stranger = dataclasses.replace(items[0], painting="claude-monet_water-lilies")
    with pytest.raises(UserError, match="says nothing of claude-monet_water-lilies"):
        read_motifs(tmp_path, [stranger])
    table = bytearray((apolo / FOLDER / NAME).read_bytes())
    table[len(table) // 2] ^= 1
    (tmp_path / FOLDER / NAME).write_bytes(table)
    with pytest.raises(UserError, match="is not the file that was written"):
        read_motifs(tmp_path, items)
