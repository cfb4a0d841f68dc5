"""How a job makes a prepared data set: it finds the one that is there, or makes it, and leaves nothing else behind.

Guaranteed: a set is made once for each hash, and the one last asked for is what its name alone means; it is published
whole, after its card was checked against its rows, or not at all; what was in flight is removed when the job ends, and
when it fails.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from ray_jobs.errors import CorruptError
from ray_jobs.index import layout
from ray_jobs.runtime import ClusterSize, raise_if_interrupted, session, terminated_as_interrupt
from ray_jobs.storage import Storage, new_id
from ray_jobs.train.data import prepared
from ray_jobs.train.data.card import DataCard
from ray_jobs.train.data.card_markdown import markdown
from ray_jobs.train.data.prepared import Prepared

Verb = Literal["prepared", "mined"]


@dataclass(frozen=True, slots=True)
class DataSummary:
    """The outcome of one run of such a job."""

    outcome: Verb | Literal["unchanged"]
    prepared: Prepared

    def lines(self) -> list[str]:
        """The summary as people read it."""
        place = self.prepared.uri
        title = f"nothing changed: {place} is there already"
        if self.outcome != "unchanged":
            title = f"{self.outcome} {place}"
        return [title, *self.prepared.card.lines()]

    def to_dict(self) -> dict[str, object]:
        """The summary for programs: the outcome, where the data set is, and its card."""
        return {"outcome": self.outcome, **self.prepared.to_dict()}


class MakingJob(ABC):
    """One data set in the making."""

    verb: Verb

    def __init__(self, storage: Storage, cluster: ClusterSize) -> None:
        self.storage = storage
        self.cluster = cluster
        self.folder = f"{layout.run_folder(new_id())}/making"
        """For what is only in flight."""

    @abstractmethod
    def run(self) -> Prepared:
        """All steps."""

    def clean_up(self) -> None:
        """Remove what was only in flight."""
        for item in list(self.storage.list(self.folder)):
            self.storage.delete(item.key)

    def publish(self, card: DataCard, files: dict[str, Path], folder: Path) -> Prepared:
        """Put `files`, and the card as people read it, into the store; raises CorruptError for a card that is wrong."""
        problems = card.check()
        if problems:
            raise CorruptError(f"name={card.name}: {problems[0]}; nothing was {self.verb}, run the command again")
        text = folder / prepared.CARD_MARKDOWN
        text.write_text(markdown(card), encoding="utf-8")
        raise_if_interrupted()
        return prepared.publish(self.storage, card, {**files, text.name: text})


def make_once(storage: Storage, name: str, digest: str, start: Callable[[ClusterSize], MakingJob]) -> DataSummary:
    """The data set `name` of this hash: the one that is there, or what the job that `start` gives makes of it."""
    done = prepared.find(storage, name, digest)
    if done is not None:
        prepared.ask_again(storage, name, digest)
        return DataSummary("unchanged", done)
    with session() as cluster, terminated_as_interrupt():
        job = start(cluster)
        try:
            return DataSummary(job.verb, job.run())
        finally:
            job.clean_up()
