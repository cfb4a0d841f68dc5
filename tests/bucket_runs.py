"""Runs over a corpus and a store that lie in a bucket, or both on the local disk: the same calls for either."""

from __future__ import annotations

import json
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from ingest_runs import ingest
from s3_server import BUCKET, Bucket

from ray_jobs.errors import TandemError
from ray_jobs.index import layout, manifest
from ray_jobs.index.manifest import Manifest
from ray_jobs.index.search import SearchConfig
from ray_jobs.index.snapshot import Snapshot
from ray_jobs.ingest import delete
from ray_jobs.ingest.delete import DeleteConfig
from ray_jobs.ingest.summary import IngestSummary
from ray_jobs.models.for_queries import load_for_queries
from ray_jobs.storage import Storage, open_storage

Corpus = Mapping[str, list[dict[str, object]]]  # rows by file


def corpus(*numbers: int, word: str = "apple") -> Corpus:
    """Documents in files of five, below folders whose names a bucket orders otherwise than a disk."""
    files: dict[str, list[dict[str, object]]] = {}
    for number in numbers:
        name = f"{('a', 'a-b', 'a.b')[number // 5 % 3]}/rows-{number // 5}.jsonl"
        text = f"The {word} of number {number}. " * (1 + number % 7)
        files.setdefault(name, []).append({"id": f"d{number:02d}", "text": text, "year": 2000 + number})
    return files


@dataclass
class Place:
    """Where corpus and store lie: in `bucket`, or in `folder` where that is None."""

    folder: Path
    bucket: Bucket | None = None
    store: str = ""
    _there: set[str] = field(default_factory=set)

    def __post_init__(self) -> None:
        self.store = f"s3://{BUCKET}/store" if self.bucket else str(self.folder / "store")

    @property
    def storage(self) -> Storage:
        return open_storage(self.store)

    @property
    def live(self) -> Manifest:
        return manifest.read_live(self.storage, "test")

    def lay_out(self, files: Corpus) -> None:
        """Make `files` the corpus."""
        for name, rows in files.items():
            self._put(f"corpus/{name}", "".join(json.dumps(row) + "\n" for row in rows).encode())
        for name in self._there - {f"corpus/{name}" for name in files}:
            self._remove(name)
            self._there.discard(name)

    def ingest(self, **settings: object) -> IngestSummary:
        source = f"s3://{BUCKET}/corpus" if self.bucket else str(self.folder / "corpus")
        return ingest(self.folder, **{"sources": [source], "store": self.store, "shards": 2, **settings})

    def delete(self, *ids: str) -> IngestSummary:
        return delete.run(DeleteConfig(ids=ids, index="test", store=self.store))

    def answers(self) -> list[list[tuple[str, int, int, float, str]]]:
        snapshot = Snapshot.open(self.storage, "test")
        embedder = load_for_queries(None, snapshot.manifest.embedder)
        found = []
        for mode in ("dense", "lexical", "hybrid"):
            config = SearchConfig.model_validate({"mode": mode, "k": 9, "by": "chunk"})
            for hits in snapshot.search(["apple number 3", "fig", "of number"], config, embedder):
                found.append([(hit.doc_id, hit.start, hit.end, round(hit.score, 5), hit.text) for hit in hits])
        return found

    def forget_the_lost(self) -> None:
        """Take back the signs of life of runs that ended while the store was away: this process lives."""
        for item in list(self.storage.list(layout.leases("test"))):
            with suppress(TandemError):
                self.storage.delete(item.key)

    def _put(self, name: str, data: bytes) -> None:
        self._there.add(name)
        if self.bucket is not None:
            self.bucket.put(name, data)
            return
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if not path.is_file() or path.read_bytes() != data:
            path.write_bytes(data)

    def _remove(self, name: str) -> None:
        if self.bucket is not None:
            self.bucket.client.delete_object(Bucket=BUCKET, Key=name)
        else:
            (self.folder / name).unlink()
