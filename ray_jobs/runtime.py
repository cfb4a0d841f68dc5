"""Ray for the jobs: a session, the size of the cluster, and receipts streaming back from it.

Guaranteed: without RAY_ADDRESS a job starts its own local Ray and stops it; an error of Tandem's raised in a worker
reaches the caller as itself, not wrapped. Not guaranteed: which worker runs what.
"""

from __future__ import annotations

import logging
import os
import signal
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from ray_jobs.errors import TandemError, first_line

MAX_BLOCKS = 2_000  # input blocks of a stage: below it each group is a block of its own, and its receipt comes at once
_INTERRUPTION: ContextVar[list[int] | None] = ContextVar("interruption", default=None)
_LOOK_SECONDS = 0.5
LAPTOP_CPUS = 4  # of a cluster, up to which stages take turns
ACTOR_CPUS = 8  # of an actor that runs a model, on a machine that has more


@dataclass(frozen=True)
class Machine:
    """What one machine of the cluster has."""

    cpus: float
    gpus: float = 0
    free_cpus: float | None = None  # that nobody held when it was asked; None: all
    resources: Mapping[str, float] = field(default_factory=dict)  # those that whoever started it has named


@dataclass(frozen=True)
class Needs:
    """What one task or actor takes of a machine, in Ray's terms."""

    cpus: float = 1
    gpus: float = 0
    resources: Mapping[str, float] = field(default_factory=dict)

    @property
    def options(self) -> dict[str, Any]:
        """As `stream` takes them."""
        return {"num_cpus": self.cpus, "num_gpus": self.gpus, "resources": self.resources}

    def fit(self, machine: Machine) -> int:
        """How many times they are on a machine."""
        named = [(each, machine.resources.get(name, 0.0)) for name, each in self.resources.items()]
        asked = [(self.cpus, machine.cpus), (self.gpus, machine.gpus), *named]
        return min(int(there / each + 1e-9) for each, there in asked if each)


@dataclass(frozen=True)
class ClusterSize:
    """What the cluster has, and each of its machines; without `machines` it is a single one."""

    cpus: int
    gpus: int
    machines: tuple[Machine, ...] = ()

    @property
    def largest(self) -> int:
        """CPUs of its largest machine: Ray waits for ever for a place that needs more."""
        return max(1, int(max(machine.cpus for machine in self.each_machine)))

    @property
    def actor_cpus(self) -> int:
        """CPUs of an actor that runs a model: all of a small machine, so that actors do not compete.

        Of those that are free, where some are: others, such as deployments, may hold theirs as long as they live.
        """
        free = max(machine.cpus if machine.free_cpus is None else machine.free_cpus for machine in self.each_machine)
        return min(ACTOR_CPUS, self.largest, int(free) or self.largest)

    def room(self, cpus: float, gpus: float = 0, resources: Mapping[str, float] | None = None) -> int:
        """How many places of so many CPUs, GPUs and named resources there are; each is on one machine."""
        needs = Needs(cpus, gpus, resources or {})
        return sum(needs.fit(machine) for machine in self.each_machine)

    @property
    def each_machine(self) -> tuple[Machine, ...]:
        """Its machines, one at least."""
        return self.machines or (Machine(self.cpus, self.gpus),)

    @property
    def is_laptop(self) -> bool:
        """Whether the laptop profile applies: few CPUs, so that stages take turns instead of competing."""
        return self.cpus <= LAPTOP_CPUS


@contextmanager
def session() -> Iterator[ClusterSize]:
    """A Ray session: the one that runs already, the cluster that RAY_ADDRESS names, or a local one of its own.

    Raises TandemError when Ray cannot be reached or started.
    """
    import ray

    if ray.is_initialized():
        _quiet_ray_data()
        yield cluster_size()
        return
    address = os.environ.get("RAY_ADDRESS")
    with _native_messages_aside():
        # Ray prints its own lines about what it does; a job prints its progress instead.
        os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
        try:
            ray.init(
                # Without an address Ray would join whatever runs on this machine already.
                address=address or "local",
                logging_level=logging.ERROR,
                log_to_driver=bool(os.environ.get("TANDEM_DEBUG")),
                include_dashboard=None if address else False,
            )
        # Of a node that does not start in time Ray says so with a plain Exception.
        except Exception as error:
            reason = first_line(error)
            raise TandemError(
                f"RAY_ADDRESS={address or '(none)'}: cannot start or reach Ray ({reason}); check the address and the "
                f"cluster's token, or unset RAY_ADDRESS to run on this machine"
            ) from None
        try:
            _quiet_ray_data()
            yield cluster_size()
        finally:
            ray.shutdown()


def cluster_size() -> ClusterSize:
    """What the cluster of this session has now."""
    import ray

    resources = ray.cluster_resources()
    free = ray._private.state.available_resources_per_node()
    machines = tuple(_machine(node["Resources"], free.get(node["NodeID"], {})) for node in ray.nodes() if node["Alive"])
    return ClusterSize(max(1, int(resources.get("CPU", 1))), int(resources.get("GPU", 0)), machines)


def _machine(has: Mapping[str, float], free: Mapping[str, float]) -> Machine:
    own = ("CPU", "GPU", "memory", "object_store_memory")
    named = {name: amount for name, amount in has.items() if name not in own and ":" not in name}
    return Machine(has.get("CPU", 0.0), has.get("GPU", 0.0), free.get("CPU", 0.0), named)


@contextmanager
def _native_messages_aside() -> Iterator[None]:
    """Keep what native code writes to file descriptor 2 off the terminal; shown after all if the session breaks.

    Ray's core writes there, whatever the log level, of things that are no concern of the user's. Python's own standard
    error goes on to where it went.
    """
    ours = sys.stderr
    if os.environ.get("TANDEM_DEBUG") or ours is None or ours is not sys.__stderr__:
        yield
        return
    terminal = os.dup(2)
    with tempfile.TemporaryFile() as aside, os.fdopen(os.dup(terminal), "w", buffering=1) as stream:
        os.dup2(aside.fileno(), 2)
        sys.stderr = stream
        try:
            yield
        except (TandemError, KeyboardInterrupt):
            raise
        except BaseException:
            aside.seek(0)
            os.write(terminal, aside.read())
            raise
        finally:
            stream.flush()
            sys.stderr = ours
            os.dup2(terminal, 2)
            os.close(terminal)


def stream(
    items: Sequence[dict[str, object]],
    worker: Callable[..., Any] | type,
    *,
    arguments: Sequence[object] = (),
    actors: tuple[int, int | None] | None = None,
    batch_size: int = 1,
    num_cpus: float = 1,
    num_gpus: float = 0,
    resources: Mapping[str, float] | None = None,
) -> Iterator[dict[str, Any]]:
    """Run `worker` over `items` with Ray Data and yield what it returns as it comes, in any order.

    Each item is one row; `worker` gets batches of rows as columns and yields batches. With `actors` (least, most; None:
    as many as the cluster has room for, also on machines that come while the stage goes on) it is a class whose
    instances live as long as the stage, built from `arguments`; without, a function of the batch and `arguments=`.
    `num_cpus`, `num_gpus` and `resources`, by name, are what one task or actor takes. Raises what the worker raised.
    """
    import ray
    from ray.data import ActorPoolStrategy, TaskPoolStrategy

    if not items:
        return
    dataset = ray.data.from_items(list(items), override_num_blocks=min(len(items), MAX_BLOCKS))
    strategy = ActorPoolStrategy(min_size=actors[0], max_size=actors[1]) if actors else TaskPoolStrategy()
    mapped = dataset.map_batches(
        _bound(worker, arguments),
        batch_size=batch_size,
        compute=strategy,
        num_cpus=num_cpus,
        num_gpus=num_gpus or None,
        resources=dict(resources or {}) or None,
    )
    try:
        for row in mapped.iter_rows():
            raise_if_interrupted()
            yield row
        raise_if_interrupted()
    except Exception as error:
        cause = find_cause(error)
        if cause is None:
            raise
        raise cause from None


def _bound(worker: Callable[..., Any] | type, arguments: Sequence[object]) -> Callable[..., Any] | type:
    """The worker with its arguments inside: passed beside it they would be objects that outlive no restart."""
    if not isinstance(worker, type):
        return partial(worker, arguments=tuple(arguments)) if arguments else worker

    class Bound(worker):  # type: ignore[misc, valid-type]
        def __init__(self) -> None:
            super().__init__(*arguments)

    Bound.__name__ = worker.__name__
    return Bound


def beside_this_process() -> Any:
    """The strategy of an actor that is of use only as long as this process is: on its machine, lost with it alone."""
    import ray
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    return NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)


def retries() -> int:
    """How often Ray has run the task of this worker before and lost it; 0 outside of a task."""
    import ray

    if not ray.is_initialized():
        return 0
    return int(ray._private.worker.global_worker.core_worker.get_current_task_attempt_number())


def anywhere(cpus: float, gpus: float = 0) -> dict[str, Any]:
    """The options of a task that takes its resources from the cluster, also where whoever asks is a trial of Ray Tune.

    A trial stands in a placement group that has room for itself alone, and Ray puts what it starts there.
    """
    return {"num_cpus": cpus, "num_gpus": gpus, "scheduling_strategy": "DEFAULT"}


def find_cause(error: BaseException) -> TandemError | None:
    """The error of Tandem's at the root of one that Ray wrapped, or None."""
    seen: set[int] = set()
    pending: list[BaseException | None] = [error]
    while pending:
        current = pending.pop()
        if current is None or id(current) in seen:
            continue
        seen.add(id(current))
        # Ray raises a class made of its own and ours, with Ray's text; the original hangs below it.
        if isinstance(current, TandemError) and type(current).__module__.startswith("ray_jobs."):
            return type(current)(str(current).splitlines()[0])
        pending += [current.__cause__, current.__context__, getattr(current, "cause", None)]
    return None


@contextmanager
def terminated_as_interrupt() -> Iterator[None]:
    """Turn SIGINT and SIGTERM into KeyboardInterrupt, so that a stopped job cleans up.

    An exception raised by a signal inside a callback of native code is lost; `raise_if_interrupted` raises it again.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    # No event: a second signal may come while a handler runs, and would wait for the lock that the first one holds.
    asked: list[int] = []

    def interrupt(signum: int, frame: object) -> None:
        asked.append(signum)
        raise KeyboardInterrupt

    previous = {number: signal.signal(number, interrupt) for number in (signal.SIGINT, signal.SIGTERM)}
    token = _INTERRUPTION.set(asked)
    try:
        yield
    finally:
        _INTERRUPTION.reset(token)
        for number, handler in previous.items():
            signal.signal(number, handler)


def raise_if_interrupted() -> None:
    """Raise KeyboardInterrupt when this job was asked to stop, even if the first one was lost on its way."""
    asked = _INTERRUPTION.get()
    if asked:
        raise KeyboardInterrupt


def wait_for(reference: Any) -> None:
    """Wait until Ray has made what the reference stands for; raises KeyboardInterrupt when asked to stop."""
    import ray

    while not ray.wait([reference], timeout=_LOOK_SECONDS)[0]:
        raise_if_interrupted()


def _quiet_ray_data() -> None:
    from ray.data import DataContext

    context = DataContext.get_current()
    context.enable_progress_bars = False
    context.print_on_execution_start = False
    # Ray gathers small outputs into one block, and receipts would come late: a block a receipt.
    context.target_max_block_size = 1
    if not os.environ.get("TANDEM_DEBUG"):
        # What fails is raised; the same failure logged by the executor, with its stacks, is noise.
        for name in ("ray", "ray.data"):
            logging.getLogger(name).setLevel(logging.CRITICAL)
