"""The machine: packages, memory, disk, Java, DVC, shards for workers, leftovers of killed runs."""

import contextlib
import importlib.metadata
import importlib.util
import json
import math
import os
import socket
import time
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pipeline.common.machine import available_memory, existing, shown_bytes
from pipeline.common.params import Paths
from pipeline.doctor.finding import Check, Context, Finding, NotChecked

SHARD_BYTES = 384 * 2**20
"""A handy shard: large enough to read in one go, small enough to lose (256 to 512 MiB)."""
STALE_SECONDS = 3600
"""A temporary file that nobody has written to for so long belongs to a killed run."""
WITHOUT_LINKS = "put the whole checkout on that disk; or run the commands of cli.py, which need no DVC"
SPARE_MEMORY = 2 * 10**9
"""Bytes beside the weights: decoded pictures, batches, Python itself."""


def packages(_context: Context) -> Iterator[Finding]:
    """Every required package at a version that will do."""
    from packaging.requirements import Requirement

    wrong = []
    for text in _requirements():
        requirement = Requirement(text)
        if requirement.marker is not None and not requirement.marker.evaluate({"extra": ""}):
            continue
        try:
            version = importlib.metadata.version(requirement.name)
        except importlib.metadata.PackageNotFoundError:
            wrong.append(f"{requirement.name} is not installed")
            continue
        if version not in requirement.specifier:
            wrong.append(f"{requirement.name} is {version}, needed {requirement.specifier}")
    if wrong:
        yield Finding("packages", "fail", "; ".join(wrong), "pip install -e '.[all]'")
    else:
        yield Finding("packages", "ok", "all that pyproject.toml asks for")


def _requirements() -> list[str]:
    project = Path(__file__).resolve().parents[2] / "pyproject.toml"
    if project.is_file():
        return list(tomllib.loads(project.read_text(encoding="utf-8"))["project"]["dependencies"])
    return importlib.metadata.requires("emosem") or []


def _memory(context: Context) -> Iterator[Finding]:
    backbones = context.section("backbones")
    files = (backbones.sam.checkpoint, backbones.clip.checkpoint, backbones.vinvl.checkpoint)
    weights = sum(path.stat().st_size for path in files if path.is_file())
    workers = context.section("parallel").workers
    needed = (2 * weights + SPARE_MEMORY) * (workers if isinstance(workers, int) else 1)  # read, then placed
    available = available_memory()
    if available is None:
        yield Finding("memory", "warn", "this system does not say how much memory is free")
    elif available < needed:
        found = f"{shown_bytes(available)} free, about {shown_bytes(needed)} needed by {workers} worker(s)"
        yield Finding("memory", "warn", found, "close other programs, or lower parallel.workers")
    else:
        yield Finding("memory", "ok", f"{shown_bytes(available)} free, about {shown_bytes(needed)} needed")


def _disk(context: Context) -> Iterator[Finding]:
    paths = context.paths
    for name in ("data", "runs", "metrics", "report"):
        folder = existing(getattr(paths, name))
        if not folder.is_dir() or not os.access(folder, os.W_OK):
            found = (
                f"{getattr(paths, name)} cannot be written: {folder} is no folder, or not yours to write to"
            )
            yield Finding("disk", "fail", found, f"set paths.{name}")
    for place in context.plan["disk"]:
        found = f"{shown_bytes(place['free'])} free for {', '.join(place['folders'])}, of the features and "
        found += f"tables {shown_bytes(place['needed'])} still to be written"
        if place["enough"]:
            yield Finding("disk", "ok", found)
        else:
            way_out = "set paths.data to a larger disk (for dvc: put the whole checkout there), or store the "
            way_out += "SAM grids as int8 (features section)"
            yield Finding("disk", "fail", found, way_out)


def _java(context: Context) -> Iterator[Finding]:
    java = context.find_java()  # raises UserError with the way out
    spec = importlib.util.find_spec("pycocoevalcap")
    folders = [Path(folder) for folder in (spec and spec.submodule_search_locations) or ()]
    if not folders:
        yield Finding("java", "fail", "pycocoevalcap is not installed: no METEOR", "pip install -e '.[all]'")
        return
    jars = ("meteor/meteor-1.5.jar", "tokenizer/stanford-corenlp-3.4.1.jar")
    lost = [jar for jar in jars if not (folders[0] / jar).is_file()]
    if lost:
        found = f"pycocoevalcap lacks {', '.join(lost)}"
        yield Finding("java", "fail", found, "pip install --force-reinstall --no-deps pycocoevalcap")
    else:
        yield Finding("java", "ok", f"{java} runs, and METEOR's and the tokeniser's jars are there")


def _shards(context: Context) -> Iterator[Finding]:
    shards, parallel = context.section("utterances").num_shards, context.section("parallel")
    workers = parallel.workers if isinstance(parallel.workers, int) else 1
    if parallel.scheduler is None and shards < workers:
        found = f"{shards} shards for {workers} workers: {workers - shards} of them would idle"
        way_out = f"set utterances.num_shards to a multiple of {workers}, or parallel.workers to {shards}"
        yield Finding("shards", "fail", found, way_out)
        return
    features = next(step for step in context.plan["steps"] if step["step"] == "features")["write_bytes"]
    if features is None:
        raise NotChecked("the size of the features is not known without their weights")
    each = features / shards
    found = f"{shards} shards of {shown_bytes(each)} of features each, for {workers} worker(s)"
    better = max(workers, math.ceil(features / SHARD_BYTES))
    if each > 3 * SHARD_BYTES or (each < SHARD_BYTES / 12 and shards > 16 and shards > better):
        yield Finding(
            "shards", "warn", found, f"256 to 512 MB are handy: utterances.num_shards about {better}"
        )
    else:
        yield Finding("shards", "ok", found)


def _scheduler(context: Context) -> Iterator[Finding]:
    from pipeline.parallel.map_shards import host_and_port

    address = context.section("parallel").scheduler
    if address is None:
        return
    try:
        with socket.create_connection(host_and_port(address), timeout=5):
            yield Finding("scheduler", "ok", f"{address} answers")
    except OSError as error:
        yield Finding(
            "scheduler", "fail", f"{address} does not answer: {error}", "start the cluster, or its tunnel"
        )


def _dvc(context: Context) -> Iterator[Finding]:
    if importlib.util.find_spec("dvc") is None:
        yield Finding(
            "dvc",
            "fail",
            "dvc is not installed",
            "pip install -e '.[all]'; the commands of cli.py run without",
        )
        return
    if not Path(".dvc").is_dir() or not Path("dvc.yaml").is_file():
        yield Finding("dvc", "warn", "this folder has no .dvc or no dvc.yaml", "run from the checkout's root")
        return
    holder = _lock_holder(Path(".dvc/tmp/rwlock"))
    if holder:
        yield Finding("dvc", "warn", holder, "if no dvc is running, delete .dvc/tmp/rwlock")
    elif context.params_file != Path("params.yaml"):
        found = f"dvc repro reads params.yaml, not {context.params_file}"
        yield Finding("dvc", "ok", found, "to drive these params by DVC, make them params.yaml")
    elif refusal := dvc_refusal(Path.cwd(), context.paths):
        found, way_out = refusal
        yield Finding("dvc", "fail", f"dvc repro would stop: {found}", way_out)
    else:
        yield Finding("dvc", "ok", "dvc.yaml and .dvc are here, nothing holds a lock")


def dvc_refusal(root: Path, paths: Paths) -> tuple[str, str] | None:
    """Why `dvc repro` would not take a checkout, perhaps after hours, and the way out; None where it would.

    root: folder of .dvc. DVC writes a .gitignore beside each folder of results, so these must lie in the git
    repository, links followed, and in the checkout by name.
    """
    from dvc.config import Config

    without_git = bool(Config(str(root / ".dvc"), validate=False)["core"].get("no_scm"))
    git = next((folder for folder in (root, *root.parents) if (folder / ".git").exists()), None)
    if git is None and not without_git:
        way_out = "git init && git add . && git commit -m start; or, without git: dvc config core.no_scm true"
        return f"{root} is in no git repository (a copy of the sources?)", way_out
    for name in ("data", "runs", "metrics", "report"):
        folder: Path = getattr(paths, name)
        if not Path(os.path.abspath(folder)).is_relative_to(root):  # noqa: PTH100 - resolve would follow links
            found = f"paths.{name}, {folder}, lies outside of the checkout, where DVC keeps no results"
            return found, WITHOUT_LINKS
        if git and not without_git and not folder.resolve().is_relative_to(git.resolve()):
            found = f"paths.{name}, {folder}, is a link to {folder.resolve()}, outside of the git repository"
            return found, WITHOUT_LINKS
    return None


def _lock_holder(path: Path) -> str:
    """What DVC's lock file says of a process that is gone, or "". It lists readers and a writer a path."""
    try:
        locks: Any = json.loads(path.read_text(encoding="utf-8"))
    except OSError:
        return ""
    except ValueError:
        return f"{path} is damaged"
    holders = []
    for entry in locks.values() if isinstance(locks, dict) else ():
        for mode in ("write", "read"):
            found = entry.get(mode, []) if isinstance(entry, dict) else []
            holders += found if isinstance(found, list) else [found]
    gone = {
        h["pid"]
        for h in holders
        if isinstance(h, dict) and isinstance(h.get("pid"), int) and not _alive(h["pid"])
    }
    return f"{path} names process {', '.join(map(str, sorted(gone)))}, which is gone" if gone else ""


def _alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except (PermissionError, OverflowError):
        pass
    return True


def _leftovers(context: Context) -> Iterator[Finding]:
    now = time.time()
    old, size = [], 0
    for folder in (context.paths.data, context.paths.runs):
        for path in folder.glob("**/.*.tmp") if folder.is_dir() else ():
            with contextlib.suppress(OSError):  # its writer may finish while we look
                stat = path.stat()
                if now - stat.st_mtime > STALE_SECONDS:
                    old.append(path)
                    size += stat.st_size
    if old:
        found = f"{len(old)} temporary file(s) of killed runs, {shown_bytes(size)}, for example {old[0]}"
        yield Finding(
            "leftovers", "warn", found, "the step's next run removes them; or delete them when none runs"
        )
    else:
        yield Finding("leftovers", "ok", "no temporary file of a killed run")


CHECKS: dict[str, Check] = {
    "memory": _memory,
    "disk": _disk,
    "java": _java,
    "shards": _shards,
    "scheduler": _scheduler,
    "dvc": _dvc,
    "leftovers": _leftovers,
}
