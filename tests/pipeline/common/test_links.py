"""Links between runs lead home, also where a folder on the way is a link itself."""

from pathlib import Path

import pytest

from pipeline.common.links import link_text


def test_the_text_is_that_of_a_plain_tree(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("data/proof/seed-0").mkdir(parents=True)
    assert link_text(Path("data/proof/features"), Path("data/proof/seed-0")) == "../features"
    assert link_text(Path("data/features"), Path("data/proof")) == "../features"


@pytest.mark.parametrize("linked", ["data", "round", "both"])
def test_folders_that_are_links(tmp_path: Path, linked: str) -> None:
    disk = tmp_path / "far" / "away" / "disk"
    (disk / "data" / "features").mkdir(parents=True)
    (disk / "round").mkdir()
    for name in ("data", "round"):
        if linked in (name, "both"):
            (tmp_path / name).symlink_to(disk / name)
        else:
            (tmp_path / name / "features" if name == "data" else tmp_path / name).mkdir(parents=True)
    link = tmp_path / "round" / "features"
    link.symlink_to(link_text(tmp_path / "data" / "features", tmp_path / "round"))
    assert link.resolve() == (tmp_path / "data" / "features").resolve() and link.is_dir()


def test_a_link_is_not_followed(tmp_path: Path) -> None:
    """It may be made to lead elsewhere later."""
    (tmp_path / "data").mkdir()
    (tmp_path / "disk").mkdir()
    (tmp_path / "data" / "features").symlink_to("../disk")
    assert link_text(tmp_path / "data" / "features", tmp_path / "disk") == "../data/features"
