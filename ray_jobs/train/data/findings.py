"""What staging and deciding found out about a data set, and what of it people should be warned of."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq

from ray_jobs.corpus.sketch import Banding
from ray_jobs.train.data import card as cards
from ray_jobs.train.data.config import PrepareConfig
from ray_jobs.train.data.counting import Counted
from ray_jobs.train.data.decide import Decisions
from ray_jobs.train.data.keys import Keys
from ray_jobs.train.data.planning import Plan
from ray_jobs.train.data.splitting import SPLITS
from ray_jobs.train.data.staging import StagedPart, group_number

TINY = 20  # rows of a split below which its figures say little
LARGE = 1 / 3  # share of the rows from which one group spoils a split by groups
LEAKING = 0.05  # share of the rows from which rows that were removed are worth a warning
TOGETHER = "keep rows that ask the same in one split with source_column=row (of retrieval data also split.by=query)"
BY_QUERY = "divide the queries, and let splits share documents, with split.by=query"


@dataclass(frozen=True, slots=True)
class Findings:
    """All that was found out about a data set."""

    config: PrepareConfig
    plan: Plan
    parts: Sequence[StagedPart]
    keys: Keys  # of all rows
    own: Keys  # of what is prepared: evaluation sets have no lengths
    banding: Banding
    decisions: Decisions
    counted: Counted

    @property
    def data(self) -> list[StagedPart]:
        """The parts of what is prepared."""
        return [part for part in self.parts if not part.set]

    def place(self, number: int) -> str:
        """The name of a split or an evaluation set."""
        return [*SPLITS, *(found.name for found in self.plan.evaluation)][number]


def warnings_of(
    found: Findings,
    splits: Mapping[str, cards.SplitRecord],
    leaks: Sequence[cards.Leakage],
    files: Mapping[str, Path],
) -> list[str]:
    """What makes results on these splits say less than they seem to; `files` are those of the splits."""
    removed = [*_many_leaks(found), *_many_strays(found)]
    return [*_large_group(found, files), *removed, *_of_splits(found.config, splits, leaks)]


def _large_group(found: Findings, files: Mapping[str, Path]) -> list[str]:
    """A warning where one group has so many rows that the splits cannot have the wished shares."""
    decisions, groups = found.decisions, found.keys.column("group")
    kept = decisions.kept & (decisions.places < len(SPLITS))
    numbers, counts = np.unique(groups[kept], return_counts=True)
    largest, total = int(counts.argmax()), int(counts.sum())
    if len([share for share in found.config.split.shares.values() if share]) < 2 or counts[largest] <= LARGE * total:
        return []
    split = SPLITS[int(decisions.places[np.flatnonzero(kept & (groups == numbers[largest]))[0]])]
    names = pq.read_table(files[split], columns=["source"]).column(0).unique().to_pylist()
    name = next(name for name in names if group_number(name) == numbers[largest])
    by = ", ".join(sorted({column for part in found.data for column in part.grouped_by}))
    return [
        f"group {name!r} has {counts[largest]:,} of {total:,} rows ({counts[largest] / total:.1%}), all in {split}: "
        f"rows are grouped by {by}; name another source_column"
    ]


def _many_leaks(found: Findings) -> list[str]:
    """A warning where leaks cost a large share of the rows."""
    rows, leaked = sum(part.rows for part in found.data), found.decisions.leaked
    if leaked < LEAKING * rows or not leaked:
        return []
    leaks = found.decisions.leaks
    remedy = f"; {TOGETHER}" if any(leak.same and leak.place < len(SPLITS) for leak in leaks) else ""
    listed = ", ".join(dict.fromkeys(found.place(leak.place) for leak in leaks))
    return [f"{leaked:,} of {rows:,} rows ({leaked / rows:.1%}) were removed as leaks, asked again in {listed}{remedy}"]


def _many_strays(found: Findings) -> list[str]:
    """A warning where shared documents cost a large share of the rows."""
    rows, strayed = sum(part.rows for part in found.data), len(found.decisions.strayed)
    if strayed < LEAKING * rows or not strayed:
        return []
    share = f"{strayed:,} of {rows:,} rows ({strayed / rows:.1%})"
    return [f"{share} were removed because their document is in another split too; {BY_QUERY}"]


def _of_splits(
    config: PrepareConfig, splits: Mapping[str, cards.SplitRecord], leaks: Sequence[cards.Leakage]
) -> list[str]:
    warnings = []
    for name, split in splits.items():
        if split.wished and split.rows < TINY:
            warnings.append(f"{name} has {split.rows} rows: its figures say little")
        if split.wished and not 0.5 <= split.share / split.wished <= 2:
            warnings.append(
                f"{name} has {split.share:.1%} of the rows, not {split.wished:.1%}: its groups are few or uneven"
            )
        if name != "train" and split.labels is not None and len(split.labels) == 1:
            warnings.append(f"all rows of {name} have one label")
    if config.keep_leaks and leaks:
        warnings.append("rows that leak were kept: results on the places they are found again in are too good")
    return warnings
