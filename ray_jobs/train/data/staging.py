"""Stage a part: its rows validated, cleaned, measured and sketched, their keys beside them, what is wrong set aside.

Guaranteed: a part's files are those of its rows alone, in order, whoever stages it; rows are numbered inside the part,
since nobody knows yet how many come before. Memory: ROWS_AT_ONCE rows, or one Parquet row group of the input.
"""

from __future__ import annotations

import hashlib
from collections import Counter as Tally
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from pydantic import BaseModel, ConfigDict

from ray_jobs.corpus.sketch import Banding, signatures
from ray_jobs.storage import Storage, new_id
from ray_jobs.train.data.config import SplitConfig
from ray_jobs.train.data.counting import Counter, lengths
from ray_jobs.train.data.keys import LENGTH, keys_schema
from ray_jobs.train.data.kind import Compared, schema_of, text_hash
from ray_jobs.train.data.planning import Part
from ray_jobs.train.data.raw_row import WrongRowError
from ray_jobs.train.data.reading import read_rows
from ray_jobs.train.data.splitting import split_of
from ray_jobs.train.data.validate import Accepted, Rejected, Rules

ROWS_AT_ONCE = 256
FIRST = 5  # rejections that an error shows


class StagedPart(BaseModel):
    """What became of a part; returned only when its files are in the store."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    number: int
    set: str  # "" for what is prepared, else the evaluation set's name
    input: str
    lines: int  # what the rows of the next part of the same file are numbered after
    read: int  # rows of the input, those rejected included
    rows: int  # canonical rows
    cleaned: int  # rows of the input in which cleaning changed something
    reasons: dict[str, int]  # of the rejected
    first: tuple[Rejected, ...]  # of the rejected, their numbers inside the part
    grouped_by: dict[str, int]  # canonical rows by the column that named their group
    rows_key: str
    keys_key: str
    rejected_key: str | None

    @property
    def rejected(self) -> int:
        """Rows that were left out."""
        return sum(self.reasons.values())


@dataclass
class _Seen:
    """What has been seen of a part so far."""

    lines: int = 0
    read: int = 0
    rows: int = 0
    cleaned: int = 0
    grouped_by: Tally[str] = field(default_factory=Tally)
    reasons: Tally[str] = field(default_factory=Tally)
    first: list[Rejected] = field(default_factory=list)


class Stager:
    """Stages one part of a set after another."""

    def __init__(
        self, storage: Storage, folder: str, rules: Rules, split: SplitConfig, banding: Banding, counter: Counter
    ) -> None:
        """`folder` is where in the store the staged files go."""
        self._storage = storage
        self._folder = folder
        self._rules = rules
        self._split = split
        self._banding = banding
        self._counter = counter

    def stage(self, part: Part) -> StagedPart:
        """Read `part` and store its files. Raises CorruptError for a damaged file."""
        seen = _Seen()
        with self._storage.scratch() as scratch, ExitStack() as open_files:
            rejected = open_files.enter_context((scratch / "rejected.jsonl").open("w", encoding="utf-8"))
            writers: list[pq.ParquetWriter] = []
            for batch in _batches(self._accepted(part, seen, rejected)):
                content, keys = self._tables(part, batch)
                if not writers:
                    for name, table in (("rows", content), ("keys", keys)):
                        writer = pq.ParquetWriter(scratch / name, table.schema, use_dictionary=False)
                        writers.append(open_files.enter_context(writer))
                for writer, table in zip(writers, (content, keys), strict=True):
                    writer.write_table(table)
            open_files.close()
            return self._publish(part, seen, scratch)

    def _accepted(self, part: Part, seen: _Seen, rejected: Any) -> Iterator[tuple[int, Accepted]]:
        for number, raw in read_rows(part.piece, self._rules.wanted()):
            seen.lines = number
            if raw is None:
                continue
            seen.read += 1
            try:
                rows, cleaned = self._rules.accept(raw)
            except WrongRowError as error:
                wrong = Rejected(row=number, input=part.input, reason=error.reason, message=str(error))
                seen.reasons[error.reason] += 1
                seen.first += [wrong] if len(seen.first) < FIRST else []
                rejected.write(wrong.model_dump_json() + "\n")
                continue
            seen.cleaned += cleaned
            seen.rows += len(rows)
            seen.grouped_by.update(row.grouped_by for row in rows)
            yield from ((number, row) for row in rows)

    def _tables(self, part: Part, batch: Sequence[tuple[int, Accepted]]) -> tuple[pa.Table, pa.Table]:
        """The rows of a batch as they are kept, and their keys."""
        kind = self._rules.kind
        rows = [row for _, row in batch]
        content = pa.Table.from_pylist(
            [
                {"id": row.id, "source": row.group, "row": number, "input": part.input, **row.content}
                for number, row in batch
            ],
            schema=schema_of(kind),
        )
        compared = [kind.compared(row.content) for row in rows]
        columns: dict[str, Any] = {
            "content_high": [int(row.id[:16], 16) for row in rows],
            "content_low": [int(row.id[16:], 16) for row in rows],
            "group": [group_number(row.group) for row in rows],
            "asked": [int(text_hash(texts.asked), 16) for texts in compared],
            "document": [_document(texts) for texts in compared],
            "target": [int(text_hash(texts.learnt), 16) for texts in compared],
            "exact": [0 if texts.exact is None else group_number(texts.exact) for texts in compared],
            "place": [split_of(row.group, self._split) for row in rows],
            "name": [row.name for row in rows],
        }
        columns |= self._sketches("asked", [texts.asked for texts in compared])
        columns |= self._sketches("rest", [texts.rest for texts in compared])
        measured = lengths(kind, [row.content for row in rows], self._counter)
        columns |= {LENGTH + name: found for name, found in measured.items()}
        schema = keys_schema(self._banding, list(measured))
        return content, pa.table({name: columns[name] for name in schema.names}, schema=schema)

    def _sketches(self, side: str, texts: list[str]) -> dict[str, Any]:
        found = signatures(texts)
        bands = self._banding.keys(found)
        columns: dict[str, Any] = {f"{side}_band_{band}": bands[:, band] for band in range(self._banding.bands)}
        return columns | {f"{side}_sketch": [sketch.tobytes() for sketch in found]}

    def _publish(self, part: Part, seen: _Seen, scratch: Path) -> StagedPart:
        keys = {}
        for name in ("rows", "keys", "rejected.jsonl"):
            path = scratch / name
            if path.exists() and path.stat().st_size:
                keys[name] = f"{self._folder}/{new_id()}-{name}"
                self._storage.upload(keys[name], path)
        return StagedPart(
            number=part.number,
            set=part.set,
            input=part.input,
            lines=seen.lines,
            read=seen.read,
            rows=seen.rows,
            cleaned=seen.cleaned,
            reasons=dict(seen.reasons),
            first=tuple(seen.first),
            grouped_by=dict(seen.grouped_by),
            rows_key=keys.get("rows", ""),
            keys_key=keys.get("keys", ""),
            rejected_key=keys.get("rejected.jsonl"),
        )


def _batches(rows: Iterator[tuple[int, Accepted]]) -> Iterator[list[tuple[int, Accepted]]]:
    batch: list[tuple[int, Accepted]] = []
    for row in rows:
        batch.append(row)
        if len(batch) == ROWS_AT_ONCE:
            yield batch
            batch = []
    if batch:
        yield batch


def group_number(text: str) -> int:
    """64 bits of a group's name, as keys have it."""
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "little")


def _document(texts: Compared) -> int:
    """64 bits of the document; 0 where there is none."""
    return 0 if texts.document is None else int(text_hash(texts.document), 16) or 1
