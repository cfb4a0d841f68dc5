"""What a run will take, from a trial of its stages: bytes in the store, seconds a stage, memory.

Guaranteed: pure. Not guaranteed: the figures; they are proportional to a sample, on this machine, and what training and
searching take is reckoned from the number of comparisons. How far they are off is measured by
tests/bench/ingest_forecast.py.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from ray_jobs.index.factory import IndexType, index_bytes, quantiser_bytes, training_size
from ray_jobs.index.quantiser import APART_BYTES
from ray_jobs.index.template import CODEC_SAMPLE, QUANTISER_WIDTH, RECALL_QUERIES, TWO_LEVEL_LISTS, nprobe_ladder
from ray_jobs.ingest.trial import Trial

STAGE_SECONDS = 0.1  # of Ray for the tasks of a stage whose work is small
WORKER_SECONDS = 2.0  # until a stage has its workers, with what they import
WORKER_BYTES = 300 << 20  # of a worker that has imported what it needs, and has nothing to do
_KMEANS_ROUNDS = 10
_CODEC_ROUNDS = 25
_ROTATION_ROUNDS = 200  # 50 rounds of 4 over the codebooks
_CODEC_TRAINED_ON = 65_536
_NEIGHBOURS = 32  # of a centroid in a graph that a search compares with


@dataclass(frozen=True)
class Machine:
    """What works on a run, and how fast it is."""

    workers: int  # tasks at a time
    embedders: int
    threads: int  # of an embedder
    load_seconds: float  # of the embedder
    comparisons: float  # of a number with a number, a second: dimensions times pairs of vectors
    resident: int  # bytes of a process that has embedded


@dataclass(frozen=True)
class Expected:
    """A corpus and its index, as they will be."""

    share: float  # of the corpus that the trial is
    rows: int
    dimension: int
    groups: int
    shards: int
    index_type: IndexType


def disk(trial: Trial, expected: Expected) -> int:
    """Bytes of the snapshot in the store."""
    shard = sum(size for name, size in trial.sizes.items() if name != "vectors.faiss")
    template = expected.index_type
    filled = index_bytes(template, expected.rows, expected.dimension, expected.shards)
    quantiser = quantiser_bytes(template, expected.dimension)
    copies = quantiser * expected.shards if quantiser <= APART_BYTES else 0  # beside the one in the template
    return round(shard / expected.share + filled + copies)


def serving_memory(trial: Trial, expected: Expected) -> int:
    """Bytes that stay in memory where the snapshot is searched: vectors as they are indexed, and postings."""
    postings = sum(size for name, size in trial.sizes.items() if name.startswith("postings/"))
    filled = index_bytes(expected.index_type, expected.rows, expected.dimension, expected.shards)
    return round(postings / expected.share) + filled


def worker_memory(trial: Trial, expected: Expected, machine: Machine) -> int:
    """Bytes of the largest worker: one that embeds, or one that builds a shard."""
    rows = expected.rows / expected.shards
    postings = sum(size for name, size in trial.sizes.items() if name.startswith("postings/"))
    index = index_bytes(expected.index_type, round(rows), expected.dimension)
    building = rows * 2 * expected.dimension + index + 3 * postings / expected.share / expected.shards
    return round(max(machine.resident, WORKER_BYTES + building))


def seconds(trial: Trial, expected: Expected, machine: Machine) -> dict[str, float]:
    """Seconds of each stage."""
    builders = min(expected.shards, machine.workers)
    per_run = {name: value / expected.share for name, value in trial.seconds.items()}
    forward = expected.rows / trial.chunks_per_second if trial.chunks_per_second else 0.0
    # While one group is embedded the next one is prepared, by the same processors.
    embed = (forward + per_run["prepare"] / machine.threads) / machine.embedders
    return {
        "start": machine.load_seconds,
        "read": WORKER_SECONDS + per_run["read"] / min(machine.workers, expected.groups),
        "decide": STAGE_SECONDS,
        "embed": WORKER_SECONDS + machine.load_seconds + embed,
        "train": _training(expected) / machine.comparisons,
        "build": WORKER_SECONDS + (per_run.get("build", 0.0) + _adding(expected) / machine.comparisons) / builders,
        "ledger": STAGE_SECONDS,
        "verify": per_run.get("hash", 0.0) + _measuring(expected) / machine.comparisons,
    }


def _training(expected: Expected) -> float:
    """Comparisons of numbers until the template is trained."""
    kind, dimension = expected.index_type, expected.dimension
    sample = training_size(kind, expected.rows)
    if not sample:
        return 0.0
    compared = kind.lists if kind.lists <= TWO_LEVEL_LISTS else 2 * math.isqrt(kind.lists)
    coded = min(sample, CODEC_SAMPLE, _CODEC_TRAINED_ON)
    codec = _CODEC_ROUNDS * _words(kind) + (_ROTATION_ROUNDS * _words(kind) if "OPQ" in kind.factory else 0)
    return float(dimension * (_KMEANS_ROUNDS * sample * compared + coded * codec))


def _adding(expected: Expected) -> float:
    """Comparisons of numbers until every row is in its list, as its code."""
    kind = expected.index_type
    lists = QUANTISER_WIDTH * _NEIGHBOURS if "_HNSW" in kind.factory else kind.lists
    return float(expected.rows * expected.dimension * (min(lists, kind.lists) + _words(kind)))


def _measuring(expected: Expected) -> float:
    """Comparisons of numbers until the recall is known."""
    if expected.index_type.is_exact:
        return 0.0
    probed = sum(nprobe_ladder(expected.index_type.lists)[:-2]) if expected.index_type.lists else 1
    scanned = 1 + probed / max(1, expected.index_type.lists)
    return RECALL_QUERIES * expected.rows * expected.dimension * scanned


def _words(kind: IndexType) -> int:
    """Words of a codebook with which each part of a vector is compared."""
    if "x4fs" in kind.factory:
        return 16
    return 256 if ",PQ" in kind.factory else 0
