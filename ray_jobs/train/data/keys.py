"""The keys of rows: all that global decisions look at, in columns beside the staged rows.

A row's texts stay on the disk. In memory, all at once: 16 bytes of content, 8 each of group, question and document, 1
of place; for the card 8 of the target; 8 of what near duplicates must have in common (0 where that is nothing); one
column of bands (8) at a time; 4 bytes a row for one column of lengths; and of the rows that share bands with another
signatures (1 kB) and bands by which they find each other: together 1.8 kB at a near_threshold of 0.8 and 2.9 kB at 0.5,
measured over 20,000 such rows, without what reading one file of keys takes.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from ray_jobs.corpus.sketch import PERMUTATIONS, Banding

SKETCH_BYTES = 4 * PERMUTATIONS
LENGTH = "length_"


def keys_schema(banding: Banding, lengths: Sequence[str]) -> pa.Schema:
    """The columns of a file of keys."""
    numbers = ("content_high", "content_low", "group", "asked", "document", "target", "exact")
    bands = [f"{side}_band_{number}" for side in ("asked", "rest") for number in range(banding.bands)]
    return pa.schema(
        [
            *(pa.field(name, pa.uint64(), nullable=False) for name in (*numbers, *bands)),
            pa.field("place", pa.int8(), nullable=False),  # number of the split
            pa.field("name", pa.string()),  # the id that the input gave
            *(pa.field(f"{side}_sketch", pa.binary(SKETCH_BYTES), nullable=False) for side in ("asked", "rest")),
            *(pa.field(LENGTH + name, pa.int32(), nullable=False) for name in lengths),
        ]
    )


class Keys:
    """The keys of all rows of a preparation, by position: the rows of the files in their order."""

    def __init__(self, files: Sequence[tuple[Path, int]]) -> None:
        """`files` are (path, rows)."""
        self._files = [path for path, _ in files]
        self.starts = np.concatenate([[0], np.cumsum([rows for _, rows in files])]).astype(np.int64)

    def __len__(self) -> int:
        return int(self.starts[-1])

    def column(self, name: str, kind: type[np.generic] = np.uint64) -> npt.NDArray[Any]:
        """One column of numbers, of all rows; the type matters only where there is no file."""
        found = [pq.read_table(path, columns=[name]).column(0).to_numpy() for path in self._files]
        return np.concatenate([np.empty(0, found[0].dtype if found else kind), *found])

    def sketches(self, positions: npt.NDArray[np.int64]) -> tuple[npt.NDArray[np.uint32], npt.NDArray[np.uint32]]:
        """Signatures of asked and rest of the rows at ascending `positions`, (k, PERMUTATIONS) each."""
        found = np.empty((2, len(positions), PERMUTATIONS), np.uint32)
        for path, start, end in zip(self._files, self.starts, self.starts[1:], strict=False):
            first, last = np.searchsorted(positions, [start, end])
            if first < last:
                table = pq.read_table(path, columns=["asked_sketch", "rest_sketch"])
                taken = table.take(positions[first:last] - start)
                for side in range(2):
                    data = taken.column(side).combine_chunks().buffers()[1]
                    values = np.frombuffer(data, np.uint32, count=(last - first) * PERMUTATIONS)
                    found[side, first:last] = values.reshape(-1, PERMUTATIONS)
        return found[0], found[1]

    def names(self, positions: npt.NDArray[np.int64]) -> list[str]:
        """What the rows at ascending `positions` are called: the id of the input, else the hash of the content."""
        columns = ["name", "content_high", "content_low"]
        found: list[str] = []
        for path, start, end in zip(self._files, self.starts, self.starts[1:], strict=False):
            first, last = np.searchsorted(positions, [start, end])
            if first < last:
                taken = pq.read_table(path, columns=columns).take(positions[first:last] - start).to_pylist()
                found += [row["name"] or row_id(row["content_high"], row["content_low"]) for row in taken]
        return found

    def ids(self, positions: npt.NDArray[np.int64]) -> list[str]:
        """The ids of the rows at `positions`, as the prepared files have them."""
        high, low = self.column("content_high")[positions], self.column("content_low")[positions]
        return [row_id(*halves) for halves in zip(high, low, strict=True)]


def row_id(high: int, low: int) -> str:
    """The id of a row from the halves of its hash."""
    return f"{int(high):016x}{int(low):016x}"
