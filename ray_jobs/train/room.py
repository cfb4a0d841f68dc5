"""The room that the workers of a run take, and that one task takes, and whether the cluster has it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from ray_jobs.errors import UsageError
from ray_jobs.runtime import ClusterSize
from ray_jobs.train.config import WorkersConfig


def gpus_of(workers: WorkersConfig, cluster: ClusterSize) -> int:
    """GPUs of each worker."""
    asked = workers.gpus_per_worker
    return min(1, cluster.gpus) if asked == "auto" else asked


def check_room(workers: WorkersConfig, cluster: ClusterSize, key: str = "workers") -> None:
    """Raise UsageError where the workers can never be placed: they would wait for ever.

    `key` is what the configuration that the user gave calls `workers`.
    """
    for what, each, there in _needs(workers, cluster):
        if workers.least * each > there:
            raise UsageError(
                f"{key}={workers.least} with {each:g} {what}s each: the cluster has {there}; lower {key}.count or "
                f"{key}.{what.lower()}s_per_worker"
            )


def largest_machine(workers: WorkersConfig, gpus: int, machines: Sequence[dict[str, float]]) -> float:
    """CPUs of the largest machine that has `gpus` GPUs, for a task by itself.

    `machines` are the resources of each, as Ray tells them. Raises UsageError where none has so many GPUs: the task
    would wait for ever.
    """
    fitting = [machine.get("CPU", 0.0) for machine in machines if machine.get("GPU", 0.0) >= gpus]
    if not fitting:
        raise UsageError(
            f"workers.gpus_per_worker={workers.gpus_per_worker}: no machine of this cluster has a GPU; set "
            "workers.gpus_per_worker=0, which changes nothing of what is learned, or run the same command where there "
            "is one"
        )
    return max(fitting)


def runs_at_once(workers: WorkersConfig, cluster: ClusterSize) -> int:
    """How many runs the cluster has room for, each with as many workers as it may have; 1 where it has less room."""
    found = [there / (workers.most * each) for _, each, there in _needs(workers, cluster) if each]
    return max(1, int(min(found) + 1e-9))


def _needs(workers: WorkersConfig, cluster: ClusterSize) -> Iterator[tuple[str, float, int]]:
    """What a worker takes, how much of it, and how much there is."""
    yield "CPU", workers.cpus_per_worker, cluster.cpus
    yield "GPU", gpus_of(workers, cluster), cluster.gpus
