"""Which rows of a shard are dead: a bit a row, in a file beside the shard, which itself is never written again.

Guaranteed: a row that is dead in a snapshot is found by no search of it; the bitmap of a later snapshot takes the place
of this one, so that a reader of an older snapshot goes on seeing what it saw.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt

from ray_jobs.errors import CorruptError
from ray_jobs.index import layout
from ray_jobs.index.manifest import FileRecord, ShardRecord
from ray_jobs.storage import Storage, new_id, sha256_of

Mask = npt.NDArray[np.bool_]


def live_rows(storage: Storage, record: ShardRecord) -> Mask | None:
    """The rows of a shard that are not dead, (rows,); None where all are live.

    Raises CorruptError for a bitmap that is not the one of the manifest.
    """
    if record.deleted is None:
        return None
    path = storage.local(record.deleted.key, record.deleted.sha256)
    bits = np.fromfile(path, np.uint8)
    if len(bits) != -(-record.rows // 8):
        raise _corrupt(path, record, f"{len(bits)} bytes")
    dead = np.unpackbits(bits, count=record.rows, bitorder="little").view(np.bool_)
    if (found := int(dead.sum())) != record.dead_rows:
        raise _corrupt(path, record, f"{found} dead rows")
    return ~dead


def bury(storage: Storage, index: str, record: ShardRecord, rows: npt.NDArray[np.int64]) -> ShardRecord:
    """The record of a shard in which `rows` (n,) are dead, too; the bitmap is in the store when this returns."""
    live = live_rows(storage, record)
    dead = np.zeros(record.rows, np.bool_) if live is None else ~live
    dead[rows] = True
    key = layout.deleted(index, new_id())
    with storage.scratch() as folder:
        path = folder / "deleted.bin"
        path.write_bytes(np.packbits(dead, bitorder="little").tobytes())
        file = FileRecord(key=key, size=path.stat().st_size, sha256=sha256_of(path))
        storage.upload(key, path)
    return record.model_copy(update={"deleted": file, "dead_rows": int(dead.sum())})


def _corrupt(path: Path, record: ShardRecord, found: str) -> CorruptError:
    return CorruptError(
        f"{path}: {found}; expected a bitmap of {record.rows} rows, {record.dead_rows} of them dead; restore the file "
        "or roll back to another snapshot"
    )
