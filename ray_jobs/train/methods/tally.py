"""What becomes of the rows of a split on their way to a trainer: how many are cut, left out, or learned in part.

Guaranteed: counts are of the rows of the split, of replayed ones too, before they are packed or repeated; they are the
same whether the rows were just made or found again on this machine.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any


@dataclass(frozen=True, slots=True)
class Tally:
    """The rows of one split."""

    rows: int
    left_out: int = 0
    why: str = ""  # they were left out
    cut: int = 0
    max_length: int | None = None  # tokens that rows were cut at; None: they were not cut here
    last_alone: int = 0  # conversations of whose answers only the last one could be told

    def line(self, split: str) -> str | None:
        """What a user should know of it, if anything."""
        found = [
            f"{self.cut:,} rows cut at max_length={self.max_length}" if self.cut else "",
            f"{self.left_out:,} left out ({self.why})" if self.left_out else "",
            f"{self.last_alone:,} learned from their last answer alone" if self.last_alone else "",
        ]
        told = ", ".join(part for part in found if part)
        return f"{split}: {told}, of {self.rows:,} rows" if told else None


@dataclass
class Tallies:
    """Those of a run's splits, by name; filled in by the method as it makes its rows."""

    splits: dict[str, Tally] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        """For finished.json."""
        return {name: asdict(tally) for name, tally in self.splits.items()}


def lines(outcome: dict[str, Any]) -> tuple[str, ...]:
    """The splits of a finished.json as people read them; nothing where nothing happened to a row."""
    # Runs of earlier versions counted none.
    told = (Tally(**tally).line(name) for name, tally in outcome.get("rows", {}).items())
    return tuple(line for line in told if line is not None)
