"""Step `relabel`: the next round's labels from a finished round's labels and its students' masks.

Self-training: a student that is better than its labels makes better ones. For each label of the finished
round (`relabel.labels`) its students (`relabel.students`) predict the mask from the cached features, and
where both agree the new label is their average (`blend`). It takes the place of `masks`: it writes the same
``data/masks/000000.tar``, which `shards`, `train` and all others read as they are. Regions, similarities and
features are not computed again.

Every artwork of the finished round is there, sorted by key, with the emotions that have a label in it. Of
each label KEY.json says under ``student`` what became of it (`OUTCOMES`), and the counts are of these. Of an
artwork that the students cannot look at, all labels stay. Rejected is an artwork that the finished round does
not have, of which something else was said then than the tables say now, or whose label is no picture.
"""

import functools
import json
import sys
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa

from model.relabel.blend import LOWEST, blend, kept
from model.relabel.folders import check_folders, check_scale, link_steps
from model.relabel.params import RelabelParams
from model.relabel.round import Label, Round, describe_round, open_round
from pipeline.common.code import code_fingerprint
from pipeline.common.errors import UserError
from pipeline.common.fingerprint import fingerprint
from pipeline.common.params import Paths
from pipeline.common.progress import ShardProgress
from pipeline.common.schema import shard_stem
from pipeline.common.tables import open_artworks, open_utterances
from pipeline.common.tars import write_tar
from pipeline.masks.inputs import Group, read_utterances, read_works
from pipeline.masks.png import png_bytes
from pipeline.masks.step import DESCRIBED
from pipeline.parallel.input_digests import input_digests
from pipeline.parallel.map_shards import ParallelParams, map_shards
from pipeline.parallel.shard_result import ShardResult
from pipeline.reader.index import Index

OUTCOMES = {
    "blended": "blended with the student's mask",
    "disagreed": "kept, because the student's mask is elsewhere",
    "empty": "kept, because nothing in the label is foreground",
    "drawn": "kept, because a person drew it",
    "other-features": "kept, because the student knows the features of another SAM",
    "not-finite": "kept, because the student's map holds a NaN or an infinity",
}
"""What becomes of a label, for ``student`` in KEY.json and for the screen."""


def relabel(paths: Paths, params: RelabelParams, parallel: ParallelParams) -> dict[str, Any]:
    """Write ``data/masks/000000.tar`` per shard; returns counts, of artworks and (``counts``) of labels.

    Steps that are the finished round's are linked where `paths.data` does not have them.

    Raises:
        UserError: no finished round, no student, the finished round's own folder to write to, a threshold
            that is not its labels', or students that can look at none of its artworks.
        RunFailed: shards failed; finished ones are kept.
    """
    check_folders(paths, params.labels)
    about = describe_round(params)
    if linked := link_steps(paths, params.labels):
        print(f"relabel: linked {', '.join(linked)} of {params.labels} into {paths.data}", file=sys.stderr)
    artworks = open_artworks(paths)
    index = Index.load(params.labels / "shards")
    check_scale(index, params)
    recipe = fingerprint(
        params.rule(), params.batch, about["students"], about["configs"], code_fingerprint(__name__)
    )
    wanted = relabel_jobs(artworks, paths, recipe, index)
    process = functools.partial(relabel_shard, paths=paths, params=params, about=about)
    found = map_shards("relabel", paths.step("masks"), wanted, process, parallel, recipe=recipe)
    _tell(found)
    if problem := _problem(found, params):
        for file in paths.step("masks").iterdir():  # or the next step would take the old labels for a round's
            file.unlink()
        raise UserError(problem)
    return {**found, "students": about["students"], "rule": params.rule()}


def relabel_jobs(artworks: pa.Table, paths: Paths, recipe: str, index: Index) -> dict[int, str]:
    """Shard -> fingerprint of all that decides its tar: tables, the finished round's bytes, and `recipe`."""
    inputs = input_digests(artworks, open_utterances(paths), ("key", *DESCRIBED))
    bytes_of = dict(zip(*(index.table[name].to_pylist() for name in ("key", "sha256")), strict=True))
    rounds: dict[int, list[tuple[str, str | None]]] = {shard: [] for shard in inputs}
    for key, shard in zip(artworks["key"].to_pylist(), artworks["shard"].to_pylist(), strict=True):
        rounds[shard].append((key, bytes_of.get(key)))
    return {shard: fingerprint(recipe, digest, rounds[shard]) for shard, digest in inputs.items()}


def relabel_shard(
    shard: int, progress: ShardProgress, paths: Paths, params: RelabelParams, about: dict[str, Any]
) -> ShardResult:
    """One shard: a tar sample per artwork of the finished round."""
    finished = open_round(params, fingerprint(about))
    works = read_works(paths, shard, DESCRIBED)
    rejects: list[tuple[str, str]] = []
    counts: Counter[str] = Counter()
    made = functools.partial(_samples, finished, params, about["students"], counts)

    def samples() -> Iterator[tuple[str, dict[str, bytes]]]:
        groups = read_utterances(paths, [work["key"] for work in works])
        for start in range(0, len(works), params.batch):
            batch = works[start : start + params.batch]
            yield from made(_labels(finished, batch, groups, rejects))
            progress.add(len(batch))

    write_tar(paths.step("masks") / f"{shard_stem(shard)}.tar", samples())
    return ShardResult(len(works) - len(rejects), rejects, dict(counts), finished.students.threads)


def _labels(
    finished: Round,
    works: Sequence[Mapping[str, Any]],
    groups: Mapping[str, Mapping[str, Group]],
    rejects: list[tuple[str, str]],
) -> dict[str, Label]:
    """Key -> what the finished round has of these artworks; those without what they need go to `rejects`."""
    labels = {}
    for work in works:
        key = work["key"]
        label = finished.read(key)
        if label is None:
            rejects.append((key, "not-in-round"))
        elif not _same(label.card, work, groups[key]):
            rejects.append((key, "other-utterances"))
        elif label.masks.keys() != label.card["emotions"].keys():
            rejects.append((key, "damaged-label"))
        else:
            labels[key] = label
    return labels


def _same(card: Mapping[str, Any], work: Mapping[str, Any], groups: Mapping[str, Group]) -> bool:
    """Whether the tables say of an artwork what its card says; reviewers may have left emotions out."""
    return all(card[name] == work[name] for name in DESCRIBED) and all(
        emotion in groups
        and entry["utterances"] == groups[emotion]["utterance"]
        and entry["artemis_ids"] == groups[emotion]["artemis_id"]
        for emotion, entry in card["emotions"].items()
    )


def _samples(
    finished: Round,
    params: RelabelParams,
    students: list[dict[str, str]],
    counts: Counter[str],
    labels: Mapping[str, Label],
) -> Iterator[tuple[str, dict[str, bytes]]]:
    """Yield (key, members) of a batch, whose artworks are predicted together."""
    seen = [key for key, label in labels.items() if label.refusal is None]
    asked = [(row, key, emotion) for row, key in enumerate(seen) for emotion in labels[key].masks]
    maps: dict[tuple[str, str], np.ndarray] = {}
    if asked:
        found = finished.students.maps(
            [labels[key].features for key in seen], [(row, emotion) for row, _, emotion in asked]
        )
        maps = {(key, emotion): each for (_, key, emotion), each in zip(asked, found, strict=True)}
    for key, label in labels.items():
        members: dict[str, bytes] = {}
        card = {}
        for emotion, mask in label.masks.items():
            entry = label.card["emotions"][emotion]
            levels, student = _relabelled(mask, maps.get((key, emotion)), entry, label.refusal, params)
            counts[student["outcome"]] += 1
            members[f"{emotion}.png"] = png_bytes(levels)
            area = round(np.count_nonzero(levels >= LOWEST) / levels.size, 6)
            card[emotion] = {**entry, "area": area, "student": student}
        counts["labels"] += len(members)
        lineage = _lineage(label.card.get("lineage") or {}, params, students)
        about = {**label.card, "emotions": card, "lineage": lineage}
        yield key, {**members, "json": json.dumps(about, sort_keys=True, ensure_ascii=False).encode()}


def _relabelled(
    mask: np.ndarray,
    student: np.ndarray | None,
    entry: Mapping[str, Any],
    refusal: str | None,
    params: RelabelParams,
) -> tuple[np.ndarray, dict[str, Any]]:
    """A new label, uint8 (h, w), and what KEY.json says of it under ``student``."""
    if (entry.get("review") or {}).get("action") == "replace":
        return kept(mask, params), {"outcome": "drawn"}
    if student is None:
        return kept(mask, params), {"outcome": refusal}
    if not np.isfinite(student).all():
        return kept(mask, params), {"outcome": "not-finite"}
    made = blend(mask, student, params)
    outcome = "blended" if made.agreed else "disagreed" if np.any(made.levels >= LOWEST) else "empty"
    return made.levels, {"outcome": outcome, "iou": round(made.iou, 6)}


def _lineage(before: dict[str, Any], params: RelabelParams, students: list[dict[str, str]]) -> dict[str, Any]:
    """What a label was made of: the round, its rule and students, and the lineage of the label before."""
    made_by = {**params.rule(), "students": students}
    return {
        "detector": before.get("detector"),
        "round": before.get("round", 0) + 1,
        "relabel": made_by,
        "labels": before,
        "fingerprint": fingerprint(made_by, before),
    }


def _tell(found: Mapping[str, Any]) -> None:
    """What became of the labels, for the screen."""
    counts: Mapping[str, int] = found["counts"]
    lines = [f"relabel: {counts.get('labels', 0):,} labels"]
    lines += [f"{counts[name]:>9,}  {words}" for name, words in OUTCOMES.items() if counts.get(name)]
    print("\n".join(lines), file=sys.stderr)


def _problem(found: Mapping[str, Any], params: RelabelParams) -> str | None:
    """Why this is no round: it has no label, or no student saw one. None for a round."""
    counts: Mapping[str, int] = found["counts"]
    if not counts.get("labels"):
        return (
            f"none of the {found['kept'] + found['rejected']:,} artworks of paths.data has a label in "
            f"{params.labels} ({found['reasons'] or 'nobody felt anything about them'}); relabel.labels must "
            "be a round on the same utterances"
        )
    if any(counts.get(name) for name in ("blended", "disagreed", "empty")):
        return None
    named = ", ".join(map(str, params.students))
    if counts.get("not-finite"):
        return f"the students ({named}) make no map without a NaN or an infinity; train them again"
    return (
        f"the students ({named}) could look at none of the {counts['labels']:,} labels of "
        f"{params.labels}; name students that were trained on its features in relabel.students"
    )
