"""Fetch what was ordered: shown first, downloaded into a part, checked, and only then given its name.

    weights/sam_vit_b_01ec64.pth.part        the bytes so far; a killed or broken run goes on there
    weights/sam_vit_b_01ec64.pth             whole, with the published hash
    weights/vinvl_vg_x152c4.pth.sha256       where no hash is published: that of the first download

Nothing that is fetched is executed or unpickled here.
"""

import json
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path

from pipeline.backbones.weight_hashes import read_recorded, recorded_file
from pipeline.backbones.weights_file import LOADABLE, sniff
from pipeline.common.errors import RunFailed, UserError
from pipeline.common.files import write_bytes
from pipeline.common.fingerprint import sha256_file
from pipeline.common.lock import only_writer
from pipeline.common.machine import shown_bytes
from pipeline.fetch.answer import Source
from pipeline.fetch.order import Wanted, shown_url
from pipeline.fetch.part import forget, note_of, part_of, size_of
from pipeline.fetch.report import Fetched
from pipeline.fetch.transfer import Patience, download


def fetch(order: Sequence[Wanted], patience: Patience | None = None) -> list[Fetched]:
    """Fetch all files that are not there.

    Raises:
        UserError: another file is at a place, another run fetches the same, or nothing may be written.
        RunFailed: a file could not be had whole and right, or the disk has no room; those before it are kept.
    """
    _check_room(order)
    return [_fetch_one(wanted, patience or Patience()) for wanted in order]


def _fetch_one(wanted: Wanted, patience: Patience) -> Fetched:
    path = wanted.path
    if path.exists():
        return Fetched(wanted, "there", _check_present(wanted))
    with only_writer(path):
        if path.exists():  # another run was quicker
            return Fetched(wanted, "there", _check_present(wanted))
        part = part_of(path)
        _say(f"{path} from {shown_url(wanted.url)}")
        digest = _download_checked(wanted, part, patience)
        if wanted.remote.sha256 is None:  # before the file has its name: then it is never there without
            write_bytes(recorded_file(path), f"{digest}  {path.name}\n".encode())
        part.replace(path)
        note_of(part).unlink(missing_ok=True)
    _say(f"{path} is there, {shown_bytes(path.stat().st_size)}, SHA-256 {digest}")
    return Fetched(wanted, "fetched", digest)


def _download_checked(wanted: Wanted, part: Path, patience: Patience) -> str:
    """Bring the part to the right bytes and return their hash; an earlier try's wrong part is begun anew."""
    remote = wanted.remote
    expected = remote.sha256 or read_recorded(wanted.path)
    source = Source(wanted.url, remote.size if remote.exact else None, pinned=expected is not None)
    while True:
        continued = size_of(part) > 0
        announced = None
        if not (continued and expected and _is_whole(part, source, expected)):
            announced = download(source, part, patience)
        digest = sha256_file(part)
        must = expected or announced
        if must in (None, digest):
            _check_kind(wanted.path, part)
            return digest
        forget(part)
        if not continued:
            raise RunFailed(_wrong(wanted, digest, str(must)))
        _say("what was kept of an earlier try does not belong to this file: starting over")


def _is_whole(part: Path, source: Source, expected: str) -> bool:
    """Whether a run ended between the last byte and the file's name."""
    return source.size in (None, size_of(part)) and sha256_file(part) == expected


def _wrong(wanted: Wanted, digest: str, must: str) -> str:
    whose = "its publisher states" if wanted.remote.sha256 else "the hub announces"
    way_out = "Try again later, or without the mirror"
    if not wanted.remote.sha256 and read_recorded(wanted.path):
        whose = f"{recorded_file(wanted.path)} has from the first download"
        way_out = f"If the publisher has replaced it, remove {recorded_file(wanted.path)}"
    return (
        f"{shown_url(wanted.url)} gave a file of SHA-256 {digest}, and {whose} {must}: it was thrown away. "
        f"{way_out}"
    )


def _check_kind(path: Path, part: Path) -> None:
    """Raise `RunFailed`, and remove the part, for what is plainly no such file; by its bytes alone."""
    kind, detail = sniff(part)
    wrong = kind not in LOADABLE if path.suffix not in (".json", ".txt") else kind in ("empty", "lfs-pointer")
    if path.suffix == ".json" and not wrong:
        try:
            json.loads(part.read_text(encoding="utf-8"))
        except ValueError as error:
            wrong, detail = True, f"is no JSON ({error})"
    if wrong:
        forget(part)
        raise RunFailed(f"what came for {path} {detail}: it was thrown away")


def _check_present(wanted: Wanted) -> str | None:
    """Hash of a file that is there. Raises `UserError` when it is another one than was ordered."""
    path = wanted.path
    if not path.is_file():
        raise UserError(f"{path} is a folder, and should be a file: name another place in the params")
    expected, digest = wanted.remote.sha256 or read_recorded(path), sha256_file(path)
    if expected not in (None, digest):
        raise UserError(
            f"{path} is there already and is another file: its SHA-256 is {digest}, {wanted.weights.title} "
            f"has {expected}. Nothing is overwritten: move it away, or name another place in the params"
        )
    return digest


def _check_room(order: Sequence[Wanted]) -> None:
    """Raise `RunFailed` where a disk cannot hold what is missing, before the first byte."""
    needed: dict[int, int] = {}
    folders: dict[int, Path] = {}
    for wanted in order:
        if not wanted.path.exists() and wanted.remote.size:
            folder = next(parent for parent in wanted.path.absolute().parents if parent.is_dir())
            disk = folder.stat().st_dev
            folders[disk] = folder
            needed[disk] = needed.get(disk, 0) + max(wanted.remote.size - size_of(part_of(wanted.path)), 0)
    for disk, size in needed.items():
        folder, free = folders[disk], shutil.disk_usage(folders[disk]).free
        if size > free:
            raise RunFailed(
                f"{folder} has {shown_bytes(free)} free, and {shown_bytes(size)} are to come: make room, or "
                "name another place in the params"
            )


def _say(text: str) -> None:
    print(f"fetch: {text}", file=sys.stderr, flush=True)
