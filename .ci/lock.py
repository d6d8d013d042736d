"""`pip freeze --all` on stdin -> constraints.txt on stdout; see `make lock`."""

import re
import sys

HEADER = """\
# Versions that `make repro` and `make test` install: names and versions alone.
# Made by `make lock` from a fresh resolve of pyproject.toml on Python {python}; do not edit by hand.
#
# Local version labels (torch 2.x.y+cpu) are cut off: by PEP 440 `torch==2.x.y` also matches 2.x.y+cpu and
# 2.x.y+cu130, so CPU and GPU builds both fit. What only a CUDA build of torch depends on (nvidia-*, cuda-*,
# triton) is left out: torch itself pins those. pip is left out because it is what installs.
"""
FOLLOWS_TORCH = re.compile(r"(nvidia|cuda)-|triton$|pytorch-triton")
INSTALLER = {"pip"}


def pins(freeze: str) -> list[str]:
    """Lines NAME==VERSION, sorted, names normalised by PEP 503. Raises `ValueError` for anything else."""
    found = {}
    for line in freeze.split("\n"):
        if not line.strip():
            continue
        match = re.fullmatch(r"([A-Za-z0-9._-]+)==([^+\s]+)(\+\S+)?", line.strip())
        if match is None:
            raise ValueError(f"{line!r} is no NAME==VERSION; only packages of an index can be pinned")
        name = re.sub(r"[-_.]+", "-", match[1]).lower()
        if name not in INSTALLER and not FOLLOWS_TORCH.match(name):
            found[name] = match[2]
    return [f"{name}=={version}" for name, version in sorted(found.items())]


if __name__ == "__main__":
    python = f"{sys.version_info.major}.{sys.version_info.minor}"
    print(HEADER.format(python=python) + "\n".join(pins(sys.stdin.read())))
