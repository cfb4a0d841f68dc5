"""What does exactly-once cost?

The ingest job against itself without receipts: no piece is looked up, none is kept, so that nothing could go on after
a crash. Interleaved pairs over the same documents, with the embedder that Tandem carries and with the fake one, which
leaves nothing but the rest of the job. Not measured: a store across a network, where a receipt is one request a piece.
"""

from __future__ import annotations

import statistics
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

from corpora import documentation, write_parquet
from table import Cell, Table

from ray_jobs.ingest.config import IngestConfig
from ray_jobs.ingest.job import run as ingest


@dataclass(frozen=True)
class Size:
    """How much is measured."""

    pairs: int
    documents: int  # with the carried embedder
    many: int  # with the fake one


FULL = Size(pairs=5, documents=400, many=10_000)
QUICK = Size(pairs=1, documents=10, many=100)


def measure(quick: bool) -> list[Table]:
    """Run the pairs."""
    size = QUICK if quick else FULL
    rows: list[list[Cell]] = []
    for name, embedder, count in (
        ("the carried embedder", {}, size.documents),
        ("the fake embedder", {"engine": "fake"}, size.many),
    ):
        with tempfile.TemporaryDirectory() as folder:
            source = Path(folder) / "pages.parquet"
            write_parquet(list(islice(documentation(), count)), source)
            pairs = list(_pairs(source, Path(folder), embedder, size.pairs))
        ratios = [own / without - 1 for own, without in pairs]
        own, without = (statistics.median(side) for side in zip(*pairs, strict=True))
        told = f"{statistics.median(ratios):+.1%} ({min(ratios):+.1%} to {max(ratios):+.1%})"
        rows.append([f"{name}, {count:,} documents", f"{own:.1f}", f"{without:.1f}", told])
    return [
        Table(
            f"Exactly once: an ingest with receipts and without, {size.pairs} interleaved pairs",
            ["", "seconds", "without receipts", "cost (least to most)"],
            rows,
        )
    ]


def _pairs(source: Path, folder: Path, embedder: dict[str, str], count: int) -> Iterator[tuple[float, float]]:
    for number in range(count):
        if number % 2:
            without = _timed(source, folder, embedder, f"without-{number}", receipts=False)
            yield _timed(source, folder, embedder, f"own-{number}", receipts=True), without
        else:
            own = _timed(source, folder, embedder, f"own-{number}", receipts=True)
            yield own, _timed(source, folder, embedder, f"without-{number}", receipts=False)


def _timed(source: Path, folder: Path, embedder: dict[str, str], index: str, receipts: bool) -> float:
    chosen = {"sources": [str(source)], "index": index, "store": str(folder / "store"), "embedder": embedder}
    with _ray(receipts):
        summary = ingest(IngestConfig.model_validate(chosen))
    return sum(summary.seconds.values())


@contextmanager
def _ray(receipts: bool) -> Iterator[None]:
    """A Ray whose workers keep receipts, or do not."""
    import ray
    from ray import cloudpickle

    cloudpickle.register_pickle_by_value(sys.modules[__name__])  # workers do not have this file on their path
    # Both have a hook: that a worker runs one takes time by itself.
    environment = {"worker_process_setup_hook": keep_receipts if receipts else forget_receipts}
    ray.init(address="local", include_dashboard=False, log_to_driver=False, runtime_env=environment)
    try:
        yield
    finally:
        ray.shutdown()


def keep_receipts() -> None:
    """What the other hook imports."""
    from ray_jobs.ingest.work import Work

    assert Work.keep


def forget_receipts() -> None:
    """Let no piece be found or kept in this process."""
    from ray_jobs.ingest.work import Work

    Work.find = lambda self, kind, key: None  # type: ignore[method-assign]
    Work.keep = lambda self, kind, key, receipt: receipt  # type: ignore[method-assign]
