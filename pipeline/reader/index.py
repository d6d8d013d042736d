"""Reads the members of the features and masks tars at random, by the index that step `shards` writes."""

import hashlib
import mmap
import threading
from collections import OrderedDict
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from pipeline.common.digests import check_file
from pipeline.common.errors import UserError
from pipeline.common.schema import INDEX
from pipeline.common.tars import list_members, map_file
from pipeline.reader.freshness import check_fresh
from pipeline.reader.tar_paths import FILES, tar_path


@dataclass(frozen=True)
class IndexRow:
    """One artwork of the index, without the places of its bytes."""

    key: str
    shard: int
    split: str
    emotions: tuple[str, ...]
    utterance_counts: tuple[int, ...]
    """One per emotion, same order."""


class Index:
    """Random access to every member of the shards, by key.

    Several threads may read at once. When a tar is first read, its headers are checked and it is mapped; a
    damaged one is refused (`UserError`), whichever of its members is wanted.
    """

    MAX_OPEN = 256
    """Tars mapped at the same time: a map holds a file descriptor, and 1024 is a common limit."""

    def __init__(self, folder: Path, table: pa.Table) -> None:
        self.folder = folder
        self.table = table
        self._position = {key: i for i, key in enumerate(table["key"].to_pylist())}
        self._shards = table["shard"].to_numpy()
        members = table["members"].combine_chunks()
        self._starts = members.offsets.to_numpy()
        flat = members.values
        full = pc.binary_join_element_wise(flat.field("file"), flat.field("name"), "/").dictionary_encode()
        self._codes = full.indices.to_numpy()
        self._names = full.dictionary.to_pylist()
        self._code = {name: code for code, name in enumerate(self._names)}
        self._offsets, self._sizes = flat.field("offset").to_numpy(), flat.field("size").to_numpy()
        self._maps: OrderedDict[tuple[str, int], mmap.mmap] = OrderedDict()
        self._sound: set[tuple[str, int]] = set()
        self._checked: set[str] = set()
        self._opening = threading.Lock()

    @classmethod
    def load(cls, folder: Path) -> "Index":
        """The index in `folder` (``data/shards``) of the tars that lie beside it.

        Raises `UserError` without one, and when it is damaged or tars were made again since, see `freshness`.
        """
        path = folder / "index.parquet"
        if not path.is_file():
            raise UserError(f"{path} does not exist; run the shards step")
        check_fresh(folder)
        check_file(path)
        try:
            return cls(folder, pq.read_table(path, schema=INDEX))
        except (pa.ArrowException, OSError) as error:
            raise UserError(f"{path} cannot be read ({error}); run the shards step again") from None

    def __len__(self) -> int:
        return len(self._position)

    def __contains__(self, key: object) -> bool:
        return key in self._position

    def row(self, key: str) -> IndexRow:
        """One artwork. Raises `KeyError` when it is not in the index."""
        return next(self._rows(self.table.slice(self._at(key), 1)))

    def rows(self, split: str | None = None) -> list[IndexRow]:
        """Artworks of a split (or all) in the index's order: by shard, then by place in its tars."""
        wanted = self.table if split is None else self.table.filter(pc.field("split") == split)
        return list(self._rows(wanted))

    @staticmethod
    def _rows(table: pa.Table) -> Iterator[IndexRow]:
        names = ("key", "shard", "split", "emotions", "utterance_counts")
        for key, shard, split, emotions, counts in zip(*(table[n].to_pylist() for n in names), strict=True):
            yield IndexRow(key, shard, split, tuple(emotions), tuple(counts))

    def members(self, key: str) -> list[str]:
        """Names of an artwork's members, ``features/sam.npy`` … ``masks/json``, in tar order."""
        at = self._at(key)
        return [self._names[code] for code in self._codes[self._starts[at] : self._starts[at + 1]]]

    def read(self, key: str, member: str) -> bytes:
        """Bytes of a member. `member` is ``sam.npy``, or ``masks/json`` where both tars have one.

        Raises `KeyError` for an unknown key or member, `UserError` when the tar is missing or damaged.
        """
        return bytes(self.view(key, member))

    def view(self, key: str, member: str) -> memoryview:
        """Like `read` without the copy: read-only bytes of the memory map, valid as long as held."""
        return self._member(key, *self._place(key, member))

    def _member(self, key: str, file: str, shard: int, offset: int, size: int) -> memoryview:
        data = self._mapped(file, shard)
        if offset + size > len(data):
            raise UserError(
                f"{tar_path(self.folder, file, shard)} ends before what it should hold of {key}, not the "
                "indexed tar; run the shards step again"
            )
        return memoryview(data)[offset : offset + size]

    def check(self, key: str) -> bool:
        """Compare all bytes of an artwork with the index, once in this object's life; whether that was now.

        Raises `UserError` when they are others: damaged, another artwork's, or made anew since.
        """
        if key in self._checked:
            return False
        self._compare(key)
        self._checked.add(key)
        return True

    def _compare(self, key: str) -> None:
        at, digest = self._at(key), hashlib.sha256()
        for place in range(int(self._starts[at]), int(self._starts[at + 1])):
            digest.update(self._member(key, *self._found(at, place)))
        if digest.hexdigest() != self.table["sha256"][at].as_py():
            tars = dict.fromkeys(self.place(key, member)[0] for member in self.members(key))
            raise UserError(
                f"artwork {key}: what {' and '.join(map(str, tars))} hold of it is not what was indexed. If "
                "one was made anew, run the shards step; else ask `python cli.py shard-stats --verify` "
                "which is damaged"
            )

    def place(self, key: str, member: str) -> tuple[Path, int, int]:
        """Where a member's bytes are: tar, offset, size. Raises `KeyError` for an unknown key or member."""
        file, shard, offset, size = self._place(key, member)
        return tar_path(self.folder, file, shard), offset, size

    def _place(self, key: str, member: str) -> tuple[str, int, int, int]:
        """Where a member's bytes are: file, shard, offset, size. Raises `KeyError` if nowhere."""
        at, code = self._at(key), self._resolve(member)
        start, stop = int(self._starts[at]), int(self._starts[at + 1])
        codes = self._codes[start:stop].tolist()
        if code not in codes:
            raise KeyError(f"artwork {key} has no member {member!r}; it has {', '.join(self.members(key))}")
        return self._found(at, start + codes.index(code))

    def _found(self, at: int, place: int) -> tuple[str, int, int, int]:
        """File, shard, offset and size of an artwork's member by their rows in the table."""
        file = self._names[self._codes[place]].partition("/")[0]
        return file, int(self._shards[at]), int(self._offsets[place]), int(self._sizes[place])

    def _at(self, key: str) -> int:
        if key not in self._position:
            raise KeyError(f"no artwork {key!r} in {self.folder / 'index.parquet'}")
        return self._position[key]

    def _resolve(self, member: str) -> int:
        if member in self._code:
            return self._code[member]
        hits = [code for f in FILES if (code := self._code.get(f"{f}/{member}")) is not None]
        if len(hits) == 1:
            return hits[0]
        advice = " or ".join(f"'{f}/{member}'" for f in FILES) if hits else f"one of {', '.join(self._code)}"
        raise KeyError(f"{'ambiguous' if hits else 'no'} member {member!r}; ask for {advice}")

    def _mapped(self, file: str, shard: int) -> mmap.mmap:
        """The map of a tar, opened once; the least recently read is let go (views keep theirs alive)."""
        place = (file, shard)
        with self._opening:
            if place not in self._maps:
                path, step = tar_path(self.folder, file, shard), f"the {file} step"
                if place not in self._sound:
                    list_members(path, step)
                    self._sound.add(place)
                self._maps[place] = map_file(path, step)
                if len(self._maps) > self.MAX_OPEN:
                    self._maps.popitem(last=False)
            self._maps.move_to_end(place)
            return self._maps[place]
