"""A run of every step on a handful of artworks, and what of it has to be the same after any mishap."""

import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml

from pipeline.common.fingerprint import sha256_file
from tests.imports import ROOT

STEPS = (
    "gallery", "utterances", "regions", "features", "similarity", "masks", "shards", "train single",
    "predict single", "alignment", "baselines", "score", "report",
)  # fmt: skip
FOLDERS = ("data", "runs", "metrics", "report")
OF_A_CALL = ("seconds", "timestamp")
"""Keys of what a call took, which no two calls share."""


def write_params(folder: Path) -> None:
    """24 artworks in 4 shards, and one training of 2 epochs with a checkpoint every other step."""
    params: dict[str, Any] = yaml.safe_load((ROOT / "params.yaml").read_text(encoding="utf-8"))
    weights = ROOT / "weights" / "tiny"
    params["paths"]["weights"] = str(weights)
    params["backbones"] = {
        "sam": {"arch": "tiny", "checkpoint": str(weights / "sam.safetensors")},
        "clip": {"name": "tiny", "checkpoint": str(weights / "clip.safetensors")},
        "vinvl": {"checkpoint": str(weights / "vinvl.safetensors")},
        "language_model": str(weights / "gpt2"),
        "device": "cpu",
    }
    params["gallery"]["artworks"] = 24
    params["utterances"]["num_shards"] = 4
    params["regions"].update(min_detections=5, max_detections=6)
    params["train"].update(epochs=2, batch_size=8, checkpoint_every=2, log_every=1, validation_artworks=4)
    params["train"]["variants"] = {"single": {"paradigm": "single"}}
    params["predict"]["seeds"] = [0]
    params["alignment"]["epochs"] = 1
    params["baselines"]["wesd"]["epochs"] = 2
    params["report"]["items"] = 3
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "params.yaml").write_text(yaml.safe_dump(params, sort_keys=False), encoding="utf-8")


def _without_times(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _without_times(item) for key, item in value.items() if key not in OF_A_CALL}
    return [_without_times(item) for item in value] if isinstance(value, list) else value


def _json_without_times(path: Path) -> str:
    """Text of a JSON file without times; its hash where it is damaged."""
    try:
        return json.dumps(_without_times(json.loads(path.read_bytes())), sort_keys=True)
    except ValueError:
        return sha256_file(path)


def contents(folder: Path) -> dict[str, str]:
    """Every file of a run, hidden and temporary ones too: its hash, or its text without times (JSON, curves).

    Not data/cache, which remembers the inputs' times and may be deleted.
    """
    found: dict[str, str] = {}
    for top in FOLDERS:
        for path in sorted((folder / top).rglob("*")):
            name = path.relative_to(folder).as_posix()
            if not path.is_file() or name.startswith("data/cache/"):
                continue
            if path.suffix == ".json" and "dvclive" not in name:
                found[name] = _json_without_times(path)
            elif path.suffix == ".tsv" and "dvclive" in name:
                lines = [line.split("\t") for line in path.read_text(encoding="utf-8").splitlines()]
                kept = [place for place, column in enumerate(lines[0]) if column not in OF_A_CALL]
                found[name] = "\n".join("\t".join(line[place] for place in kept) for line in lines)
            else:
                found[name] = sha256_file(path)
    return found


def differences(there: dict[str, str], wanted: dict[str, str]) -> list[str]:
    """One line per file that is missing, too much, or another."""
    lines = [f"missing {name}" for name in wanted.keys() - there.keys()]
    lines += [f"left over {name}" for name in there.keys() - wanted.keys()]
    lines += [f"changed {name}" for name in there.keys() & wanted.keys() if there[name] != wanted[name]]
    return sorted(lines)


class StepDriver:
    """Runs steps in folders by `tests.worlds.step_driver`, and kills them."""

    def __init__(self, scratch: Path, steps: Sequence[str] = STEPS) -> None:
        stages = dict.fromkeys(step.split()[0] for step in steps)
        self._log = scratch / "step.log"
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.worlds.step_driver", *stages],
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def run(self, folder: Path, step: str, **how: Any) -> dict[str, Any]:
        """Run a step; {"killed", "status", "seconds", "output"}."""
        process = self._process
        assert process.stdin and process.stdout and process.stderr
        print(
            json.dumps({"folder": str(folder), "step": step, "log": str(self._log)} | how),
            file=process.stdin,
            flush=True,
        )
        answer = process.stdout.readline()
        if not answer:
            raise RuntimeError(process.stderr.read())
        result: dict[str, Any] = json.loads(answer)
        return result

    def close(self) -> None:
        self._process.communicate()
