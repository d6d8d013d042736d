"""Shared fixtures: a small drawn gallery, and the real paintings where they are at hand."""

import os
from pathlib import Path

import pytest

os.environ.setdefault("HF_HUB_OFFLINE", "1")  # a test must never wait for a hub
os.environ.setdefault("OMP_NUM_THREADS", "1")  # tiny tensors: a second thread only waits for the first

REAL_ART = Path(__file__).resolve().parents[2] / "shared" / "real_art"


@pytest.fixture(scope="session")
def tiny_gallery(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A gallery of 12 artworks in the released layouts."""
    from pipeline.gallery import GalleryParams, build

    out = tmp_path_factory.mktemp("gallery")
    build(out, GalleryParams(artworks=12, seed=7))
    return out


@pytest.fixture(scope="session")
def real_art() -> Path:
    """Seven real public-domain paintings in ArtEmis, WikiArt and APOLO layout; skips where absent."""
    if not (REAL_ART / "apolo" / "apolo.json").is_file():
        pytest.skip("the folder shared/real_art is not beside this checkout")
    return REAL_ART
