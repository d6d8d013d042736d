"""Goes through a folder of handed cases: ``python -m tests.go_through_cases CASES [REFERENCE]``.

CASES holds shell scripts, each about one fault. REFERENCE is a finished small run (params.yaml, data/ ...);
scripts that need one are left out without it. The scripts name modules as they were called when they were
written. Prints what came of each, and exits with 1 where that is not what must come.
"""

import os
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from tests.imports import ROOT

RENAMED = {
    "from pipeline import artemis\n": "from pipeline.releases import artemis\n",
    "artemis.read(f": "artemis.read_csv(f",
    "from pipeline.artworks import BadImage, verify\n": "from pipeline.releases.wikiart import (\n"
    "    BadImage, verify_picture as verify)\n",
    "from pipeline import utterances\n": "from pipeline.utterances import step as utterances\n",
    "from pipeline import features, utterances\n": (
        "from pipeline.features import step as features\nfrom pipeline.utterances import step as utterances\n"
    ),
    "from pipeline.backbones import BackbonesParams": "from pipeline.backbones.params import BackbonesParams",
    "from pipeline.features import FeaturesParams": "from pipeline.features.params import FeaturesParams",
    "from pipeline.params import Paths": "from pipeline.common.params import Paths",
    "from pipeline.params import UserError": "from pipeline.common.errors import UserError",
    "pipeline.utterances import UtterancesParams": "pipeline.utterances.step import UtterancesParams",
    "utterances.build(": "utterances.build_utterances(",
    "features.jobs(paths, ": "features.feature_jobs(open_artworks(paths), paths, ",
    "seen = []": "from pipeline.common.tables import open_artworks\nseen = []",
    "from pipeline import storage\n": "from pipeline.common import files as storage\n",
    "from model.checkpoint import load_sam_decoder": "from model.emosem.pretrained import load_sam_decoder",
}
"""What the scripts say -> what it is called now."""
ALONE = {
    "csv-of-pandas.sh": (r"repetition=7[,)](.*\n)*.*empty-utterance", "Traceback"),
    "damaged-jpeg-accepted.sh": (
        r"zeros: (?!accepted).*\n.*there: (?!accepted).*\n40 bytes",
        "zeros: accepted|Traceback",
    ),
    "one-file-two-artworks.sh": (r"0 of 60 pictures", "Traceback"),
    "same-size-picture-change.sh": (r"equal: False", "Traceback"),
    "torch-save-enospc.sh": (r"RunFailed \|.*disk or your quota is full", "Traceback"),
    "sam-wrapped-or-old-format.sh": (r"(.* ok\n){4}", "Traceback"),
}
"""Script -> what its output must hold, and must not."""
ON_A_RUN = {
    "curves-empty-file.sh": (r"exit code 0", "Traceback"),
    "gpt2-without-safetensors.sh": (r"exit code 0", "Traceback"),
    "disk-full-in-train.sh": (r"first exit code 1", "Traceback"),
    "reliability/mixed_params.sh": (r"shards rc=2", "Traceback|--verify: 0"),
    "reliability/rot_kept_join.sh": (r"shards rc=0", "Traceback"),
    "reliability/rot_similarity.sh": (r"similarity step", "Traceback"),
    "reliability/stale_index.sh": (
        r"shards step(.*\n)*report rc=2(.*\n)*.*shards step(.*\n)*train rc=2",
        "Traceback",
    ),
}


def run(script: Path, folder: Path, reference: Path | None) -> str:
    """Output of a script, with today's names, in a folder with our code (and a copy of the reference)."""
    text = script.read_text(encoding="utf-8")
    for old, new in RENAMED.items():
        text = text.replace(old, new)
    ours = folder / script.name
    ours.write_text(text, encoding="utf-8")
    for name in ("cli.py", "pipeline", "model", "stages", "weights"):
        (folder / name).symlink_to(ROOT / name)
    if reference is not None:
        for name in ("data", "runs", "metrics", "params.yaml"):
            source = reference / name
            shutil.copytree(source, folder / name) if source.is_dir() else shutil.copy(source, folder)
        params = folder / "params.yaml"
        weights = str(ROOT / "weights" / "tiny")  # the scripts work in other folders
        params.write_text(
            params.read_text(encoding="utf-8").replace("weights/tiny", weights), encoding="utf-8"
        )
    where = {
        "PY": sys.executable,
        "PYTHON": sys.executable,
        "CODE": str(ROOT),
        "SCRATCH": str(folder / "scratch"),
    }
    (folder / "scratch").mkdir()
    environment = {
        **os.environ,
        **where,
        "REF": str(folder),
        "PYTHONPATH": str(ROOT),
        "HF_HUB_OFFLINE": "1",
    }
    arguments = ("64", "16") if script.name == "rot_similarity.sh" else ()
    done = subprocess.run(
        ["bash", str(ours), *arguments],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    return done.stdout + done.stderr


def main(cases: Path, reference: Path | None) -> int:
    """Go through the scripts; returns how many did not end as they must."""
    wrong = 0
    for name, (must, must_not) in ALONE.items() | (ON_A_RUN.items() if reference else set()):
        with tempfile.TemporaryDirectory() as folder:
            output = run(cases / name, Path(folder), reference if name in ON_A_RUN else None)
        good = re.search(must, output) is not None and re.search(must_not, output) is None
        wrong += not good
        print(
            f"{'as it must' if good else 'WRONG':12} {name}",
            *([] if good else [output[-1500:]]),
            sep="\n" * (not good),
        )
    return wrong


if __name__ == "__main__":
    sys.exit(1 if main(Path(sys.argv[1]), Path(sys.argv[2]) if len(sys.argv) > 2 else None) else 0)
