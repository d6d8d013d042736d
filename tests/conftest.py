"""Shared fixtures: small worlds on disk, and the real paintings where they are at hand."""

import os
import shutil
from pathlib import Path

import pytest
from hypothesis import settings

os.environ.setdefault("HF_HUB_OFFLINE", "1")  # a test must never wait for a hub
os.environ.setdefault("OMP_NUM_THREADS", "1")  # tiny tensors: a second thread only waits for the first

ROOT = Path(__file__).resolve().parents[1]
REAL_ART = ROOT.parent / "shared" / "real_art"
settings.register_profile("no clock", deadline=None)  # a busy machine makes no test wrong
settings.load_profile("no clock")
LONGEST = (
    "tests/test_dag.py",
    "tests/pipeline/parallel/test_faults.py",
    "tests/pipeline/parallel/test_dask_cluster.py",
    "tests/model/train/test_train.py",
)
"""Files that take a minute or more: begun first, so that no process is left alone with one at the end."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Put the longest files first; all else stays in its order."""
    rank = {ROOT / name: place for place, name in enumerate(LONGEST)}
    items.sort(key=lambda item: rank.get(item.path, len(rank)))


@pytest.fixture(scope="session")
def tiny_gallery(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A gallery of 12 artworks in the released layouts."""
    from pipeline.gallery.release import draw_gallery
    from pipeline.gallery.world import GalleryParams

    out = tmp_path_factory.mktemp("gallery")
    draw_gallery(out, GalleryParams(artworks=12, seed=7))
    return out


@pytest.fixture
def checkout(tiny_gallery: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working directory, as after a checkout: a copied gallery, small weights, params.yaml."""
    from tests.worlds.backbones import write_backbones
    from tests.worlds.checkout import write_params

    shutil.copytree(tiny_gallery, tmp_path / "gallery")
    write_backbones(tmp_path / "weights")
    shutil.copytree(ROOT / "weights" / "tiny" / "gpt2", tmp_path / "weights" / "gpt2")
    (tmp_path / "weights" / "sha256.json").unlink()
    for file in (ROOT / "weights" / "tiny").glob("vinvl.*"):
        shutil.copy(file, tmp_path / "weights")
    monkeypatch.chdir(tmp_path)
    write_params()
    return tmp_path


@pytest.fixture(scope="session")
def indexed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Root of a world whose shards are indexed. Read only: damage a copy."""
    from pipeline.shards.step import ShardsParams, build_shards
    from tests.worlds import indexed_shards

    root = tmp_path_factory.mktemp("shards")
    indexed_shards.write_shards(indexed_shards.paths_in(root))
    build_shards(indexed_shards.paths_in(root), ShardsParams())
    return root


@pytest.fixture(scope="session")
def real_art() -> Path:
    """Seven real public-domain paintings in ArtEmis, WikiArt and APOLO layout; skips where absent."""
    if not (REAL_ART / "apolo" / "apolo.json").is_file():
        pytest.skip("the folder shared/real_art is not beside this checkout")
    return REAL_ART
