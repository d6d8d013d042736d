"""The step on a small world: what is written, counted, kept, refused, and made again."""

import dataclasses
import json
import shutil
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
import torch

from model.data.samples import Samples
from model.predict.params import PredictParams
from model.predict.step import predict_queries
from model.relabel import step as module
from model.relabel.blend import blend, kept
from model.relabel.folders import LINKED
from model.relabel.step import relabel
from pipeline.common.digests import read_sidecar
from pipeline.common.errors import RunFailed, UserError
from pipeline.common.files import write_parquet
from pipeline.common.params import Paths
from pipeline.common.schema import shard_stem
from pipeline.common.tars import read_tar
from pipeline.parallel.map_shards import ParallelParams
from pipeline.reader.index import Index
from pipeline.shard_stats.text import _lineage
from pipeline.shards.step import ShardsParams, build_shards
from tests.imports import ROOT
from tests.model.relabel.conftest import (
    ARTWORKS,
    EACH,
    SHA,
    SHARDS,
    cards,
    features_of,
    rewrite,
    rule,
    write_round,
)
from tests.worlds.indexed_shards import paths_in, verify
from tests.worlds.labelled_shards import index_labelled, write_labelled

Relabel = Callable[..., tuple[Paths, dict[str, Any]]]
LABELS = ARTWORKS * EACH


@pytest.fixture
def run(finished: Paths, tmp_path: Path) -> Relabel:
    """Make the next round, of the shared finished one unless told otherwise."""

    def made(before: Paths = finished, **changes: Any) -> tuple[Paths, dict[str, Any]]:
        paths = Paths(data=tmp_path / "next", runs=before.runs, metrics=tmp_path / "metrics")
        students = tuple(before.runs / name for name in changes.pop("students", ("multi",)))
        params = rule(labels=before.data, students=students, device="cpu", batch=3, **changes)
        return paths, relabel(paths, params, ParallelParams())

    return made


@pytest.fixture
def own(tmp_path: Path) -> Paths:
    """A finished round to be changed at will."""
    return write_round(tmp_path / "before")


def tars(paths: Paths) -> dict[str, bytes]:
    return {file.name: file.read_bytes() for file in sorted(paths.step("masks").iterdir())}


def mask_of(members: dict[str, bytes], emotion: str) -> np.ndarray:
    mask = cv2.imdecode(np.frombuffer(members[f"{emotion}.png"], np.uint8), cv2.IMREAD_GRAYSCALE)
    assert mask is not None
    return mask


def predicted(finished: Paths, student: str) -> dict[tuple[str, str], np.ndarray]:
    """What step `predict` says of every label: another way to the same maps."""
    from model.data.cached_features import read_features
    from model.emosem.network import EmoSEM

    index = Index.load(finished.step("shards"))
    queries = [(row.key, emotion) for row in index.rows() for emotion in row.emotions]
    model = EmoSEM.from_pretrained(finished.runs / student)
    found = predict_queries(
        model, queries, lambda key: read_features(index, key), PredictParams(max_new_tokens=1, device="cpu")
    )
    return {query: prediction.probability for query, prediction in found}


@pytest.mark.parametrize("students", [("multi",), ("single",), ("multi", "single")])
def test_new_labels_are_blends_of_the_old_ones_and_what_predict_says(
    finished: Paths, run: Relabel, students: tuple[str, ...]
) -> None:
    maps = [predicted(finished, student) for student in students]
    means = {query: np.mean([each[query] for each in maps], axis=0) for query in maps[0]}
    before = cards(finished)
    first = rule(label_threshold=0.6)
    ious = [blend(mask_of(before[key], emotion), mean, first).iou for (key, emotion), mean in means.items()]
    agree = float(np.median(ious))
    paths, found = run(students=students, agree=agree, label_threshold=0.6)
    params = dataclasses.replace(first, agree=agree)
    after = cards(paths)
    assert list(before) == list(after)
    outcomes: Counter[str] = Counter()
    for key, members in after.items():
        card, old = json.loads(members["json"]), json.loads(before[key]["json"])
        assert list(card["emotions"]) == sorted(old["emotions"])
        assert list(members) == list(before[key])
        for emotion, entry in card["emotions"].items():
            wanted = blend(mask_of(before[key], emotion), means[key, emotion], params)
            here = mask_of(members, emotion)
            assert np.abs(here.astype(int) - wanted.levels).max() <= 1
            assert entry["student"]["iou"] == pytest.approx(wanted.iou, abs=2e-3)
            outcomes[entry["student"]["outcome"]] += 1
            assert entry["area"] == round(float((here > 0.35 * 255).mean()), 6)
            assert {name: entry[name] for name in ("utterances", "artemis_ids")} == {
                name: old["emotions"][emotion][name] for name in ("utterances", "artemis_ids")
            }
        assert {name: card[name] for name in old if name not in ("emotions", "lineage")} == {
            name: old[name] for name in old if name not in ("emotions", "lineage")
        }
    assert outcomes == {"blended": LABELS // 2, "disagreed": LABELS // 2}
    assert found["counts"] == {**outcomes, "labels": LABELS}
    assert (found["kept"], found["rejected"]) == (ARTWORKS, 0)


def test_the_lineage_says_all_rounds(finished: Paths, run: Relabel, tmp_path: Path) -> None:
    paths, _ = run(students=("multi", "single"))
    old = {key: json.loads(members["json"])["lineage"] for key, members in cards(finished).items()}
    for key, members in cards(paths).items():
        lineage = json.loads(members["json"])["lineage"]
        assert lineage["round"] == 1 and lineage["labels"] == old[key]
        assert lineage["relabel"]["weight"] == 0.7
        methods = [(one["method"], len(one["sha256"])) for one in lineage["relabel"]["students"]]
        assert methods == [("emosem-multi", 64), ("emosem-single", 64)]
    build_shards(paths, ShardsParams())
    again = Paths(data=tmp_path / "second")
    params = rule(labels=paths.data, students=(finished.runs / "multi",), label_threshold=0.35)
    relabel(again, params, ParallelParams())
    lineage = json.loads(next(iter(cards(again).values()))["json"])["lineage"]
    assert (lineage["round"], lineage["labels"]["round"]) == (2, 1)
    told = _lineage(lineage)
    assert told.startswith("round 2 of self-training (emosem-multi ")
    assert "on round 1 of self-training (" in told and told.endswith("masks.temperature 0.0")


def test_the_next_steps_take_them_as_they_are(finished: Paths, run: Relabel) -> None:
    paths, _ = run()
    counts = build_shards(paths, ShardsParams())
    assert (counts["kept"], counts["masks"]) == (ARTWORKS, LABELS)
    assert verify(paths) == []
    labels = pq.read_table(paths.step("shards") / "labels.parquet").to_pydict()
    assert set(labels["agreement"]) == {None}  # no recipe makes them of the tables
    from model.data.frame import Frame
    from pipeline.backbones.language_model import load_tokenizer

    tokenizer = load_tokenizer(finished.data.parent / "weights" / "gpt2")
    index = Index.load(paths.step("shards"))
    samples = Samples(index, "train", tokenizer, Frame(32, 32), max_tokens=25, binarise=0.35)
    batch = samples[[0]]
    key, emotion = samples.keys[samples.table[0][0]], index.row(samples.keys[samples.table[0][0]]).emotions[0]
    small = cv2.resize(mask_of(cards(paths)[key], emotion), (32, 24), interpolation=cv2.INTER_AREA)
    assert np.array_equal(batch.target[0, :24, :32].numpy() > 0, small > 0.35 * 255)


def test_what_is_shared_is_linked_and_nothing_that_is_there_is_touched(
    finished: Paths, run: Relabel, tmp_path: Path
) -> None:
    (tmp_path / "next" / "regions").mkdir(parents=True)
    paths, _ = run()
    links = {step for step in LINKED if paths.step(step).is_symlink()}
    assert links == {"utterances", "similarity", "features"}
    assert paths.step("features").resolve() == finished.step("features").resolve()
    assert not paths.step("features").readlink().is_absolute()


def test_links_lead_home_from_a_folder_on_another_disk(finished: Paths, run: Relabel, tmp_path: Path) -> None:
    (tmp_path / "disk" / "far" / "away").mkdir(parents=True)
    (tmp_path / "next").symlink_to(tmp_path / "disk" / "far" / "away")
    paths, found = run()
    assert found["kept"] == ARTWORKS
    assert paths.step("features").resolve() == finished.step("features").resolve()


def test_a_second_run_does_nothing_and_a_fresh_one_writes_the_same_bytes(
    run: Relabel, capsys: pytest.CaptureFixture[str]
) -> None:
    paths, first = run()
    bytes_ = tars(paths)
    assert run()[1] == {**first, "done": 0, "skipped": SHARDS}
    shutil.rmtree(paths.step("masks"))
    run()
    assert tars(paths) == bytes_
    noted = {(read_sidecar(paths.step("masks"), shard) or {})["threads"] for shard in range(SHARDS)}
    assert noted == {torch.get_num_threads()}  # which decides last digits
    words = capsys.readouterr().err
    assert words.count(f"relabel: {LABELS} labels") == 3


@pytest.mark.parametrize(
    "change", [{"weight": 0.6}, {"agree": 0.9}, {"students": ("single",)}, {"label_threshold": 0.5}]
)
def test_a_change_of_the_rule_or_the_student_makes_all_again(run: Relabel, change: dict[str, Any]) -> None:
    paths, _ = run()
    before = tars(paths)
    assert run(**change)[1]["done"] == SHARDS
    assert not any(before[name] == data for name, data in tars(paths).items() if name.endswith("tar"))


def test_only_the_shard_whose_labels_changed_is_made_again(own: Paths, run: Relabel) -> None:
    run(own)

    def darker(samples: list) -> list:
        key, members = samples[0]
        name = next(name for name in members if name.endswith("png"))
        dark = cv2.imdecode(np.frombuffer(members[name], np.uint8), 0) // 2
        return [(key, {**members, name: cv2.imencode(".png", dark)[1].tobytes()}), *samples[1:]]

    rewrite(own.step("masks") / f"{shard_stem(1)}.tar", darker)
    index_labelled(own)
    assert run(own)[1]["done"] == 1


def test_a_run_that_fails_goes_on(run: Relabel, monkeypatch: pytest.MonkeyPatch) -> None:
    whole, _ = run()
    bytes_ = tars(whole)
    shutil.rmtree(whole.step("masks"))
    real = module.relabel_shard

    def failing(shard: int, *given: Any, **named: Any) -> Any:
        if shard == 1:
            raise OSError("the disk is away")
        return real(shard, *given, **named)

    monkeypatch.setattr(module, "relabel_shard", failing)
    with pytest.raises(RunFailed, match="the disk is away"):
        run()
    assert sorted(file.name for file in whole.step("masks").glob("*.tar")) == ["000000.tar"]
    monkeypatch.setattr(module, "relabel_shard", real)
    paths, found = run()
    assert (found["done"], found["skipped"]) == (1, 1)
    assert tars(paths) == bytes_


def test_what_people_drew_stays(own: Paths, run: Relabel) -> None:
    drawn: list[tuple[str, str]] = []

    def review(samples: list) -> list:
        for key, members in samples[:2]:
            card = json.loads(members["json"])
            emotion, other = card["emotions"]
            card["emotions"][emotion]["review"] = {"action": "replace", "verdict": "bad", "reviewers": 1}
            card["emotions"][other]["weight"] = 0.5
            card["emotions"][other]["review"] = {"action": "down-weight"}
            members["json"] = json.dumps(card).encode()
            drawn.append((key, emotion))
        return samples

    rewrite(own.step("masks") / f"{shard_stem(0)}.tar", review)
    index_labelled(own)
    paths, found = run(own, agree=0.0)
    assert found["counts"] == {"blended": LABELS - 2, "drawn": 2, "labels": LABELS}
    before, after = cards(own), cards(paths)
    for key, emotion in drawn:
        assert np.array_equal(mask_of(after[key], emotion), kept(mask_of(before[key], emotion), rule()))
        entries = json.loads(after[key]["json"])["emotions"]
        assert entries[emotion]["student"] == {"outcome": "drawn"}
        assert entries[emotion]["review"]["action"] == "replace"
        assert {entry.get("weight") for entry in entries.values()} == {None, 0.5}


def test_features_of_another_sam_keep_their_labels_and_are_counted(own: Paths, run: Relabel) -> None:
    odd: list[str] = []

    def foreign(samples: list) -> list:
        odd.append(samples[1][0])
        return [(key, features_of(key, "c1" * 32 if key in odd else SHA)) for key, _ in samples]

    rewrite(own.step("features") / f"{shard_stem(0)}.tar", foreign)
    index_labelled(own)
    paths, found = run(own, agree=0.0)
    assert found["counts"] == {"blended": LABELS - EACH, "other-features": EACH, "labels": LABELS}
    assert found["kept"] == ARTWORKS
    before, after = cards(own)[odd[0]], cards(paths)[odd[0]]
    for emotion in json.loads(after["json"])["emotions"]:
        assert np.array_equal(mask_of(after, emotion), kept(mask_of(before, emotion), rule()))


def test_a_student_that_knows_none_of_the_features_is_refused(run: Relabel, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=f"could look at none of the {LABELS} labels .*relabel.students"):
        run(students=("foreign",))
    assert list((tmp_path / "next" / "masks").iterdir()) == []  # the shards step would take them for a round


def test_students_that_make_no_number_are_said_to_be_broken(
    run: Relabel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from model.relabel.students import Students

    real = Students.maps
    monkeypatch.setattr(Students, "maps", lambda *given: [np.full_like(m, np.nan) for m in real(*given)])
    with pytest.raises(UserError, match="make no map without a NaN or an infinity; train them again"):
        run()
    assert list((tmp_path / "next" / "masks").iterdir()) == []


def test_a_map_with_a_nan_keeps_the_label(run: Relabel, monkeypatch: pytest.MonkeyPatch) -> None:
    from model.relabel.students import Students

    real = Students.maps

    def broken(self: Students, *given: Any) -> list[np.ndarray]:
        found = real(self, *given)
        return [np.full_like(found[0], np.nan), *found[1:]]

    monkeypatch.setattr(Students, "maps", broken)
    _, found = run(agree=0.0)
    batches = sum(-(-len(list(read_tar(tar))) // 3) for tar in (run()[0].step("masks")).glob("*.tar"))
    assert found["counts"]["not-finite"] == batches
    assert found["counts"]["blended"] == LABELS - batches


def test_artworks_without_what_they_need_are_rows_with_a_reason(own: Paths, run: Relabel) -> None:
    """One is not in the finished round, of one something else was said, the PNG of one is none."""
    tables = own.data.parent / "tables"
    shutil.copytree(own.step("utterances"), tables)
    names = [key for key, _ in read_tar(own.step("masks") / f"{shard_stem(0)}.tar")]
    gone, talked, broken = names[:3]

    def damage(samples: list) -> list:
        for key, members in samples:
            if key == broken:
                members[next(name for name in members if name.endswith("png"))] = b"no picture"
        return [sample for sample in samples if sample[0] != gone]

    for step in ("masks", "features"):
        rewrite(
            own.step(step) / f"{shard_stem(0)}.tar",
            damage if step == "masks" else lambda s: [x for x in s if x[0] != gone],
        )
    file = own.step("utterances") / "artworks.parquet"
    table = pq.read_table(file)
    write_parquet(file, table.filter(np.array([key != gone for key in table["key"].to_pylist()])))
    index_labelled(own)
    shutil.rmtree(own.step("utterances"))
    shutil.copytree(tables, own.step("utterances"))
    said = pq.read_table(tables / "utterances.parquet").to_pylist()
    for row in said:
        if row["key"] == talked:
            row["utterance"] += ", indeed"
    import pyarrow as pa

    from pipeline.common.schema import UTTERANCES

    write_parquet(
        own.step("utterances") / "utterances.parquet", pa.Table.from_pylist(said, schema=UTTERANCES)
    )
    paths, found = run(own)
    assert found["reasons"] == {"damaged-label": 1, "not-in-round": 1, "other-utterances": 1}
    assert found["kept"] + found["rejected"] == ARTWORKS
    rejects = (read_sidecar(paths.step("masks"), 0) or {})["rejects"]
    assert {row["key"]: row["reason"] for row in rejects} == {
        gone: "not-in-round", talked: "other-utterances", broken: "damaged-label"
    }  # fmt: skip
    assert not {gone, talked, broken} & cards(paths).keys()


# ---- refused at once -------------------------------------------------------------------------------


def test_the_finished_round_is_not_written_over(finished: Paths, tmp_path: Path) -> None:
    params = rule(labels=finished.data, students=(finished.runs / "multi",))
    with pytest.raises(UserError, match="written over"):
        relabel(finished, params, ParallelParams())
    paths = Paths(data=tmp_path / "linked")
    paths.data.mkdir()
    paths.step("masks").symlink_to(finished.step("masks"))
    before = tars(finished)
    with pytest.raises(UserError, match=r"linked/masks is the finished round's .*paths\.data"):
        relabel(paths, params, ParallelParams())
    assert tars(finished) == before


def test_a_command_refuses_it_before_torch_is_imported(finished: Paths, tmp_path: Path) -> None:
    relabel = {"labels": str(finished.data), "students": [str(finished.runs / "multi")]}
    relabel |= {"label_threshold": 0.65, "student_threshold": 0.35}
    sections = {"paths": {"data": str(finished.data)}, "relabel": relabel}
    script = "import sys; from pathlib import Path; from pipeline.common.params import Params\n"
    script += "from stages._ready import before_relabel\n"
    script += f"try: before_relabel(Params(Path('p.yaml'), {sections!r}))\n"
    script += "except Exception as error: print(type(error).__name__, 'torch' in sys.modules)"
    command = [sys.executable, "-c", script]
    found = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    assert found.stdout == "UserError False\n"


def test_no_round_and_no_student(finished: Paths, tmp_path: Path) -> None:
    paths = paths_in(tmp_path)
    known = rule(labels=finished.data, students=(finished.runs / "multi",))
    with pytest.raises(UserError, match="holds no finished round"):
        relabel(paths, dataclasses.replace(known, labels=tmp_path), ParallelParams())
    with pytest.raises(UserError, match="is no folder; name that of a trained model"):
        relabel(paths, dataclasses.replace(known, students=(tmp_path / "none",)), ParallelParams())
    assert not paths.data.exists()


def test_a_round_on_other_artworks_is_refused(finished: Paths, tmp_path: Path) -> None:
    other = paths_in(tmp_path)
    write_labelled(other, 4, 1, EACH)  # the first four of the same artworks, with other row numbers
    table = pq.read_table(other.step("utterances") / "utterances.parquet")
    moved = pc.add(table["artemis_id"], 1)
    write_parquet(
        other.step("utterances") / "utterances.parquet", table.set_column(1, table.schema.field(1), moved)
    )
    params = rule(labels=finished.data, students=(finished.runs / "multi",), device="cpu")
    with pytest.raises(UserError, match=r"none of the 4 artworks .*'other-utterances': 4"):
        relabel(other, params, ParallelParams())


def test_an_artwork_about_which_nothing_was_felt_has_its_card_alone(own: Paths, run: Relabel) -> None:
    """Those of a batch too, in which there is nothing to predict."""
    silent: list[str] = []

    def emptied(samples: list) -> Iterator[tuple[str, dict[str, bytes]]]:
        for key, members in samples:
            silent.append(key)
            card = {**json.loads(members["json"]), "emotions": {}}
            yield key, {"json": json.dumps(card).encode()}

    rewrite(own.step("masks") / f"{shard_stem(0)}.tar", lambda samples: list(emptied(samples)))
    index_labelled(own)
    paths, found = run(own)
    assert found["kept"] == ARTWORKS and found["counts"]["labels"] == LABELS - EACH * len(silent)
    assert {key for key, members in cards(paths).items() if list(members) == ["json"]} == set(silent)


def test_a_student_twice_is_refused() -> None:
    for again in ("runs/multi", "./runs/../runs/multi"):
        with pytest.raises(ValueError, match="has one twice"):
            rule(students=(Path("runs/multi"), Path(again)))


def test_half_a_student_is_refused(own: Paths, run: Relabel) -> None:
    (own.runs / "multi" / "model.safetensors").unlink()
    with pytest.raises(UserError, match=r"multi holds half a model: .*model\.safetensors does not exist"):
        run(own)


def test_labels_of_a_round_are_cut_at_their_own_threshold(
    finished: Paths, run: Relabel, tmp_path: Path
) -> None:
    paths, _ = run()
    build_shards(paths, ShardsParams())
    second = Paths(data=tmp_path / "second")
    params = rule(labels=paths.data, students=(finished.runs / "single",), label_threshold=0.65)
    with pytest.raises(UserError, match=r"label_threshold is 0\.65, .* lies above 0\.35; set it to that"):
        relabel(second, params, ParallelParams())
    assert not second.step("masks").exists()


def test_a_label_without_foreground_is_not_said_to_be_elsewhere(own: Paths, run: Relabel) -> None:
    blank: list[tuple[str, str]] = []

    def blanked(samples: list) -> list:
        key, members = samples[0]
        emotion = next(iter(json.loads(members["json"])["emotions"]))
        size = mask_of(members, emotion).shape
        members[f"{emotion}.png"] = cv2.imencode(".png", np.zeros(size, np.uint8))[1].tobytes()
        blank.append((key, emotion))
        return samples

    rewrite(own.step("masks") / f"{shard_stem(0)}.tar", blanked)
    index_labelled(own)
    paths, found = run(own, agree=1.0)
    [(key, emotion)] = blank
    after = cards(paths)[key]
    assert json.loads(after["json"])["emotions"][emotion]["student"] == {"iou": 0.0, "outcome": "empty"}
    assert not mask_of(after, emotion).any()
    assert found["counts"] == {"disagreed": LABELS - 1, "empty": 1, "labels": LABELS}


def test_the_rounds_folder_is_no_file(finished: Paths, tmp_path: Path) -> None:
    (tmp_path / "next").write_text("")
    with pytest.raises(UserError, match="next, which is no folder"):
        relabel(
            Paths(data=tmp_path / "next"),
            rule(labels=finished.data, students=(finished.runs / "multi",)),
            ParallelParams(),
        )


def test_a_damaged_student_is_refused(own: Paths, run: Relabel) -> None:
    file = own.runs / "multi" / "model.safetensors"
    file.write_bytes(file.read_bytes()[:-1] + b"\1")
    with pytest.raises(UserError, match="is not the file that was written"):
        run(own)


def test_the_students_mean_does_not_depend_on_the_batch(
    finished: Paths, run: Relabel, tmp_path: Path
) -> None:
    paths, _ = run()
    other = Paths(data=tmp_path / "other")
    params = rule(labels=finished.data, students=(finished.runs / "multi",), device="cpu", batch=1)
    relabel(other, params, ParallelParams())
    for key, members in cards(paths).items():
        for emotion in json.loads(members["json"])["emotions"]:
            one, two = (mask_of(each, emotion).astype(int) for each in (members, cards(other)[key]))
            assert np.abs(one - two).max() <= 1  # float noise before rounding
