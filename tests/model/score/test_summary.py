"""What DVC compares: by hand, and from the made-up world whose every number can be said beforehand."""

import csv
import json
from collections import Counter
from pathlib import Path
from typing import Any

from model.score.params import ScoreParams
from model.score.step import score_methods
from model.score.summary import read_variants, summary
from pipeline.backbones.params import BackbonesParams
from pipeline.common.params import Paths
from tests.model.score.test_step import metrics, world  # noqa: F401 - fixtures


def read(file: Path) -> list[dict[str, str]]:
    with file.open(encoding="utf-8", newline="") as lines:
        return list(csv.DictReader(lines))


def test_a_variant_keeps_its_columns_whatever_its_method_is_called() -> None:
    rows = [
        {"method": "emosem-single:prefix-mask", "seg_pr25": 71.4953, "seg_pr50": 20.0, "ea": 91.23456},
        {"method": "emosem-single:prefix-mask:other-emotion", "seg_pr25": 1.0, "seg_pr50": 2.0, "ea": 3.0},
        {"method": "emosem-single:no-prefix", "seg_pr25": 4.0, "seg_pr50": 5.0, "ea": 6.0},
        {"method": "segments-only", "seg_pr25": 7.0, "seg_pr50": 8.0},
    ]
    variants = {
        "single": "emosem-single:prefix-mask",
        "no-prefix": "emosem-single:no-prefix",
        "mine": "segments-only",
        "gone": "not scored",
    }
    assert summary(rows, variants) == {
        "single.pr25": 71.5,
        "single.pr50": 20.0,
        "single.ea": 91.23,
        "mine.pr25": 7.0,
        "mine.pr50": 8.0,
    }


def test_the_files_hold_what_was_scored(
    world: tuple[Paths, BackbonesParams],  # noqa: F811
    metrics: dict[str, Any],  # noqa: F811
) -> None:
    paths = world[0]
    assert read_variants(paths) == {
        "single": "emosem-single",
        "multi": "emosem-multi",
        "no-prefix": "emosem-single:no-prefix",
    }
    rows = {row["method"]: row for row in metrics["rows"]}
    found = json.loads((paths.metrics / "summary.json").read_text())
    assert found.keys() == {f"{v}.{c}" for v in ("single", "multi") for c in ("pr25", "pr50", "ea")}
    assert found["single.pr25"] == round(rows["emosem-single"]["seg_pr25"], 2)
    assert found["multi.ea"] == round(rows["emosem-multi"]["ea"], 2)

    plots = paths.metrics / "plots"
    multi = Counter((row["asked"], row["read"]) for row in read(plots / "emotions" / "multi.csv"))
    assert multi.total() == 2 * rows["emosem-multi"]["items"]  # draws
    right = sum(count for (asked, said), count in multi.items() if asked == said)
    assert 100 * right / multi.total() == rows["emosem-multi"]["ea"]
    assert multi["awe", "nothing"] == 2  # silent about b's awe
    curve = read(plots / "thresholds" / "single.csv")
    best = max(curve, key=lambda row: float(row["mean_iou"]))
    assert len(curve) == 100 and float(curve[35]["threshold"]) == 0.35
    chosen = curve[round(100 * rows["emosem-single"]["threshold_val"])]
    assert chosen["mean_iou"] == best["mean_iou"]
    assert {file.stem for file in (plots / "thresholds").iterdir()} == {
        "single", "multi", "no-prefix", "teacher",
    }  # fmt: skip


def test_a_rerun_writes_the_same_bytes(
    world: tuple[Paths, BackbonesParams],  # noqa: F811
    metrics: dict[str, Any],  # noqa: F811
) -> None:
    folder = world[0].metrics
    files = [folder / "summary.json", *sorted((folder / "plots").rglob("*.csv"))]
    before = [file.read_bytes() for file in files]
    score_methods(world[0], ScoreParams(), world[1])
    assert [file.read_bytes() for file in files] == before
