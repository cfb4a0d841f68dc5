"""Stage: read the parts of a group, store their text, and say which documents there are.

Guaranteed: a part that cannot be read costs itself and becomes a dead letter; what follows the damage in a file that
was read in part counts as one failed document, so that there are as many dead letters as things that failed; memory is
bounded by one batch of documents and their ids. Documents of the snapshot before are staged by reference: their text is
not copied.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from ray_jobs.corpus import metadata
from ray_jobs.corpus.apart import Reader
from ray_jobs.corpus.batches import batches_of
from ray_jobs.corpus.document import DOCUMENT_SCHEMA, Document, Reject, documents_to_table, table_to_documents
from ray_jobs.corpus.limits import Limits
from ray_jobs.corpus.masking import Kind, Masker
from ray_jobs.corpus.planning import SourcePart
from ray_jobs.corpus.quality import Filters
from ray_jobs.index import layout
from ray_jobs.index.manifest import FileRecord
from ray_jobs.ingest.dead_letters import DeadLetter, DeadLetterFile, publish_file
from ray_jobs.ingest.ledger import IDS_SCHEMA, write_partitioned
from ray_jobs.ingest.receipts import StagedGroup
from ray_jobs.storage import Storage, new_id

BATCH_CHARACTERS = 4 << 20
WHOLE_FILE = "file"  # the locator of a reject that costs the whole file


@dataclass(frozen=True)
class Reading:
    """What is done to documents as they are read."""

    filters: Filters
    mask: tuple[Kind, ...]
    limits: Limits

    def described(self) -> list[str]:
        """What of it changes a piece."""
        chosen = [self.limits.model_dump_json()]
        chosen += [self.filters.model_dump_json()] if self.filters.on else []
        return chosen + ([",".join(self.mask)] if self.mask else [])


@dataclass
class _Tally:
    """What has been seen of a group so far."""

    ids: list[dict[str, object]] = field(default_factory=list)
    sources_read: int = 0
    sources_failed: int = 0
    failed: int = 0
    reasons: Counter[str] = field(default_factory=Counter)  # of dead letters
    text_bytes: int = 0
    masked: Counter[str] = field(default_factory=Counter)
    schema: metadata.Schema = field(default_factory=dict)


class Stager:
    """Stages one group after another."""

    def __init__(self, storage: Storage, index: str, folder: str, partitions: int, how: Reading) -> None:
        self.storage = storage
        self.index = index
        self.folder = folder
        self.partitions = partitions
        self.how = how

    def stage(self, group: int, parts: Sequence[SourcePart], reader: Reader) -> StagedGroup:
        """Read `parts`, store documents, ids and dead letters, and return the receipt."""
        tally, object_id = _Tally(), new_id()
        with self.storage.scratch() as folder:
            letters = DeadLetterFile(folder)
            path = folder / "documents.parquet"
            with pq.ParquetWriter(path, DOCUMENT_SCHEMA, compression="zstd") as writer:
                read = self._read(parts, reader, tally, letters)
                for batch in batches_of(read, lambda document: len(document.text), BATCH_CHARACTERS):
                    writer.write_table(documents_to_table(batch))
            documents = publish_file(self.storage, layout.documents(self.index, object_id), path)
            rejected = letters.publish(self.storage, self.index)
            return self._receipt(group, documents, rejected, tally, folder, taken_over=False)

    def take_over(self, group: int, documents: FileRecord, entries: pa.Table) -> StagedGroup:
        """Take over some documents of an object of the snapshot before; `entries` are theirs, LEDGER_SCHEMA."""
        tally = _Tally()
        stored = pq.read_table(self.storage.local(documents.key, documents.sha256))
        for row in entries.sort_by("row").to_pylist():
            (document,) = table_to_documents(stored.slice(row["row"], 1))
            _count(tally, document)
            rule = self.how.filters.broken_by(document)
            tally.ids.append({name: row[name] for name in IDS_SCHEMA.names} | {"filtered": rule})
        with self.storage.scratch() as folder:
            return self._receipt(group, documents, None, tally, folder, taken_over=True)

    def _read(
        self, parts: Sequence[SourcePart], reader: Reader, tally: _Tally, letters: DeadLetterFile
    ) -> Iterator[Document]:
        masker = Masker(self.how.mask)
        tally.masked = masker.found
        for part in parts:
            produced = 0
            broken = False
            for item in reader.read(part):
                if isinstance(item, Reject):
                    broken = broken or item.locator == WHOLE_FILE
                    tally.failed += item.locator != WHOLE_FILE
                    tally.reasons[item.reason] += 1
                    letters.add(DeadLetter(part.file.doc_id, None, item.locator, item.reason, item.message))
                    continue
                produced += 1
                document = masker.masked(item)
                rule = self.how.filters.broken_by(document)
                tally.ids.append(_identity(document, len(tally.ids), part) | {"filtered": rule})
                _count(tally, document)
                yield document
            lost = broken and not produced and part.start == 0
            tally.failed += broken and not lost
            if part.start == 0:
                tally.sources_failed += lost
                tally.sources_read += not lost

    def _receipt(
        self,
        group: int,
        documents: FileRecord,
        letters: FileRecord | None,
        tally: _Tally,
        folder: Path,
        taken_over: bool,
    ) -> StagedGroup:
        ids_key = f"{self.folder}/ids/{new_id()}.parquet"
        path = folder / "ids.parquet"
        write_partitioned(path, pa.Table.from_pylist(tally.ids, schema=IDS_SCHEMA), self.partitions)
        self.storage.upload(ids_key, path)
        return StagedGroup(
            group=group,
            documents=documents,
            ids_key=ids_key,
            dead_letters=letters,
            taken_over=taken_over,
            sources_read=tally.sources_read,
            sources_failed=tally.sources_failed,
            produced=len(tally.ids) + tally.failed,
            failed=tally.failed,
            reasons=dict(tally.reasons),
            text_bytes=tally.text_bytes,
            masked=dict(tally.masked),
            metadata=tally.schema,
        )


def _identity(document: Document, row: int, part: SourcePart) -> dict[str, object]:
    return {
        "doc_id": document.doc_id,
        "version": document.version,
        "row": row,
        "source_name": part.file.source,
        "source": document.source,
    }


def _count(tally: _Tally, document: Document) -> None:
    tally.text_bytes += len(document.text.encode())
    tally.schema = metadata.merge(tally.schema, metadata.infer([document.metadata]))
