"""The room that the workers of a run take, and that one task takes, and whether the cluster has it."""

from __future__ import annotations

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
    each, gpus = workers.cpus_per_worker, gpus_of(workers, cluster)
    number = f"{key}.count" if workers.min is None else f"{key}.min"
    for what, one, there in (("CPU", each, cluster.cpus), ("GPU", gpus, cluster.gpus)):
        if workers.least * one > there:
            raise UsageError(
                f"{key}={workers.least} with {one:g} {what}s each: the cluster has {there}; lower {number} or "
                f"{key}.{what.lower()}s_per_worker"
            )
    if (room := cluster.room(each, gpus)) < workers.least:
        raise UsageError(
            f"{key}={workers.least} with {_taken(each, gpus)} each: each worker stands on one machine, and those "
            f"of the cluster have room for {room}; lower {number} or {key}.cpus_per_worker"
        )


def largest_machine(workers: WorkersConfig, gpus: int, cluster: ClusterSize) -> float:
    """CPUs of the largest machine that has `gpus` GPUs, for a task by itself.

    Raises UsageError where none has so many GPUs: the task would wait for ever.
    """
    fitting = [machine.cpus for machine in cluster.each_machine if machine.gpus >= gpus]
    if not fitting:
        raise UsageError(
            f"workers.gpus_per_worker={workers.gpus_per_worker}: no machine of this cluster has a GPU; set "
            "workers.gpus_per_worker=0, which changes nothing of what is learned, or run the same command where there "
            "is one"
        )
    return max(fitting)


def runs_at_once(workers: WorkersConfig, cluster: ClusterSize) -> int:
    """How many runs the cluster has room for, each with as many workers as it may have; 1 where it has less room."""
    return max(1, cluster.room(workers.cpus_per_worker, gpus_of(workers, cluster)) // workers.most)


def lacking(workers: WorkersConfig, cluster: ClusterSize, *, elastic: bool) -> str | None:
    """What keeps the workers waiting, for people; None where fewer of an elastic group can go on anyway."""
    each, gpus = workers.cpus_per_worker, gpus_of(workers, cluster)
    room = cluster.room(each, gpus)
    if elastic and room >= workers.least:
        return None
    why = "other work takes it" if room >= workers.least else f"the machines that are there have room for {room}"
    return (
        f"waiting for room for {workers.least} workers with {_taken(each, gpus)} each: {why}; interrupted, the run "
        "goes on by the same command, also with fewer workers"
    )


def _taken(cpus: float, gpus: int) -> str:
    return f"{cpus:g} CPUs" + (f" and {gpus} GPUs" if gpus else "")
