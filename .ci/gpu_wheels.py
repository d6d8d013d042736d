"""The wheels that `bench gpu` needs on a borrowed machine that has torch, but no network.

    python .ci/gpu_wheels.py wheels [NAME ...]      # NAME: packages that the machine lacks besides

Downloads them into the folder, for Python 3.12 on x86-64 Linux, at the versions of constraints.txt; then adds
up their sizes. Exit code 1 when they are more than 64 MiB, or there are two versions of one.
"""

import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
NEEDED = (
    "annotated-types",
    "ftfy",
    "open-clip-torch",
    "pydantic",
    "pydantic-core",
    "segment-anything",
    "simplejpeg",
    "typing-inspection",
    "wcwidth",
)
"""What an image for deep learning usually lacks of what `model.bench.gpu` imports."""
EXPECTED = (
    "accelerate", "huggingface-hub", "jinja2", "markupsafe", "numpy", "opencv-python-headless", "packaging",
    "pillow", "pyarrow", "pyyaml", "regex", "requests", "safetensors", "tokenizers", "torch", "torchvision",
    "tqdm", "transformers", "typer",
)  # fmt: skip
"""What it usually has, with what these need; each may be named as NAME, but torch is too large."""
LIMIT = 64 * 2**20
PYTHON = "3.12"
PLATFORMS = [f"manylinux_2_{minor}_x86_64" for minor in (34, 31, 28, 27, 24, 17)] + ["manylinux2014_x86_64"]


def pinned(names: Sequence[str], constraints: str) -> list[str]:
    """NAME==VERSION of each. Raises `KeyError` for one that the lock does not have."""
    lines = (line.partition("==") for line in constraints.splitlines() if "==" in line and line[0] != "#")
    versions = {name: version for name, _, version in lines}
    return [f"{name}=={versions[name]}" for name in names]


def problem(sizes: dict[str, int]) -> str:
    """What is wrong with wheels of these file names and sizes, or ""."""
    names = [name.partition("-")[0].lower() for name in sizes]
    if doubled := sorted({name for name in names if names.count(name) > 1}):
        return f"several versions of {', '.join(doubled)}: pip refuses them; empty the folder"
    if sum(sizes.values()) > LIMIT:
        return f"more than {LIMIT / 2**20:.0f} MiB"
    return ""


def main(folder: Path, more: Sequence[str]) -> int:
    """Download, list, add up."""
    try:
        wanted = pinned([*NEEDED, *more], (ROOT / "constraints.txt").read_text(encoding="utf-8"))
    except KeyError as error:
        print(f"constraints.txt has no {error.args[0]}", file=sys.stderr)
        return 2
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--only-binary=:all:"]
    command += ["--python-version", PYTHON, "--implementation", "cp"]
    command += [word for abi in ("cp312", "abi3", "none") for word in ("--abi", abi)]
    command += [word for platform in PLATFORMS for word in ("--platform", platform)]
    subprocess.run([*command, "--dest", str(folder), *wanted], check=True)  # noqa: S603 - names of our lock
    sizes = {wheel.name: wheel.stat().st_size for wheel in sorted(folder.glob("*.whl"))}
    for name, size in sizes.items():
        print(f"{size:>12,}  {name}")
    print(f"{sum(sizes.values()):>12,}  bytes of {LIMIT:,}")
    if found := problem(sizes):
        print(found, file=sys.stderr)
    return int(bool(found))


if __name__ == "__main__":
    if len(sys.argv) < 2:
        sys.exit(__doc__)
    sys.exit(main(Path(sys.argv[1]), sys.argv[2:]))
