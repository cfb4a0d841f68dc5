"""Sort the documents of a staged group: to be embedded, set aside with an entry in the ledger, or dead letters.

Guaranteed: sorting is pure; each document is in one place alone.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import pyarrow as pa
import pyarrow.parquet as pq

from ray_jobs.corpus import metadata
from ray_jobs.corpus.document import Document, table_to_documents
from ray_jobs.corpus.metadata import MisfitError, Schema, Value
from ray_jobs.ingest.dead_letters import DeadLetter
from ray_jobs.ingest.decide import ALIKE
from ray_jobs.ingest.ledger import DUPLICATE, FILTERED
from ray_jobs.ingest.receipts import StagedGroup
from ray_jobs.storage import Storage

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


def sorted_group(storage: Storage, staged: StagedGroup, dropped: pa.Table, schema: Schema) -> tuple[pa.Table, Sorted]:
    """The ids (IDS_SCHEMA) of the documents of a staged group by their rows, and the documents sorted."""
    ids = pq.read_table(storage.local(staged.ids_key)).sort_by("row")
    stored = pq.read_table(storage.local(staged.documents.key, staged.documents.sha256))
    # Of a group that was read in this run all rows are meant, in order.
    own = stored.take(ids.column("row").combine_chunks()) if staged.taken_over else stored
    return ids, sort_documents(ids, table_to_documents(own), dropped, schema)


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
