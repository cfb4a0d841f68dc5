"""What mining found, for the card: counts, reasons, where the positives were, how far scores lie apart."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from pydantic import BaseModel, ConfigDict

_BOUNDS = (1, 3, 10, 30, 100, 300, 1000)
NOT_FOUND = "not among the hits"
NOT_INDEXED = "not in the index"


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Scores(_Frozen):
    """A summary of scores."""

    count: int = 0
    total: float = 0.0
    least: float = 0.0
    greatest: float = 0.0

    @property
    def mean(self) -> float:
        """Of all, 0 without any."""
        return self.total / self.count if self.count else 0.0

    @classmethod
    def of(cls, values: Iterable[float]) -> Scores:
        """The summary of some values."""
        found = list(values)
        if not found:
            return cls()
        return cls(count=len(found), total=sum(found), least=min(found), greatest=max(found))

    def __add__(self, other: Scores) -> Scores:
        if not self.count or not other.count:
            return self if self.count else other
        return Scores(
            count=self.count + other.count,
            total=self.total + other.total,
            least=min(self.least, other.least),
            greatest=max(self.greatest, other.greatest),
        )


class MinedSplit(_Frozen):
    """What became of the rows of a split, or of a part of it."""

    rows: int = 0  # that were there
    mined: int = 0  # that got negatives
    negatives: int = 0
    added: int = 0  # rows without an answer, of data that a reader learns from
    dropped: int = 0  # rows without an answer, which have no positive
    repeated: int = 0  # rows that came out the same as another one
    without: dict[str, int] = {}  # rows that got none, by the rule that took most of their hits
    skipped: dict[str, int] = {}  # hits that were looked at, by the rule that took them
    ranks: dict[str, int] = {}  # rows by the rank of their positive
    positive: Scores = Scores()
    negative: Scores = Scores()
    difference: Scores = Scores()  # the row's positive minus each of its negatives

    def __add__(self, other: MinedSplit) -> MinedSplit:
        return MinedSplit(
            rows=self.rows + other.rows,
            mined=self.mined + other.mined,
            negatives=self.negatives + other.negatives,
            added=self.added + other.added,
            dropped=self.dropped + other.dropped,
            repeated=self.repeated + other.repeated,
            without=_sum(self.without, other.without),
            skipped=_sum(self.skipped, other.skipped),
            ranks=_sum(self.ranks, other.ranks),
            positive=self.positive + other.positive,
            negative=self.negative + other.negative,
            difference=self.difference + other.difference,
        )


class MiningRecord(_Frozen):
    """How the negatives of a data set were found, and what came of it."""

    data: str  # the prepared set, with its hash
    data_kind: str
    index: str
    snapshot: int
    reranker: str | None
    reranker_revision: str | None
    positives: int  # distinct ones
    indexed: int  # of them found in the index
    splits: dict[str, MinedSplit]

    @property
    def total(self) -> MinedSplit:
        """All splits together."""
        return sum(self.splits.values(), MinedSplit())

    @property
    def more_rows(self) -> int:
        """Rows that came in, minus those that were left out."""
        return self.total.added - self.total.dropped - self.total.repeated

    def lines(self) -> list[str]:
        """The record in a few lines, for a terminal."""
        lines = []
        for name, split in self.splits.items():
            if not split.rows:
                continue
            reasons = ", ".join(f"{count:,} {reason}" for reason, count in _largest(split.without))
            without = f"; none for {sum(split.without.values()):,} ({reasons})" if reasons else ""
            lines.append(
                f"{name:<11}{split.negatives:,} negatives for {split.mined:,} of {split.rows:,} rows "
                f"({split.mined / split.rows:.1%}){without}"
            )
        ranked = f"first for {self.total.ranks.get('1', 0):,} of {self.total.rows:,} rows"
        return [
            f"mined      {self.data} from {self.index}, snapshot {self.snapshot}"
            + (f", reranked by {self.reranker}" if self.reranker else ""),
            f"positives  {self.indexed:,} of {self.positives:,} are in the index; {ranked}",
            *lines,
        ]


def rank_name(rank: int | None) -> str:
    """The bin of a positive's rank, from 1; None: it was not found."""
    if rank is None:
        return NOT_FOUND
    before = 0
    for bound in _BOUNDS:
        if rank <= bound:
            return str(bound) if before + 1 == bound else f"{before + 1}-{bound}"
        before = bound
    return f"{before + 1}-"


def rank_names() -> list[str]:
    """All bins in order."""
    return [*dict.fromkeys(rank_name(bound) for bound in (*_BOUNDS, _BOUNDS[-1] + 1)), NOT_FOUND, NOT_INDEXED]


def _sum(one: Mapping[str, int], two: Mapping[str, int]) -> dict[str, int]:
    return {key: one.get(key, 0) + two.get(key, 0) for key in sorted({*one, *two})}


def _largest(counts: Mapping[str, int]) -> list[tuple[str, int]]:
    return sorted(counts.items(), key=lambda item: (-item[1], item[0]))
