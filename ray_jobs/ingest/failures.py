"""What failed in a run: how much for each reason, and some of it.

Guaranteed: every dead letter is counted; memory holds one file of them and a few examples.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

from ray_jobs.index.manifest import FileRecord
from ray_jobs.ingest.dead_letters import DeadLetter, read_letters
from ray_jobs.storage import Storage

EXAMPLES = 5  # in a summary
_OF_A_REASON = 10  # in a report


@dataclass
class Failures:
    """Dead letters, counted."""

    reasons: Counter[str] = field(default_factory=Counter)
    examples: list[str] = field(default_factory=list)  # a line each
    letters: dict[str, list[DeadLetter]] = field(default_factory=dict)  # some of each reason

    def add(self, letter: DeadLetter) -> None:
        """Count one."""
        self.reasons[letter.reason] += 1
        if len(self.examples) < EXAMPLES:
            self.examples.append(f"{letter.source} ({letter.locator}): {letter.message}")
        some = self.letters.setdefault(letter.reason, [])
        if len(some) < _OF_A_REASON:
            some.append(letter)


def failures_in(storage: Storage, files: Sequence[FileRecord]) -> Failures:
    """What failed, from the files of dead letters."""
    found = Failures()
    for letter in read_letters(storage, files):
        found.add(letter)
    return found
