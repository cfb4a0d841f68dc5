"""Build: one shard from its share of the embedded groups; and a random sample of vectors to train on.

Guaranteed: a document is in the shard in whose range its first row lies, whole. Memory: one group, and the postings and
vectors of one shard, which the bound on a shard's bytes limits.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
from pydantic import BaseModel, ConfigDict

from ray_jobs.corpus.metadata import Schema
from ray_jobs.index.manifest import FileRecord, ShardRecord
from ray_jobs.index.shard import publish_shard, write_shard
from ray_jobs.ingest.receipts import EmbeddedGroup, GroupSlice, ShardPlan
from ray_jobs.storage import Storage, new_id

_HYPERGEOMETRIC = 10**9  # rows below which NumPy can draw from this distribution


class ShardReceipt(BaseModel):
    """A shard in the store."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    number: int
    record: ShardRecord
    total_length: int  # terms
    first_row: int  # its number among all rows


class ShardBuilder:
    """Builds one shard after another."""

    def __init__(
        self, storage: Storage, index: str, template: FileRecord, schema: Schema, dimension: int, language: str
    ) -> None:
        self.storage = storage
        self.index = index
        self.template = template
        self.schema = schema
        self.dimension = dimension
        self.language = language

    def build(self, plan: ShardPlan) -> ShardReceipt:
        """Write the shard of `plan` and publish its files."""
        template = self.storage.local(self.template.key, self.template.sha256)
        begins: list[int] = []
        with self.storage.scratch() as folder:
            built = write_shard(folder / "shard", self._groups(plan, begins), template, self.schema, self.language)
            record = publish_shard(self.storage, self.index, new_id(), built)
        first_row = begins[0] if begins else plan.start
        return ShardReceipt(number=plan.number, record=record, total_length=built.total_length, first_row=first_row)

    def _groups(self, plan: ShardPlan, begins: list[int]) -> Iterator[tuple[pa.Table, npt.NDArray[np.float16]]]:
        """Rows and vectors of each group's part; `begins` gets the number of the first row of each."""
        for item in plan.groups:
            table, vectors = read_group(self.storage, item, self.dimension)
            first, last = shard_rows(table.column("ordinal").to_numpy(), item.first_row, plan.start, plan.end)
            if first < last:
                begins.append(item.first_row + first)
            yield table.slice(first, last - first), vectors[first:last]


def read_group(storage: Storage, item: GroupSlice, dimension: int) -> tuple[pa.Table, npt.NDArray[np.float16]]:
    """Rows and vectors (rows, d) of an embedded group, memory-mapped."""
    table = pa.ipc.open_file(pa.memory_map(str(storage.local(item.rows_key)))).read_all()
    return table, _vectors(storage.local(item.vectors_key), item.rows, dimension)


def shard_rows(ordinals: npt.NDArray[np.int32], first_row: int, start: int, end: int) -> tuple[int, int]:
    """The rows [first, last) of a group whose documents begin at a global row in [start, end)."""
    begins = np.flatnonzero(ordinals == 0)
    bounds = np.r_[begins, len(ordinals)]
    first = int(np.searchsorted(begins, start - first_row))
    last = int(np.searchsorted(begins, end - first_row))
    return int(bounds[first]), int(bounds[last])


def sample_vectors(
    storage: Storage, groups: Sequence[EmbeddedGroup], count: int, dimension: int, path: Path, seed: int
) -> npt.NDArray[np.float16]:
    """`count` vectors drawn at random from all rows, (count, d), kept in `path`; each row is equally likely.

    Memory: one group's share of them.
    """
    rng = np.random.default_rng(seed)
    left = sum(group.rows for group in groups)
    wanted = count = min(count, left)
    with path.open("wb") as file:
        for group in groups:
            share = _share(rng, wanted, group.rows, left)
            if share:
                vectors = _vectors(storage.local(group.vectors_key), group.rows, dimension)
                file.write(vectors[np.sort(rng.choice(group.rows, share, replace=False))].tobytes())
            wanted, left = wanted - share, left - group.rows
    return _vectors(path, count, dimension)


def _share(rng: np.random.Generator, wanted: int, rows: int, left: int) -> int:
    """How many of `wanted` rows, drawn from `left` without replacement, are among these `rows`."""
    if left < _HYPERGEOMETRIC:
        return int(rng.hypergeometric(rows, left - rows, wanted)) if wanted else 0
    # So many that drawing with replacement is the same, as far as anyone could see.
    return int(min(rng.binomial(wanted, rows / left), rows))


def _vectors(path: Path, rows: int, dimension: int) -> npt.NDArray[np.float16]:
    if rows == 0:
        return np.empty((0, dimension), np.float16)
    return np.memmap(path, np.float16, "r", shape=(rows, dimension))
