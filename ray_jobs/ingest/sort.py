"""Sort the documents of a staged group: to be embedded, set aside with an entry in the ledger, or dead letters.

Guaranteed: pure; each document is in one place alone.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import pyarrow as pa

from ray_jobs.corpus import metadata
from ray_jobs.corpus.document import Document
from ray_jobs.corpus.metadata import MisfitError, Schema, Value
from ray_jobs.ingest.dead_letters import DeadLetter
from ray_jobs.ingest.ledger import DUPLICATE, FILTERED

ALIKE = frozenset({"same-content", "near-duplicate"})
"""Reasons why a document is dropped that another id stands for."""
EXAMPLES = 3  # of each fate in a group


@dataclass
class Sorted:
    """What becomes of the documents of a group."""

    kept: list[tuple[int, Document, Mapping[str, Value]]] = field(default_factory=list)  # row, metadata as columns
    aside: dict[int, dict[str, object]] = field(default_factory=dict)  # by row: what the ledger says of it
    letters: list[DeadLetter] = field(default_factory=list)
    misfits: int = 0
    filtered: Counter[str] = field(default_factory=Counter)
    duplicates: int = 0
    examples: list[tuple[str, str, str]] = field(default_factory=list)  # fate, id, why

    def set_aside(self, row: int, document: Document, fate: str, why: str, entry: Mapping[str, object]) -> None:
        """A document that is not embedded and stays in the ledger."""
        self.aside[row] = dict(entry)
        if sum(example[0] == fate for example in self.examples) < EXAMPLES:
            self.examples.append((fate, document.doc_id, why))


def sort_documents(ids: pa.Table, documents: Sequence[Document], dropped: pa.Table, schema: Schema) -> Sorted:
    """Sort documents; beside them their `ids` (IDS_SCHEMA), and of those that are not embedded why (DROPPED_SCHEMA)."""
    found = Sorted()
    displaced = {item["row"]: item for item in dropped.to_pylist()}
    for entry, document in zip(ids.to_pylist(), documents, strict=True):
        row = entry["row"]
        if row in displaced:
            _drop(found, row, document, displaced[row])
        elif entry["filtered"] is not None:
            found.filtered[entry["filtered"]] += 1
            found.set_aside(row, document, entry["filtered"], _begin(document), {"status": FILTERED})
        else:
            try:
                found.kept.append((row, document, metadata.coerce(document.metadata, schema)))
            except MisfitError as error:
                found.misfits += 1
                letter = DeadLetter(document.source, document.doc_id, document.doc_id, "misfit", str(error))
                found.letters.append(letter)
    return found


def _drop(found: Sorted, row: int, document: Document, why: Mapping[str, object]) -> None:
    if why["reason"] in ALIKE:
        found.duplicates += 1
        entry = {"status": DUPLICATE, "duplicate_of": why["kept_in"], "similarity": why["similarity"]}
        told = f"{why['similarity']:.2f} like {why['kept_in']}"
        found.set_aside(row, document, str(why["reason"]), told, entry)
    elif why["reason"] == "duplicate-id":
        message = (
            f"id {document.doc_id!r} is taken by another document, from {why['kept_in']}: make ids unique or use "
            f"--id-prefix"
        )
        found.letters.append(DeadLetter(document.source, document.doc_id, document.doc_id, "duplicate-id", message))


def _begin(document: Document, characters: int = 80) -> str:
    text = " ".join(document.text[: 2 * characters].split())
    return text if len(text) <= characters else f"{text[:characters]}…"
