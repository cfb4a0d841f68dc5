"""What a failure of Ray Train means: workers were lost, and others may do better, or the same would come again.

Guaranteed: an error of Tandem's, raised on any worker, is raised as itself; a lack of memory says which knob to turn.
"""

from __future__ import annotations

from collections.abc import Iterator

from ray_jobs.errors import TandemError
from ray_jobs.runtime import find_cause
from ray_jobs.train.config import TrainConfig
from ray_jobs.train.memory import memory_remedy
from ray_jobs.train.sharing import UnsharedStepError

# How Ray speaks of a worker that it has stopped before the machine had no memory left.
_SHORT_OF_MEMORY = ("running low on memory", "memory usage threshold")
_BROKEN_LINK = ("connection", "gloo", "nccl", "peer", "process group", "socket", "broken pipe")


def raise_unless_lost(error: BaseException, config: TrainConfig) -> None:
    """Return only for an error that a new group of workers need not meet again."""
    found = list(_failures(error))
    for failure in found or [error]:
        if (cause := find_cause(failure)) is not None:
            raise cause from None
        if short_of_memory(failure):
            raise TandemError(f"a worker was stopped for lack of memory: {memory_remedy(config)}")
    if not any(_is_of_the_cluster(failure) or _is_broken_link(failure) for failure in found):
        raise error


def short_of_memory(failure: BaseException) -> bool:
    """Whether Ray has stopped a worker before its machine had no memory left."""
    return any(sign in str(failure) for sign in _SHORT_OF_MEMORY)


def never_placed(error: BaseException) -> bool:
    """Whether the group has waited in vain for room on the cluster; not a worker was lost."""
    return type(getattr(error, "controller_failure", None)).__name__ == "WorkerGroupStartupTimeoutError"


def process_lost(error: BaseException) -> bool:
    """Whether the process of a task has died, or its machine; not whether the task has failed in it."""
    from ray.exceptions import RayError, RayTaskError

    return isinstance(error, RayError) and not isinstance(error, RayTaskError)


def unshared_by(error: BaseException) -> int | None:
    """How many workers could not share a step, if that is why a group has ended."""
    causes = (find_cause(failure) for failure in _failures(error))
    return next((cause.workers for cause in causes if isinstance(cause, UnsharedStepError)), None)


def _failures(error: BaseException) -> Iterator[BaseException]:
    """What each worker has met, or the controller; what user code raised comes wrapped."""
    inside = [*getattr(error, "worker_failures", {}).values(), getattr(error, "controller_failure", None)]
    for failure in inside:
        if failure is not None:
            yield getattr(failure, "_base_exc", failure)


def _is_of_the_cluster(failure: BaseException) -> bool:
    """Whether Ray itself raised it: a worker that died or hangs, a group that could not be started."""
    from ray.exceptions import RayError

    return isinstance(failure, RayError) or type(failure).__module__.startswith("ray.train.")


def _is_broken_link(failure: BaseException) -> bool:
    """Whether a worker failed because a peer was gone."""
    text = str(failure).lower()
    return isinstance(failure, RuntimeError) and any(sign in text for sign in _BROKEN_LINK)
