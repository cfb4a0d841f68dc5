"""What the workers of a run compute on, and in which precision.

Guaranteed: on a cluster of several machines one that has room for a worker is asked, since the driver's may have other
hardware. Not guaranteed: that machines of one cluster are alike; the one that is asked speaks for all of them.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from ray_jobs.errors import UsageError
from ray_jobs.models.embedder_config import Precision
from ray_jobs.models.openvino_runtime import cpu_has_bfloat16
from ray_jobs.models.torch_engine import cuda_available, cuda_has_bfloat16
from ray_jobs.runtime import ClusterSize, anywhere, wait_for
from ray_jobs.train.config import TrainConfig
from ray_jobs.train.room import gpus_of, largest_machine


@dataclass(frozen=True, slots=True)
class Hardware:
    """What a worker computes on."""

    device: Literal["cuda", "cpu"]
    has_bfloat16: bool


def of_this_machine(config: TrainConfig) -> Hardware:
    """What a worker would have here."""
    return _measured(bool(config.workers.gpus_per_worker) and cuda_available())


def of_workers(config: TrainConfig, cluster: ClusterSize) -> Hardware:
    """What a worker has on the cluster of this Ray session; of several machines, it waits until one has room.

    Raises UsageError where none ever has, for want of a GPU.
    """
    import ray

    gpus = gpus_of(config.workers, cluster)
    largest = largest_machine(config.workers, gpus, cluster)
    if len(cluster.each_machine) == 1:
        return _measured(gpus > 0)
    cpus = min(config.workers.cpus_per_worker, largest)
    asked = ray.remote(**anywhere(cpus, gpus))(_measured).remote(gpus > 0)
    try:
        wait_for(asked)
        found: Hardware = ray.get(asked)
    except KeyboardInterrupt:
        # Never a task that may have ended: Ray ends this process where its reply crosses the cancellation.
        ray.cancel(asked)
        raise
    return found


def precision_of(config: TrainConfig, hardware: Hardware) -> Precision:
    """The arithmetic of a step; raises UsageError for one that the hardware lacks."""
    wanted = wanted_precision(config, hardware)
    if wanted == "bfloat16" and not hardware.has_bfloat16:
        what = "CPU" if hardware.device == "cpu" else "GPU"
        raise UsageError(f"optimisation.precision=bfloat16: the workers' {what} does not compute in it; use float32")
    return wanted


def wanted_precision(config: TrainConfig, hardware: Hardware) -> Precision:
    """The arithmetic that was asked for, or that suits the hardware."""
    asked = config.optimisation.precision
    if asked == "auto":
        return "bfloat16" if hardware.has_bfloat16 else "float32"
    return asked


def _measured(on_gpu: bool) -> Hardware:
    """What this process has."""
    return Hardware("cuda", cuda_has_bfloat16()) if on_gpu else Hardware("cpu", cpu_has_bfloat16())
