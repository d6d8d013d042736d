"""A trained run with its encoders, and pictures of one's own."""

from pathlib import Path

import pytest

from pipeline.backbones.params import BackbonesParams
from tests.worlds.own_pictures import new_run, provenance_of, write_pictures, write_weights


@pytest.fixture(scope="package")
def backbones(tmp_path_factory: pytest.TempPathFactory) -> BackbonesParams:
    """Weights of small encoders. Read only."""
    return write_weights(tmp_path_factory.mktemp("weights"))


@pytest.fixture(scope="package")
def run(backbones: BackbonesParams, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model's folder that names these encoders as those of its training. Read only."""
    return new_run(backbones, tmp_path_factory.mktemp("runs") / "single", provenance_of(backbones))


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    """A folder of pictures, to be changed at will."""
    return write_pictures(tmp_path / "pictures")
