"""Which documents of an index are the positives of prepared rows.

A positive with an id is the document of that id. One without is found by its text: a chunk that says the same (with or
without its title before it), or the first chunk of a document, if both begin with the same START characters. Case and
white space do not count. Guaranteed: every chunk of the index is looked at, whatever a search would find. Not
guaranteed: that a passage from the middle of a document that is cut elsewhere is found.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
from pydantic import BaseModel, ConfigDict

from ray_jobs.corpus.sketch import normalised
from ray_jobs.train.data.cleaning import clean
from ray_jobs.train.data.kind import text_hash

START = 200  # characters
_COLUMNS = ("doc_id", "ordinal", "title", "text")


class Wanted(BaseModel):
    """The positives that are looked for: ids, and hashes of whole texts and of their beginnings."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    ids: dict[str, str]  # to the key of the positive
    whole: dict[str, str]
    starts: dict[str, tuple[str, ...]]  # several may begin alike


class Place(BaseModel):
    """A document of the index: its chunks are `count` rows of a shard from `first`."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    doc_id: str
    shard: int
    first: int
    count: int


@dataclass(frozen=True, slots=True)
class Positive:
    """A positive of a row; `key` is the same for rows that have the same one."""

    key: str
    id: str | None
    text: str

    @classmethod
    def of(cls, identity: str | None, text: str) -> Positive:
        """The positive of an id, or of none."""
        return cls(f"id:{identity}" if identity is not None else f"text:{text_hash(text)}", identity, text)


def wanted(positives: Iterable[Positive]) -> Wanted:
    """What to look for."""
    ids: dict[str, str] = {}
    whole: dict[str, str] = {}
    starts: dict[str, dict[str, None]] = {}
    for found in positives:
        if found.id is not None:
            ids[found.id] = found.key
            continue
        whole[text_hash(found.text)] = found.key
        start = _start(found.text)
        if start is not None:
            starts.setdefault(start, {})[found.key] = None
    return Wanted(ids=ids, whole=whole, starts={start: tuple(keys) for start, keys in starts.items()})


def find(sought: Wanted, table: pa.Table, shard: int) -> Iterator[tuple[str, Place]]:
    """The (key, document) pairs of one shard's rows, of which those of a document are adjacent."""
    by_text = bool(sought.whole)
    first, keys, doc_id, position = 0, dict[str, None](), "", -1
    for batch in table.select(_COLUMNS).to_batches():
        for row in batch.to_pylist():
            position += 1
            if row["ordinal"] == 0:
                yield from (
                    (key, Place(doc_id=doc_id, shard=shard, first=first, count=position - first)) for key in keys
                )
                first, doc_id = position, row["doc_id"]
                keys = dict.fromkeys([sought.ids[doc_id]] if doc_id in sought.ids else [])
            if by_text:
                keys |= dict.fromkeys(_keys(sought, row))
    yield from ((key, Place(doc_id=doc_id, shard=shard, first=first, count=position + 1 - first)) for key in keys)


def _keys(sought: Wanted, row: Mapping[str, Any]) -> Iterator[str]:
    """The positives that a chunk's text tells."""
    text = clean(row["text"])
    for shown in (text, f"{clean(row['title'])}\n{text}") if row["title"] else (text,):
        key = sought.whole.get(text_hash(shown))
        if key is not None:
            yield key
        if row["ordinal"] == 0:
            yield from sought.starts.get(_start(shown) or "", ())


def _start(text: str) -> str | None:
    """The hash of the first START characters; None for a text that is shorter."""
    plain = normalised(text)
    return text_hash(plain[:START]) if len(plain) >= START else None
