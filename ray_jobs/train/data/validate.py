"""From a raw row to canonical ones, or to a rejection with its reason.

Guaranteed: whatever a row holds, validating it ends in rows or in one rejection, never in an exception; equal rows give
equal rows on every machine; all rows that a raw one gives have one group.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from pydantic import BaseModel, ConfigDict

from ray_jobs.train.data.kind import Content, Kind, content_id, text_hash
from ray_jobs.train.data.raw_row import RawRow, WrongRowError
from ray_jobs.train.data.reading import Raw

ROW = "row"
SOURCES = ("doc_id", "document", "title", "source")
IDS = ("query_id", "id")
LONGEST_NAME = 200  # characters


class Rejected(BaseModel):
    """A row that was left out."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    row: int  # 1-based
    input: str
    reason: str  # a code that can be counted
    message: str  # a sentence for people

    def line(self) -> str:
        """The rejection as an error message lists it."""
        return f"row {self.row} of {self.input}: {self.message}"


@dataclass(frozen=True, slots=True)
class Accepted:
    """A row that can be trained on."""

    id: str
    group: str  # that stays together in a split
    grouped_by: str  # the column that named the group, or the kind's own choice
    name: str | None  # the id that the input gave it
    content: Content


@dataclass(frozen=True, slots=True)
class Rules:
    """How rows are to be read."""

    kind: Kind
    columns: tuple[tuple[str, str], ...] = ()  # (name that is expected, column that has it)
    source_column: str | None = None
    by_query: bool = False

    def wanted(self) -> frozenset[str]:
        """The columns that matter."""
        named = {self.source_column} if self.source_column is not None else set()
        return self.kind.spellings | named | set(SOURCES) | set(IDS) | {column for _, column in self.columns}

    def accept(self, raw: Raw) -> tuple[list[Accepted], bool]:
        """The canonical rows of a raw one, and whether cleaning changed a text. Raises WrongRowError."""
        if raw is None or isinstance(raw, WrongRowError):
            raise raw or WrongRowError("empty-row", "there is nothing")
        row = RawRow(renamed(raw, dict(self.columns)))
        contents = self.kind.read(row)
        name = next((row.identity(column) for column in IDS if _is_name(row.value(column))), None)
        return [self._accepted(row, content, name, len(contents) > 1) for content in contents], row.cleaned

    def _accepted(self, row: RawRow, content: Content, name: str | None, several: bool) -> Accepted:
        group, by = self._group(row, content, several)
        return Accepted(content_id(self.kind, content), group, by, name, content)

    def _group(self, row: RawRow, content: Content, several: bool) -> tuple[str, str]:
        asked = self.kind.compared(content).asked
        if self.by_query:
            return row.identity("query_id") or f"query:{text_hash(asked)}", "query"
        if self.source_column == ROW:
            return f"row:{text_hash(asked)}", ROW
        if self.source_column is not None:
            if row.value(self.source_column) is None:
                raise WrongRowError("missing-source", f"there is no {self.source_column!r}, which source_column names")
            return _group_name(self.source_column, row.identity(self.source_column)), self.source_column
        column = next((name for name in SOURCES if _is_name(row.value(name))), None)
        if column is None and several:
            # Apart, one would be asked again in another split, and be no more than a leak.
            return f"query:{text_hash(asked)}", "content"
        if column is None:
            return self.kind.group(content), "content"
        return _group_name(column, row.identity(column)), column


def renamed(raw: Mapping[str, object], columns: Mapping[str, str]) -> Mapping[str, object]:
    """The row with each expected name in place of the column that has it."""
    if not columns:
        return raw
    kept = {name: value for name, value in raw.items() if name not in columns and name not in columns.values()}
    return kept | {name: raw.get(column) for name, column in columns.items()}


def _is_name(value: object) -> bool:
    whole = isinstance(value, int) or (isinstance(value, float) and value.is_integer())
    return (whole and not isinstance(value, bool)) or (isinstance(value, str) and bool(value.strip()))


def _group_name(column: str, value: str | None) -> str:
    """A source as it is; where it is a whole text, its hash."""
    name = value or ""
    return name if len(name) <= LONGEST_NAME else f"{column}:{text_hash(name)}"
