"""What `doctor` says of the working directory, the folder of the fixture `checkout`."""

from pathlib import Path

import yaml

from model.metrics.text import find_java
from pipeline.doctor.examine import examine as examine_
from pipeline.doctor.examine import run_check
from pipeline.doctor.finding import Check, Context, Finding


def write_params(**changes: object) -> None:
    sections: dict[str, object] = {
        "paths": {
            "artemis": "gallery/artemis/artemis_dataset_release_v0.csv",
            "wikiart": "gallery/wikiart",
            "apolo": "gallery/apolo",
        },
        "backbones": {
            "sam": {"arch": "tiny", "checkpoint": "weights/sam.safetensors"},
            "clip": {"name": "tiny", "checkpoint": "weights/clip.safetensors"},
            "vinvl": {"checkpoint": "weights/vinvl.safetensors"},
            "language_model": "weights/gpt2",
        },
        "regions": {"source": "vinvl"},
    }
    Path("params.yaml").write_text(yaml.safe_dump(sections | changes))


def examine() -> list[Finding]:
    return examine_(Path("params.yaml"), find_java)


def of(name: str, findings: list[Finding] | None = None) -> list[Finding]:
    return [finding for finding in (findings or examine()) if finding.check == name]


def only(name: str, check: Check) -> Finding:
    """The single finding of one check on the folder."""
    context = Context(Path("params.yaml"), find_java)
    (finding,) = run_check(name, check, context)
    return finding
