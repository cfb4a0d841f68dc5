"""What a run has used: time, rates and utilisation of each stage, its cost, and which stage is worth a change.

Guaranteed: pure. A stage's utilisation is the time that its workers spent on pieces, as a share of its own time on all
of its places. Not guaranteed: anything about pieces that an earlier run had finished; they cost this run nothing.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from pydantic import BaseModel, ConfigDict

_HOUR = 3600.0
_BUSY = 0.75  # utilisation from which more places make a stage faster
_SHARE_OF_ENGINE = 0.6  # of the time of embedding, below which the engine is not what takes it


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class StageUsage(_Frozen):
    """One stage of a run."""

    seconds: float  # from its begin to its end
    slots: int  # pieces that are made at a time, at most
    cpus: float  # of one of them
    gpus: float
    pieces: int  # groups, shards, partitions that were made
    found: int  # and that an earlier run had finished
    documents: int
    chunks: int
    bytes: int
    busy_seconds: float  # of all workers
    engine_seconds: float  # of these, in the forward pass of a model
    retries: int  # pieces that were begun again after a worker was lost

    @property
    def utilisation(self) -> float:
        """Share of its places that was busy, 0 to 1."""
        return min(1.0, self.busy_seconds / (self.seconds * self.slots)) if self.seconds else 0.0

    def rate(self, amount: float) -> float:
        """An amount a second."""
        return amount / self.seconds if self.seconds else 0.0


class Cost(_Frozen):
    """Hours of processors: of the cluster for as long as the run lasted, and of these on work."""

    core_hours: float
    core_hours_busy: float
    gpu_hours: float
    gpu_hours_busy: float  # in forward passes

    def line(self) -> str:
        """As people read it."""
        cores = f"{self.core_hours:.4g} core-hours ({self.core_hours_busy:.4g} busy)"
        gpus = f", {self.gpu_hours:.4g} GPU-hours ({self.gpu_hours_busy:.4g} busy)" if self.gpu_hours else ""
        return cores + gpus


class Bottleneck(_Frozen):
    """The stage that took the most time, and what makes it faster."""

    stage: str
    share: float  # of the time of all stages, 0 to 1
    utilisation: float
    advice: str

    def line(self) -> str:
        """As people read it."""
        return f"{self.stage}: {self.share:.0%} of the time, its places {self.utilisation:.0%} busy; {self.advice}"


@dataclass(frozen=True)
class Used:
    """What a run has used until now."""

    stages: Mapping[str, StageUsage]
    bottleneck: Bottleneck | None
    cost: Cost

    @classmethod
    def of(cls, stages: Mapping[str, StageUsage], seconds: float, cpus: float, gpus: float) -> Used:
        """Of a run that has lasted so long on a cluster of so many CPUs and GPUs."""
        return cls(stages, bottleneck_of(stages), cost_of(stages, seconds, cpus, gpus))


def cost_of(stages: Mapping[str, StageUsage], seconds: float, cpus: float, gpus: float) -> Cost:
    """The cost of a run that lasted so long on a cluster of so many CPUs and GPUs."""
    busy = sum(stage.busy_seconds * stage.cpus for stage in stages.values())
    engine = sum(stage.engine_seconds * stage.gpus for stage in stages.values())
    return Cost(
        core_hours=round(seconds * cpus / _HOUR, 6),
        core_hours_busy=round(busy / _HOUR, 6),
        gpu_hours=round(seconds * gpus / _HOUR, 6),
        gpu_hours_busy=round(engine / _HOUR, 6),
    )


def bottleneck_of(stages: Mapping[str, StageUsage]) -> Bottleneck | None:
    """The stage that took the most time; None where none took any."""
    total = sum(stage.seconds for stage in stages.values())
    if not total:
        return None
    name, stage = max(stages.items(), key=lambda item: item[1].seconds)
    share = stage.seconds / total
    return Bottleneck(
        stage=name, share=round(share, 4), utilisation=round(stage.utilisation, 4), advice=_advice(name, stage)
    )


def _advice(name: str, stage: StageUsage) -> str:
    if name == "embed":
        return _of_embedding(stage)
    if name in _OF_DRIVER:
        return _OF_DRIVER[name]
    if stage.pieces + stage.found < stage.slots or stage.utilisation < _BUSY:
        return _UNEVEN.get(name, "its pieces are few or uneven, more CPUs would not help")
    return f"more CPUs or machines make it faster, {stage.slots} pieces are made at a time"


def _of_embedding(stage: StageUsage) -> str:
    if stage.utilisation < _BUSY:
        return "its actors wait: smaller groups (--group-bytes) spread the work; in a short run they wait for the model"
    if stage.engine_seconds < _SHARE_OF_ENGINE * stage.busy_seconds:
        return (
            "reading and chunking take more of it than the model: more actors of fewer CPUs each "
            "(--resources.embed-cpus)"
        )
    if stage.gpus:
        return "more GPUs, each with an actor (--resources.embed-actors)"
    return "more CPUs or machines for embedding actors (--resources.embed-actors), or a GPU"


_OF_DRIVER = {
    "start": "the embedder is loaded, once a run: with more to embed it does not count",
    "train": "it runs on one machine: fewer inverted lists (--index-type), or one with more CPUs",
    "verify": "every new file is read again: a faster store, or a machine with more CPUs for the recall gate",
}
_UNEVEN = {
    "read": "groups are few or uneven: smaller ones (--group-bytes) spread the work",
    "build": "shards are few or uneven: more of them (--shards) spread the work",
}
