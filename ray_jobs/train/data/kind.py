"""What a kind of training row is: its columns, how a raw row becomes one, and which of its texts decides what."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from typing import Any, Protocol

import pyarrow as pa

from ray_jobs.corpus.sketch import normalised
from ray_jobs.train.data.raw_row import RawRow

Content = dict[str, Any]
Turn = dict[str, str]
Measured = str | list[Turn]  # a conversation is measured as the model will see it


@dataclass(frozen=True, slots=True)
class Compared:
    """The texts by which rows are compared.

    `asked` is what the model is given and `rest` what it is to learn from it: two rows are near duplicates only if both
    are near, so equal answers to different questions are none. `document` is the text that the row is about, None
    where the kind has none. `target` is what is to come out, where that is not the rest. `exact` is what near
    duplicates must have in common to the letter, None where nearness says enough.
    """

    asked: str
    rest: str
    document: str | None = None
    target: str | None = None
    exact: str | None = None

    @property
    def learnt(self) -> str:
        """What is to come out."""
        return self.rest if self.target is None else self.target


class Kind(Protocol):
    """One kind of rows. A new kind is one class and one line in KINDS."""

    @property
    def name(self) -> str:
        """The name in configurations and cards."""
        ...

    @property
    def columns(self) -> tuple[pa.Field, ...]:
        """The kind's own columns, beside COMMON_COLUMNS."""
        ...

    @property
    def spellings(self) -> frozenset[str]:
        """Every column that `read` looks at."""
        ...

    @property
    def expected(self) -> str:
        """The columns of an input, as a message names them."""
        ...

    @property
    def lengths(self) -> tuple[str, ...]:
        """The names of what `measured` gives."""
        ...

    @property
    def leaks_by_asked(self) -> bool:
        """Whether the asked text alone makes a leak; else the rest must be near as well."""
        ...

    def fits(self, names: AbstractSet[str]) -> bool:
        """Whether a row with these columns is of this kind."""
        ...

    def read(self, row: RawRow) -> list[Content]:
        """The canonical rows of a raw one, mostly one. Raises WrongRowError."""
        ...

    def compared(self, content: Content) -> Compared:
        """The texts that decide on duplicates, leaks and shared documents."""
        ...

    def group(self, content: Content) -> str:
        """What the row is grouped by where the input names no source, and the raw row gave no other."""
        ...

    def measured(self, content: Content) -> dict[str, tuple[Measured, ...]]:
        """The texts whose length counts, by name; of several the longest counts."""
        ...


COMMON_COLUMNS = (
    pa.field("id", pa.string(), nullable=False),  # hash of the content
    pa.field("source", pa.string(), nullable=False),  # group of the split
    pa.field("row", pa.int64(), nullable=False),  # 1-based in the input
    pa.field("input", pa.string(), nullable=False),  # file
)


def text_hash(text: str) -> str:
    """64 bits of the normalised text, in hexadecimal."""
    return hashlib.blake2b(normalised(text).encode(), digest_size=8).hexdigest()


def strings(*names: str) -> tuple[pa.Field, ...]:
    """Columns of strings that are never null."""
    return tuple(pa.field(name, pa.string(), nullable=False) for name in names)


def schema_of(kind: Kind) -> pa.Schema:
    """The columns of a prepared file."""
    return pa.schema([*COMMON_COLUMNS, *kind.columns])


def content_id(kind: Kind, content: Content) -> str:
    """128 bits of what a row says, in hexadecimal: the same on every machine, whatever file or row it came from.

    The ids that a row gives its passages do not count, nor do columns in which it has nothing.
    """
    counting = (field.name for field in kind.columns if not field.name.endswith(("_id", "_ids")))
    said = {name: content[name] for name in counting if content.get(name) is not None}
    data = json.dumps([kind.name, said], sort_keys=True, ensure_ascii=False, separators=(",", ":"))
    return hashlib.blake2b(data.encode(), digest_size=16).hexdigest()
