"""The sets that a run is measured on or reminded of: where they are, and that they are apart.

Guaranteed: nothing is measured on rows that are replayed, and no checkpoint is chosen by them: the same file, or one
row that both have, is refused. That the splits of one prepared set are apart is the preparation's guarantee; of
different sets, only equal rows are found here, not near ones.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from ray_jobs.errors import CorruptError, UsageError
from ray_jobs.storage import Storage, sha256_of, verified
from ray_jobs.train.data.parquet import shape
from ray_jobs.train.data.prepared import open_prepared
from ray_jobs.train.evaluation.scores import chosen_rows
from ray_jobs.train.methods import CONVERSATION, KINDS, OPTIONAL, kind_of

_ROWS = 4096  # read at a time


@dataclass(frozen=True, slots=True)
class SetFile:
    """One split of a prepared set: a key of the store or an absolute path, what identifies it, what it holds.

    `split` is empty for a file of rows that is no split.
    """

    name: str
    place: str
    sha256: str
    kind: str
    rows: int
    split: str = ""

    @property
    def title(self) -> str:
        """What tables call it: the last part of its name, and the split unless these are test rows."""
        name = self.name.rpartition(".")[2]
        return name if self.split in ("", "test", name) else f"{name} ({self.split})"


def is_of(title: str, name: str) -> bool:
    """Whether tables call the set of this name so, whichever split of it they tell of."""
    return title.partition(" (")[0] == name


def find_split(name: str, reference: str, splits: tuple[str, ...], storage: Storage) -> SetFile:
    """The first of these splits that has rows, of a prepared set, a folder of splits, or a Parquet file of its own.

    `name` is the key of the configuration that refers to it. Raises UsageError where no split has rows or a file is
    not Parquet, NotFoundError where there is no such set.
    """
    path = Path(reference).expanduser().absolute()
    if path.is_file():
        found = [_described(name, str(path), path, sha256_of(path))]
    elif path.is_dir():
        files = [file for split in splits if (file := path / f"{split}.parquet").is_file()]
        found = [_described(name, str(file), file, sha256_of(file), file.stem) for file in files]
    else:
        prepared = open_prepared(storage, reference)
        records = [(split, prepared.card.splits[split]) for split in splits if split in prepared.card.splits]
        found = [
            SetFile(name, f"{prepared.folder}/{split}.parquet", record.sha256, prepared.card.kind, record.rows, split)
            for split, record in records
        ]
    for one in found:
        if one.rows:
            return one
    raise UsageError(f"{name}={reference}: no rows in {' or '.join(splits)}; expected a prepared set with rows there")


def beside(name: str, train: str, split: str, storage: Storage) -> SetFile | None:
    """Another split of the set whose training rows are at `train`; None where it is missing or empty."""
    place = train.removesuffix("train.parquet") + f"{split}.parquet"
    there = Path(place).is_file() if Path(place).is_absolute() else storage.exists(place)
    if not there:
        return None
    file = local_file(storage, place)
    found = _described(name, place, file, sha256_of(file), split)
    return found if found.rows else None


def local_file(storage: Storage, place: str, sha256: str | None = None) -> Path:
    """The file of a split on this machine: of the store, or at an absolute path.

    Raises UsageError for a path that only another machine has, CorruptError for a file that has another hash.
    """
    path = Path(place)
    if not path.is_absolute():
        return storage.local(place, sha256)
    if not path.is_file():
        raise UsageError(f"{place}: no such file on this machine; put the data into a store that all workers reach")
    if sha256 is not None and not verified.holds(path, sha256):
        raise CorruptError(
            f"{place}: content differs from what the driver read (sha256 {sha256[:12]}…); bring all machines to one "
            "state, and run the same command to learn from what is there then"
        )
    return path


def read_columns(file: Path, kind: str, limit: int | None, seed: int) -> dict[str, list[Any]]:
    """The rows of a set as columns: all, or `limit` of them, drawn by the seed; no others are held."""
    with pq.ParquetFile(file) as rows:
        besides = OPTIONAL.get(kind, frozenset()) & set(rows.schema_arrow.names)
        columns = sorted(KINDS[kind] | besides)
        found: dict[str, list[Any]] = {column: [] for column in columns}
        places, begin = np.asarray(chosen_rows(rows.metadata.num_rows, limit, seed), np.int64), 0
        for batch in rows.iter_batches(_ROWS, columns=columns):
            first, last = np.searchsorted(places, [begin, begin + batch.num_rows])
            for name, values in batch.take(pa.array(places[first:last] - begin)).to_pydict().items():
                found[name] += values
            begin += batch.num_rows
    return found


def has_conversations(found: SetFile, storage: Storage) -> bool:
    """Whether rows of a set are conversations, or answers to some."""
    if found.kind == "messages":
        return True
    if CONVERSATION not in OPTIONAL.get(found.kind, frozenset()):
        return False
    with pq.ParquetFile(local_file(storage, found.place)) as rows:
        if CONVERSATION not in rows.schema_arrow.names:
            return False
        batches = rows.iter_batches(_ROWS, columns=[CONVERSATION])
        return any(batch.column(0).null_count < batch.num_rows for batch in batches)


def check_apart(replayed: SetFile, measured: SetFile, storage: Storage) -> None:
    """Raise UsageError where rows that are measured are replayed too."""
    if replayed.sha256 == measured.sha256:
        raise UsageError(
            f"{measured.name} and {replayed.name} are the same rows ({measured.place}): rows that are "
            "learned again tell nothing when they are measured; replay another split or another set"
        )
    if replayed.kind != measured.kind:
        return
    held = _digests(local_file(storage, measured.place, measured.sha256), measured.kind)
    again = local_file(storage, replayed.place, replayed.sha256)
    shared = held & _digests(again, replayed.kind, only=held)
    if shared:
        raise UsageError(
            f"{measured.name} and {replayed.name} share {len(shared)} of {len(held)} rows: rows that are learned "
            "again tell nothing when they are measured; prepare the one with the other as an evaluation set"
        )


def _described(name: str, place: str, file: Path, sha256: str, split: str = "") -> SetFile:
    columns, rows = shape(file)
    return SetFile(name, place, sha256, kind_of(columns, file), rows, split)


def _digests(file: Path, kind: str, only: set[bytes] | None = None) -> set[bytes]:
    """Hashes of the rows' content; of those alone that are in `only`, where it is given."""
    columns, found = sorted(KINDS[kind]), set()
    with pq.ParquetFile(file) as rows:
        for batch in rows.iter_batches(_ROWS, columns=columns):
            for row in batch.to_pylist():
                text = json.dumps([row[column] for column in columns], sort_keys=True)
                digest = hashlib.blake2b(text.encode(), digest_size=16).digest()
                if only is None or digest in only:
                    found.add(digest)
    return found
