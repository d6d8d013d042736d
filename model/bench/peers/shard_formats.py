"""The peers of `shard_reading.py`: webdataset, LitData and MosaicML streaming, each as its manual has it."""

from typing import Any

from torch.utils.data import DataLoader

from model.bench.peers.pair import Job, Pair
from model.bench.peers.shard_reading import Shards, collate, decode, load_npy, pair
from pipeline.common.tars import write_tar

CHUNK = 64_000_000
"""Bytes of a chunk or shard, as LitData and MosaicML take by default."""
TARS = 4
"""webdataset's, so that two workers have two each."""
SAM, CLIP = GRIDS = ("sam.npy", "clip.npy")


def prepare_webdataset(job: Job, workers: int) -> Pair:
    """Tars read from front to back, batched in the workers."""
    import webdataset

    shards = Shards.write(job)
    rows = list(shards.stored())
    files = [job.folder / f"{number:06d}.tar" for number in range(TARS)]
    for number, file in enumerate(files):
        write_tar(file, rows[number * len(rows) // TARS : (number + 1) * len(rows) // TARS])

    def decoded(sample: dict[str, Any]) -> dict[str, Any]:
        return decode(shards, load_npy(sample[SAM]), load_npy(sample[CLIP]), sample)

    dataset = webdataset.WebDataset(list(map(str, files)), shardshuffle=False).map(decoded)
    batched = dataset.batched(shards.batch, collation_fn=collate)
    return pair(job, shards, workers, _loader(DataLoader, batched, workers, batch_size=None))


def prepare_litdata(job: Job, workers: int) -> Pair:
    """Chunks with grids as arrays."""
    from litdata import StreamingDataLoader, StreamingDataset
    from litdata.streaming.writer import BinaryWriter

    shards = Shards.write(job)
    folder = job.folder / "chunks"
    folder.mkdir()
    writer = BinaryWriter(str(folder), chunk_bytes=CHUNK)
    for number, row in enumerate(_with_arrays(shards)):
        writer[number] = row
    writer.done()
    writer.merge()
    dataset = StreamingDataset(str(folder), shuffle=False)
    return pair(job, shards, workers, _decoding(StreamingDataLoader, dataset, shards, workers))


def prepare_mosaicml(job: Job, workers: int) -> Pair:
    """MDS shards with grids as arrays, uncompressed."""
    from streaming import MDSWriter, StreamingDataset

    shards = Shards.write(job)
    folder = str(job.folder / "mds")
    rows = list(_with_arrays(shards))
    columns = dict.fromkeys(rows[0], "bytes")
    columns |= {name: f"ndarray:float16:{','.join(map(str, rows[0][name].shape))}" for name in GRIDS}
    with MDSWriter(out=folder, columns=columns, compression=None, size_limit=CHUNK) as writer:
        for row in rows:
            writer.write(row)
    dataset = StreamingDataset(local=folder, shuffle=False, batch_size=shards.batch)
    return pair(job, shards, workers, _decoding(DataLoader, dataset, shards, workers))


def _with_arrays(shards: Shards) -> Any:
    """Members of every artwork, grids as arrays."""
    for _, members in shards.stored():
        yield {**members, **{name: load_npy(members[name]) for name in GRIDS}}


def _decoding(loader: Any, dataset: Any, shards: Shards, workers: int) -> Any:
    """A loader whose workers decode and collate."""

    def decoded(rows: list[dict[str, Any]]) -> dict[str, Any]:
        return collate([decode(shards, row[SAM], row[CLIP], row) for row in rows])

    return _loader(loader, dataset, workers, batch_size=shards.batch, collate_fn=decoded)


def _loader(loader: Any, dataset: Any, workers: int, **how: Any) -> Any:
    """With workers that stay, so that starting them is not timed."""
    return loader(dataset, num_workers=workers, persistent_workers=workers > 0, **how)
