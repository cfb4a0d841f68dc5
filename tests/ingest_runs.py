"""Runs of the ingest job over small corpora, and what they have published."""

from __future__ import annotations

import json
from pathlib import Path

from ray_jobs.index import manifest
from ray_jobs.index.manifest import Manifest
from ray_jobs.index.snapshot import Snapshot
from ray_jobs.ingest import job
from ray_jobs.ingest.config import IngestConfig
from ray_jobs.ingest.summary import IngestSummary
from ray_jobs.storage import LocalStorage, Storage


def write_jsonl(path: Path, rows: list[dict[str, object]]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def article(number: int, **metadata: object) -> dict[str, object]:
    sentences = [
        f"Sentence {i} of article {number} speaks of topic{number % 7} and thing{i}." for i in range(number % 60)
    ]
    return {"id": f"a{number}", "title": f"Article {number}", "text": " ".join(sentences), **metadata}


def ingest(tmp_path: Path, *sources: Path, **settings: object) -> IngestSummary:
    return job.run(config(tmp_path, *sources, **settings))


def config(tmp_path: Path, *sources: Path, **settings: object) -> IngestConfig:
    """A run over small chunks with the fake embedder, unless `settings` say otherwise."""
    defaults = {
        "sources": [str(source) for source in sources],
        "index": "test",
        "store": str(tmp_path / "store"),
        "embedder": {"engine": "fake"},
        "chunking": {"max_tokens": 64, "overlap_tokens": 8, "min_tokens": 16},
    }
    return IngestConfig.model_validate({**defaults, **settings})


def live(tmp_path: Path) -> Manifest:
    return manifest.read_live(LocalStorage(tmp_path / "store"), "test")


def all_rows(tmp_path: Path, store: str = "store") -> list[dict[str, object]]:
    """Every live row of the live snapshot with its vector, by document and place in it."""
    return rows_of(LocalStorage(tmp_path / store))


def rows_of(storage: Storage) -> list[dict[str, object]]:
    """As `all_rows`, of any store."""
    snapshot = Snapshot.open(storage, "test")
    rows = []
    for shard in snapshot.partition.shards.values():
        table = shard.rows.table.drop_columns(["document"]).take(shard.live_rows)
        for row, vector in zip(table.to_pylist(), shard.dense.vectors[shard.live_rows], strict=True):
            rows.append({**row, "vector": vector.tobytes()})
    return sorted(rows, key=lambda row: (row["doc_id"], row["ordinal"]))


def doc_ids(tmp_path: Path) -> list[str]:
    return sorted({str(row["doc_id"]) for row in all_rows(tmp_path)})
