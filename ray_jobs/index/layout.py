"""Every path of an index, in one place.

    STORE/indexes/NAME/manifest-000007.json   the snapshot; the live one has the highest number
    STORE/indexes/NAME/template-<hash>.faiss  the trained, empty index that all shards share
    STORE/indexes/NAME/shards/<id>/           vectors.faiss, vectors.f16, rows.arrow, postings/
    STORE/indexes/NAME/documents/<id>.parquet extracted text of each document version
    STORE/indexes/NAME/deleted/<id>.bin       bitmap of dead rows
    STORE/indexes/NAME/ledger/<id>/           source -> documents -> chunks, hash-partitioned Parquet
    STORE/indexes/NAME/seen/<id>.parquet      files with size and modification mark, as they were read
    STORE/indexes/NAME/dead_letters/<id>.parquet  what could not be indexed, with the reason
    STORE/indexes/NAME/work/000007/           what a run has finished that builds on snapshot 7 and has not published
    STORE/indexes/NAME/leases/<id>.json       signs of life of the run that writes
    STORE/runs/JOB-ID/                        config.json, events.jsonl, metrics.json, report.html

Guaranteed: pure functions of their arguments; no key is ever reused by two runs.
"""

from __future__ import annotations

import re

from ray_jobs.errors import UsageError

VECTORS_FAISS = "vectors.faiss"
VECTORS_F16 = "vectors.f16"
ROWS = "rows.arrow"
POSTINGS = "postings"

_MANIFEST = re.compile(r"manifest-(\d{6,})\.json$")
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}")


def check_name(name: str, key: str = "index") -> str:
    """The name of an index, or of what `key` says, as it is, or UsageError: it becomes a folder and a part of URLs."""
    if not _NAME.fullmatch(name):
        raise UsageError(
            f"{key}={name!r}: expected letters, digits, '.', '_' and '-' (at most 128, the first a letter or digit)"
        )
    return name


def index_folder(name: str) -> str:
    """The folder of one index."""
    return f"indexes/{check_name(name)}"


def manifest(name: str, number: int) -> str:
    """The key whose creation commits snapshot `number`."""
    return f"{index_folder(name)}/manifest-{number:06d}.json"


def manifest_number(key: str) -> int | None:
    """The number of a manifest's key; None for any other key."""
    match = _MANIFEST.search(key)
    return int(match.group(1)) if match else None


def template(name: str, digest: str) -> str:
    """The trained, empty index, named by the hash of its bytes."""
    return f"{index_folder(name)}/template-{digest[:32]}.faiss"


def shard(name: str, shard_id: str) -> str:
    """The folder of one shard."""
    return f"{index_folder(name)}/shards/{shard_id}"


def documents(name: str, object_id: str) -> str:
    """Extracted text of the documents of one group."""
    return f"{index_folder(name)}/documents/{object_id}.parquet"


def seen(name: str, object_id: str) -> str:
    """What one snapshot knows of the files that it was made from."""
    return f"{index_folder(name)}/seen/{object_id}.parquet"


def sketches(name: str, object_id: str) -> str:
    """What tells documents of one group that are like others."""
    return f"{index_folder(name)}/sketches/{object_id}.parquet"


def bands(name: str, object_id: str) -> str:
    """The keys by which documents of one group that are alike find each other."""
    return f"{index_folder(name)}/sketches/{object_id}-bands.parquet"


def deleted(name: str, object_id: str) -> str:
    """Which rows of one shard are dead."""
    return f"{index_folder(name)}/deleted/{object_id}.bin"


def dead_letters(name: str, object_id: str) -> str:
    """What one run could not index."""
    return f"{index_folder(name)}/dead_letters/{object_id}.parquet"


def ledger(name: str, object_id: str, partition: int) -> str:
    """One hash partition of the ledger."""
    return f"{index_folder(name)}/ledger/{object_id}/part-{partition:05d}.parquet"


def works(name: str) -> str:
    """The folder of what runs have finished and not published."""
    return f"{index_folder(name)}/work"


def work(name: str, parent: int) -> str:
    """The folder of what runs have finished that build on snapshot `parent`, 0 for none."""
    return f"{works(name)}/{parent:06d}"


def receipts(name: str, parent: int) -> str:
    """The folder of what says, of each piece in `work`, that it is finished."""
    return f"{work(name, parent)}/receipts"


def work_parent(key: str) -> int:
    """The snapshot on which the run of a key below `works` builds."""
    return int(key.split("/")[3])


def leases(name: str) -> str:
    """The folder of signs of life."""
    return f"{index_folder(name)}/leases"


def run_folder(job_id: str) -> str:
    """What one run leaves beside the index."""
    return f"runs/{job_id}"
