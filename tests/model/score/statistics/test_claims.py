"""The claims against what the paper says in words, verdicts by hand, and the page that they become."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from model.score.params import StatisticsParams
from model.score.statistics.bootstrap import holm
from model.score.statistics.claims import CLAIMS, judge, paper_difference, recipe_claims, verdict
from model.score.statistics.claims_page import markdown, score_seeds, write_claims
from model.score.statistics.seeds import over_seeds
from pipeline.common.errors import UserError
from tests.imports import ROOT
from tests.model.score.statistics.test_bootstrap import item_rows, scores_of
from tests.model.score.statistics.test_seeds import cells, written

FEW = StatisticsParams(resamples=200, unit="painting")
TRAINED = ("emosem-single", "emosem-multi")
OF_VARIANT = {
    "single": "emosem-single",
    "multi": "emosem-multi",
    "no-prefix": "emosem-single:no-prefix",
    "prefix-mask": "emosem-single:prefix-mask",
    "prefix-prompt": "emosem-single:prefix-prompt",
    "ambiguity-aware": "emosem-single:ambiguity-aware",
    "ft-md": "emosem-single:ft-md",
    "sca-base": "sca-base",
    "sca-untied": "sca-untied",
}
"""Names in params -> methods; tests/model/train/test_ablations.py trains each to see that it is so."""


def test_the_papers_words_are_the_printed_differences() -> None:
    """Sec. 4.2 and 4.3: R2, R3, R5 to R8 name these gains."""
    told = {(c.ahead, c.behind, c.column): paper_difference(c) for c in CLAIMS}
    single = "emosem-single"
    assert told[single, "clip+vinvl", "seg_pr50"] == 5.4  # 45.45 - 40.05, Tab. 1
    assert told[single, "clip+vinvl", "seg_pr50_val"] is None
    assert (told[single, "sca-base", "ea"], told[single, "sca-base", "meteor"]) == (14.0, 1.7)
    assert (told[single, "sca-untied", "ea"], told[single, "sca-untied", "seg_pr50"]) == (6.7, 0.46)
    assert told[f"{single}:prefix-mask", f"{single}:no-prefix", "ea"] == 40.2
    assert told[f"{single}:prefix-prompt", f"{single}:no-prefix", "ea"] == 40.4
    assert told[single, f"{single}:no-prefix", "ea"] == 44.2
    assert told[single, f"{single}:no-prefix", "seg_pr50"] == 2.26
    assert told[single, f"{single}:ambiguity-aware", "ea"] == 1.0
    assert told[single, f"{single}:ft-md", "seg_pr50"] == 2.63
    assert told["emosem-multi", single, "seg_pr50"] == 1.23
    assert told[single, "emosem-multi", "ea"] == 2.0
    assert all(difference is None or difference > 0 for difference in told.values())


def test_the_proof_gallery_trains_every_method_of_a_claim() -> None:
    variants = yaml.safe_load((ROOT / "params/proof.yaml").read_text(encoding="utf-8"))["train"]["variants"]
    trained = {OF_VARIANT[name] for name in variants}
    named = {method for claim in CLAIMS for method in (claim.ahead, claim.behind)}
    assert named == trained | {"clip+vinvl"}
    assert len({(c.ahead, c.behind, c.column) for c in CLAIMS}) == len(CLAIMS) == 21


def row(**changes: Any) -> dict[str, Any]:
    plain = {
        "ahead": "emosem-single", "behind": "emosem-multi", "seeds": [3, 3], "paper": 2.0,
        "difference": 3.0, "low": 1.0, "high": 5.0, "p": 0.001, "p_holm": 0.01,
    }  # fmt: skip
    return plain | changes


@pytest.mark.parametrize(
    ("changes", "wanted"),
    [
        ({}, "holds"),
        ({"p_holm": 0.06}, "cannot be told"),
        ({"difference": -3.0, "low": -5.0, "high": -1.0}, "does not hold"),
        ({"difference": 0.1, "low": -0.7, "high": 0.9, "p_holm": 1.0}, "does not hold"),  # less than a point
        ({"difference": 0.1, "low": -0.9, "high": 1.1, "p_holm": 1.0}, "cannot be told"),
        ({"difference": 0.1, "low": -0.3, "high": 0.5, "p_holm": 1.0, "paper": 0.3}, "cannot be told"),
        ({"difference": 0.1, "low": -0.1, "high": 0.25, "p_holm": 1.0, "paper": 0.3}, "does not hold"),
        ({"difference": 0.1, "low": -0.7, "high": 0.9, "p_holm": 1.0, "paper": None}, "does not hold"),
        ({"seeds": [3, 1]}, "cannot be told"),
        ({"seeds": [3, 1], "behind": "clip+vinvl"}, "holds"),  # the labels are not trained
        ({"seeds": [3, 1], "behind": "paper/clip+vinvl"}, "holds"),
        ({"seeds": [1, 1], "behind": "clip+vinvl"}, "cannot be told"),
    ],
)
def test_the_rule(changes: dict[str, Any], wanted: str) -> None:
    assert verdict(row(**changes), 0.05) == wanted
    assert verdict({key: value for key, value in row().items() if key != "p"}, 0.05) == "not measured"


def tables(seeds: int, lead: float = 0.2) -> list[Any]:
    """Single is `lead` above the teacher; multi is level with single."""
    rng, paintings = np.random.default_rng(0), np.repeat(np.arange(60), 2)
    common = rng.normal(0, 0.1, 120)
    teacher = 0.4 + common
    return [
        cells(
            {"clip+vinvl": teacher}
            | {name: 0.4 + lead + common + rng.normal(0, 0.08, 120) for name in TRAINED},
            paintings,
        )
        for _ in range(seeds)
    ]


def test_what_is_there_is_judged_and_corrected_together() -> None:
    rows = judge(over_seeds(tables(3), FEW))
    assert len(rows) == len(CLAIMS)
    tested = [one for one in rows if "p" in one]
    assert {(one["ahead"], one["behind"]) for one in tested} == {
        ("emosem-single", "clip+vinvl"), ("emosem-multi", "clip+vinvl"), ("emosem-multi", "emosem-single"),
    }  # fmt: skip
    assert [one["p_holm"] for one in tested] == holm([one["p"] for one in tested])
    by_claim = {(one["ahead"], one["behind"], one["column"]): one["verdict"] for one in rows}
    assert by_claim["emosem-single", "clip+vinvl", "seg_pr50"] == "holds"
    assert by_claim["emosem-multi", "clip+vinvl", "seg_pr50_val"] == "holds"
    assert by_claim["emosem-single", "sca-base", "ea"] == "not measured"
    assert {one["verdict"] for one in judge(over_seeds(tables(1), FEW)) if "p" in one} == {"cannot be told"}


def seed_scores(folder: Path, number: int, lead: float = 0.2) -> Path:
    rng = np.random.default_rng(number)
    common = np.random.default_rng(99).normal(0, 0.1, 80)
    rows = item_rows("clip+vinvl", (0.4 + common).clip(0, 1).tolist())
    for name in TRAINED:
        rows += item_rows(name, (0.4 + lead + common + rng.normal(0, 0.05, 80)).clip(0, 1).tolist())
    return written(folder, scores_of(rows, []))


def test_recipes_are_paired_over_the_same_items(tmp_path: Path) -> None:
    own = {seed: seed_scores(tmp_path / f"own{seed}", seed, 0.3) for seed in range(3)}
    others = [seed_scores(tmp_path / f"other{seed}", 10 + seed, 0.0) for seed in range(3)]
    content = score_seeds(own, FEW, {"paper": others})
    assert content["seeds"] == [0, 1, 2] and content["beside"] == {"paper": 3}
    assert {"emosem-single", "paper/emosem-single", "paper/clip+vinvl"} <= content["methods"].keys()
    verdicts = {(one["ahead"], one["behind"], one["column"]): one for one in content["claims"]}
    better = verdicts["emosem-single", "paper/emosem-single", "seg_pr50"]
    values = [content["methods"][m]["seg_pr50"]["value"] for m in ("emosem-single", "paper/emosem-single")]
    assert better["verdict"] == "holds" and better["difference"] == pytest.approx(values[0] - values[1])
    assert verdicts["clip+vinvl", "paper/clip+vinvl", "seg_pr50"]["difference"] == 0.0  # the same labels
    assert verdicts["clip+vinvl", "paper/clip+vinvl", "seg_pr50"]["verdict"] == "does not hold"
    for bad in ("", "a/b", "a:b"):
        with pytest.raises(UserError, match="cannot be a name"):
            score_seeds(own, FEW, {bad: others})
    fewer = written(tmp_path / "fewer", scores_of(item_rows("clip+vinvl", [0.5] * 10), []))
    with pytest.raises(UserError, match="80 and 10"):
        score_seeds(own, FEW, {"paper": [fewer]})
    assert len(recipe_claims("paper")) == 10


def test_the_page_has_a_row_for_every_claim_and_the_same_bytes_again(tmp_path: Path) -> None:
    own = {seed: seed_scores(tmp_path / f"own{seed}", seed) for seed in range(2)}
    content = score_seeds(own, FEW, {})
    page = write_claims(tmp_path / "metrics", content, ["Data: a|b."])
    assert page == (tmp_path / "metrics" / "claims.md").read_text(encoding="utf-8")
    assert page == markdown(score_seeds(own, FEW, {}), ["Data: a|b."])
    lines = [line for line in page.splitlines() if line.startswith(("| Tab.", "| Fig."))]
    assert len(lines) == len(CLAIMS) and all(line.count(" | ") == 8 for line in lines)
    first = content["claims"][0]
    assert f"{first['difference']:+.2f} [{first['low']:+.2f}, {first['high']:+.2f}]" in lines[0]
    assert "Data: a\\|b. 80 test items of 40 paintings; training seeds 0, 1." in page
    single = content["methods"]["emosem-single"]["seg_pr50"]
    assert " / ".join(f"{value:.1f}" for value in single["by_seed"]) in page
    assert f"Of {len(CLAIMS)}: " in page
