"""`doctor` knows beforehand what DVC itself refuses: each situation is also given to `dvc repro`."""

import shutil
import subprocess
from pathlib import Path

import pytest
import yaml

from pipeline.common.params import Paths
from pipeline.doctor.check_machine import dvc_refusal

SITUATIONS = {
    "plain": ("data", True),
    "no git": ("data", False),
    "no git, and told so": ("data", True),
    "no git, a link, and told so": ("data", True),
    "git of a folder above": ("data", True),
    "data is a link outside": ("data", False),
    "data is a link inside": ("data", True),
    "data is a link to nothing": ("data", False),
    "a step's folder is a link": ("data", True),
    "data outside": ("../disk", False),
    "absolute data inside": ("{here}/data", True),
    "absolute data outside": ("{here}/../disk", False),
}


def dvc(*arguments: str) -> int:
    from dvc.cli import main

    return int(main([*arguments, "-q"]))


def arrange(situation: str, root: Path) -> None:
    """A checkout of one stage."""
    disk = root.parent / "disk"
    disk.mkdir()
    subprocess.run(["git", "init", "-q", str(root.parent if "above" in situation else root)], check=True)
    assert dvc("init", *(["--subdir"] if "above" in situation else [])) == 0
    if "no git" in situation:
        shutil.rmtree(root / ".git")
    if "told so" in situation:
        assert dvc("config", "core.no_scm", "true") == 0
    if "data is a link" in situation or "a link, and" in situation:
        places = {"outside": disk, "inside": root / "big", "nothing": disk / "none"}
        place = places.get(situation.rsplit(maxsplit=1)[-1], disk)
        if "nothing" not in situation:
            place.mkdir(exist_ok=True)
        (root / "data").symlink_to(place)
    if "step's folder" in situation:
        (root / "data").mkdir()
        (root / "data" / "a").symlink_to(disk)


@pytest.mark.parametrize("situation", SITUATIONS)
def test_as_dvc_itself_says(situation: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = tmp_path / "checkout"
    root.mkdir()
    monkeypatch.chdir(root)
    arrange(situation, root)
    data, fine = SITUATIONS[situation]
    data = data.format(here=root)
    out = f"{data}/a"
    stage = {"cmd": f"mkdir -p {out} && touch {out}/x", "outs": [out]}
    (root / "dvc.yaml").write_text(yaml.safe_dump({"stages": {"a": stage}}))
    refusal = dvc_refusal(root, Paths(data=Path(data)))
    assert (refusal is None) is fine, refusal
    assert (dvc("repro") == 0) is fine


def test_the_case_of_a_source_folder(checkout: Path) -> None:
    """Without .git: the check fails, with the way out."""
    from pipeline.doctor.check_machine import CHECKS
    from tests.worlds.checkout import only

    (checkout / ".dvc").mkdir()
    (checkout / "dvc.yaml").write_text("stages: {}\n")
    found = only("dvc", CHECKS["dvc"])
    assert (found.status, "git init" in found.way_out) == ("fail", True)
