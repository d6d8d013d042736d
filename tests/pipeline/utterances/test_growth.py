"""Growth and repair cost the shards concerned, and end where a fresh build would."""

import json
import shutil
from pathlib import Path

import pandas as pd
import pytest
import yaml
from typer.testing import CliRunner

import cli
from pipeline.common.schema import artwork_key, shard_of
from stages import features, masks, regions, similarity, utterances
from tests.pipeline.parallel.test_faults import finished, hashes, write_params

STEPS = (utterances, regions, similarity, masks, features)
SHARDS = 6


def build(folder: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, dict]:
    monkeypatch.chdir(folder)
    return {step.STAGE.step: step.STAGE.run(Path("params.yaml")) for step in STEPS}


def world(folder: Path, gallery: Path, rows: pd.DataFrame) -> None:
    """The gallery's pictures with these rows; all of train, so that nobody's split moves."""
    write_params(folder, gallery)
    params = yaml.safe_load((folder / "params.yaml").read_text())
    params["paths"] |= {"artemis": "artemis.csv", "apolo": "no-apolo"}
    params["utterances"] = {"num_shards": SHARDS, "fractions": [1.0, 0.0, 0.0]}
    (folder / "params.yaml").write_text(yaml.safe_dump(params))
    rows.to_csv(folder / "artemis.csv", index=False)


def test_new_artworks_redo_their_shards_alone(
    tiny_gallery: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = pd.read_csv(tiny_gallery / "artemis" / "artemis_dataset_release_v0.csv")
    shards = [
        shard_of(artwork_key(*names), SHARDS)
        for names in zip(rows["art_style"], rows["painting"], strict=True)
    ]
    crowded = max(set(shards), key=lambda shard: rows["painting"][pd.Series(shards) == shard].nunique())
    late = (pd.Series(shards) == crowded) & (rows["painting"] == rows["painting"][shards.index(crowded)])
    rows = pd.concat([rows[~late], rows[late]])  # new rows come at the end of the csv

    grown, fresh = tmp_path / "grown", tmp_path / "fresh"
    world(grown, tiny_gallery, rows[: -late.sum()])
    build(grown, monkeypatch)
    before = {step: finished(grown, step) for step in ("regions", "similarity", "masks", "features")}
    rows.to_csv(grown / "artemis.csv", index=False)
    metrics = build(grown, monkeypatch)
    for step, files in before.items():
        assert metrics[step]["done"] == 1
        after = finished(grown, step)
        changed = {name[:6] for name, stat in files.items() if after[name] != stat}
        assert changed == {f"{crowded:06d}"} and after.keys() == files.keys()

    world(fresh, tiny_gallery, rows)
    build(fresh, monkeypatch)
    assert hashes(grown) == hashes(fresh)


def test_retry_failed_makes_the_shards_with_rejects_again(
    tiny_gallery: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_params(tmp_path, tiny_gallery)
    monkeypatch.chdir(tmp_path)
    shutil.copytree(tiny_gallery / "wikiart", "wikiart")
    params = yaml.safe_load(Path("params.yaml").read_text())
    params["paths"]["wikiart"] = "wikiart"
    Path("params.yaml").write_text(yaml.safe_dump(params))
    utterances.STAGE.run(Path("params.yaml"))
    picture = min(Path("wikiart").rglob("*.jpg"))
    whole = picture.read_bytes()
    picture.write_bytes(bytes(len(whole)))  # unreadable for a while, and of the same size
    metrics = features.STAGE.run(Path("params.yaml"))
    assert metrics["rejected"] == 1
    before = finished(tmp_path, "features")
    picture.write_bytes(whole)

    plain = CliRunner().invoke(cli.app, ["cache-features", "--json"])
    assert json.loads(plain.stdout)["done"] == 0 and finished(tmp_path, "features") == before
    retried = CliRunner().invoke(cli.app, ["cache-features", "--retry-failed", "--json"])
    counts = json.loads(retried.stdout)
    assert (counts["done"], counts["kept"], counts["rejected"]) == (1, 12, 0)
    after = finished(tmp_path, "features")
    assert len({name[:6] for name, stat in before.items() if after[name] != stat}) == 1
