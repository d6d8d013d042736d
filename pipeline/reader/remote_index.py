"""Shards on another machine, by fsspec: the index is read at once, an artwork's bytes when it is visited."""

import contextlib
import hashlib
import io
import threading
from collections import OrderedDict
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.common.errors import UserError
from pipeline.common.schema import INDEX, shard_stem
from pipeline.common.sums import SUMS, parse_sums
from pipeline.reader.index import Index
from pipeline.reader.tar_paths import FILES


def open_index(where: Path | str) -> Index:
    """The index of a shards folder here, or of one behind an URL. Raises `UserError` without one."""
    if isinstance(where, Path):
        return Index.load(where)
    return RemoteIndex.at(where)


class RemoteIndex(Index):
    """Random access to shards behind an URL of fsspec, such as ``s3://bucket/data/shards``.

    Bytes come by range, one request a tar for all members of an artwork, and are checked against the index.
    Nothing is written here; to keep what was fetched, chain one of fsspec's caches: ``filecache::s3://…`` for
    whole tars, ``blockcache::s3://…`` for what was visited.
    """

    KEEP = 64
    """Artworks that a thread holds in memory: more than a batch has."""

    def __init__(self, url: str, table: pa.Table) -> None:
        super().__init__(Path(url), table)
        self.url = url
        self._held = _Held()

    @classmethod
    def at(cls, url: str) -> "RemoteIndex":
        """The index in the folder `url`; the tars lie beside it. Raises `UserError` without one."""
        file_system, folder = _file_system(url)
        sums: dict[str, str] | None = None
        try:
            data = file_system.cat_file(f"{folder}/index.parquet")
            with contextlib.suppress(FileNotFoundError):  # shards from elsewhere have no sums
                sums = parse_sums(file_system.cat_file(f"{folder}/{SUMS}"))
            if sums is not None and sums.get("index.parquet") != hashlib.sha256(data).hexdigest():
                raise ValueError(f"it is damaged or half uploaded: its SHA-256 is not that in {SUMS}")
            return cls(url, pq.read_table(io.BytesIO(data), schema=INDEX))
        except Exception as error:  # each of fsspec's protocols has errors of its own
            raise UserError(f"{url}/index.parquet cannot be read: {error!r}") from None

    def view(self, key: str, member: str) -> memoryview:
        """See `Index.view`. Raises `UserError` when the bytes cannot be had or are not the index's."""
        file, _, offset, size = self._place(key, member)
        held = self._held.artworks
        if key not in held:
            held[key] = self._fetch(key)
            if len(held) > self.KEEP:
                held.popitem(last=False)
        held.move_to_end(key)
        start, data = held[key][file]
        return memoryview(data)[offset - start : offset - start + size]

    def _compare(self, key: str) -> None:
        """Nothing more: what is fetched is compared each time."""

    def _fetch(self, key: str) -> dict[str, tuple[int, bytes]]:
        """Of each tar, where the artwork's bytes begin, and the bytes from its first member to its last."""
        file_system, folder = _file_system(self.url)
        at = self._at(key)
        places = [self._place(key, member) for member in self.members(key)]
        spans = {}
        for file in FILES:
            mine = [(offset, offset + size) for name, _, offset, size in places if name == file]
            if mine:
                start, stop = min(a for a, _ in mine), max(b for _, b in mine)
                path = f"{folder.rpartition('/')[0]}/{file}/{shard_stem(int(self._shards[at]))}.tar"
                try:
                    spans[file] = start, file_system.cat_file(path, start=start, end=stop)
                except Exception as error:  # see `at`
                    raise UserError(f"{path} of {self.url} cannot be read: {error!r}") from None
        digest = hashlib.sha256()
        for file, _, offset, size in places:
            start, data = spans[file]
            digest.update(memoryview(data)[offset - start : offset - start + size])
        if digest.hexdigest() != self.table["sha256"][at].as_py():
            raise UserError(f"artwork {key} of {self.url} is damaged or cut; `shard-stats --verify` it there")
        return spans


class _Held(threading.local):
    """A thread's own artworks: another one's are of another batch."""

    def __init__(self) -> None:
        self.artworks: OrderedDict[str, dict[str, tuple[int, bytes]]] = OrderedDict()


def _file_system(url: str) -> tuple[Any, str]:
    """fsspec's file system and the folder on it. Asked for anew each time, as fsspec wants after a fork."""
    import fsspec  # type: ignore[import-untyped]  # only those who stream need it

    try:
        file_system, folder = fsspec.core.url_to_fs(url)
    except (ImportError, ValueError) as error:  # a protocol without its package, or unknown
        raise UserError(f"train.stream {url!r} cannot be opened: {error}") from None
    return file_system, str(folder).rstrip("/")
