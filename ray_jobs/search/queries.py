"""The file of queries: read in blocks, every wrong row named."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from ray_jobs.errors import NotFoundError, UsageError


@dataclass(frozen=True)
class Query:
    """One query of a job."""

    id: str
    text: str


def read_queries(path: Path) -> list[Query]:
    """All queries of a file; raises UsageError naming the first wrong row, NotFoundError for a missing file."""
    if not path.is_file():
        raise NotFoundError(f"queries={path}: no such file; expected JSON Lines or Parquet with 'id' and 'text'")
    rows = _parquet_rows(path) if path.suffix == ".parquet" else _json_rows(path)
    queries: list[Query] = []
    seen: dict[str, str] = {}
    for place, row in rows:
        query = _query(path, place, row)
        if query.id in seen:
            raise UsageError(f"queries={path}: {place} and {seen[query.id]} share id {query.id!r}; expected unique ids")
        seen[query.id] = place
        queries.append(query)
    if not queries:
        raise UsageError(f"queries={path}: there is no query in it; expected rows with 'id' and 'text'")
    return queries


def _query(path: Path, place: str, row: object) -> Query:
    if not isinstance(row, dict):
        raise UsageError(f"queries={path}: {place} is a {type(row).__name__}; expected an object with 'id' and 'text'")
    for key in ("id", "text"):
        if row.get(key) is None:
            raise UsageError(f"queries={path}: {place} has no {key!r} (it has {', '.join(map(str, row)) or 'nothing'})")
    if not isinstance(row["text"], str) or not row["text"].strip():
        raise UsageError(f"queries={path}: {place}: text={row['text']!r}; expected some words")
    return Query(str(row["id"]), row["text"])


def _json_rows(path: Path) -> Iterator[tuple[str, object]]:
    try:
        with path.open(encoding="utf-8") as file:
            for number, line in enumerate(file, 1):
                if not line.strip():
                    continue
                try:
                    yield f"line {number}", json.loads(line)
                except json.JSONDecodeError as error:
                    raise UsageError(
                        f"queries={path}: line {number} is not JSON ({error}); expected one object a line"
                    ) from None
    except UnicodeDecodeError as error:
        raise UsageError(f"queries={path}: not UTF-8 ({error.reason}); expected JSON Lines in UTF-8") from None


def _parquet_rows(path: Path) -> Iterator[tuple[str, object]]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        table = pq.read_table(path)
    except (pa.ArrowInvalid, OSError) as error:
        raise UsageError(
            f"queries={path}: not Parquet ({str(error).splitlines()[0]}); expected 'id' and 'text'"
        ) from None
    for number, row in enumerate(table.to_pylist(), 1):
        yield f"row {number}", row
