"""Jobs of preparation, mining and ingest without Ray's workers: the same code, one item after another in this process.

For tests of what a job does; that workers do the same is shown by those that run on the cluster.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any

import numpy as np
import pytest

from ray_jobs.ingest import compact_job, dispatch
from ray_jobs.ingest import job as ingest
from ray_jobs.ingest.duplicates import over_cluster
from ray_jobs.runtime import ClusterSize
from ray_jobs.train import making, negatives, prepare


@pytest.fixture
def in_process(monkeypatch: pytest.MonkeyPatch) -> None:
    """Preparation, mining and ingest run in this process."""
    for job in (making, ingest):
        monkeypatch.setattr(job, "session", session)
    for job in (prepare, negatives, dispatch, over_cluster, compact_job):
        monkeypatch.setattr(job, "stream", stream)


@contextmanager
def session() -> Iterator[ClusterSize]:
    """A cluster of one."""
    yield ClusterSize(cpus=1, gpus=0)


def stream(
    items: Sequence[dict[str, object]], worker: Callable[..., Any], *, arguments: Sequence[object] = (), **_: object
) -> Iterator[dict[str, Any]]:
    """What `runtime.stream` yields, batches of one row each."""
    stage = worker(*arguments) if isinstance(worker, type) else partial(worker, arguments=tuple(arguments))
    for item in items:
        for batch in stage({name: np.array([value], dtype=object) for name, value in item.items()}):
            yield {name: values[0] for name, values in batch.items()}
