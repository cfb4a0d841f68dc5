"""The data card: all that was found out about a data set while it was prepared, for programs and for people.

Guaranteed: equal inputs, configuration and tokenizer give the same card, byte for byte; it holds no time, and no path
of this machine but that of a tokenizer that is a folder. Its sums hold: what was accepted is kept, or was removed as a
duplicate, as a leak, or for its document; what mining added or left out is counted apart.
"""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict

from ray_jobs.train.data.lengths import Lengths
from ray_jobs.train.data.mining_record import MiningRecord
from ray_jobs.train.data.validate import Rejected


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class InputRecord(_Frozen):
    """One input file."""

    input: str
    sha256: str  # of the decompressed bytes
    read: int  # rows
    rejected: int


class Pair(_Frozen):
    """Two rows that are near, for people to look at."""

    row: str  # the input's id, else the row's
    of: str
    similarity: float


class Duplicates(_Frozen):
    """Rows that an earlier one made superfluous."""

    exact: int
    near: int | None  # None: not looked for
    near_asked: int  # of the near ones, those that ask in other words than the row that stayed
    near_target: int  # and those with another target (answers, completion, passages)
    threshold: float
    bands: int
    rows_a_band: int
    found_at_threshold: float  # the probability that a pair just at the threshold is found
    examples: tuple[Pair, ...]

    def near_line(self) -> str:
        """The near ones as people read it."""
        if not self.near:
            return "near ones not looked for" if self.near is None else "0 near"
        differing = f"{self.near_asked:,} asked in other words, {self.near_target:,} with another target"
        return f"{self.near:,} near ({differing})"


class Leakage(_Frozen):
    """Rows of a split that are asked again in another one, or in an evaluation set."""

    split: str
    place: str  # the split or evaluation set where they are found again
    same: int
    near: int
    found: int  # distinct questions of the place
    questions: int  # that the place has
    removed: bool
    examples: tuple[Pair, ...]


class SharedDocuments(_Frozen):
    """Rows whose passage training rows are about too: no leak, but they flatter the result."""

    place: str
    rows: int
    shared_rows: int
    unit: str  # "query" or "row"
    units: int
    shared_units: int
    disjoint: tuple[str, ...]  # ids of rows (of evaluation sets: of queries) that share none; not listed if all do


class SplitRecord(_Frozen):
    """One split."""

    rows: int
    groups: int
    wished: float  # share
    share: float
    sha256: str
    bytes: int
    labels: dict[str, int] | None
    lengths: dict[str, Lengths]  # by text


class EvaluationRecord(_Frozen):
    """One evaluation set that training rows were compared with."""

    kind: str
    inputs: tuple[InputRecord, ...]
    rows: int


class DataCard(_Frozen):
    """What is known of a prepared data set."""

    name: str
    hash: str
    kind: str
    config: dict[str, object]
    inputs: tuple[InputRecord, ...]
    ignored: tuple[str, ...]  # files of other formats in the same folders
    read: int  # rows of the inputs
    rejected: int
    reasons: dict[str, int]
    first_rejected: tuple[Rejected, ...]
    cleaned: int  # rows of the inputs in which cleaning changed something
    rows: int  # accepted; more than one of an input's row where it lists several positives
    grouped_by: dict[str, int]  # rows by the column that named their group
    duplicates: Duplicates
    leaks: tuple[Leakage, ...]
    leaked: int  # rows that were removed for it
    strayed: int = 0  # rows that were removed because a split above theirs has their document too
    shared_documents: tuple[SharedDocuments, ...]
    evaluation_sets: dict[str, EvaluationRecord]
    unit: str  # of lengths: "tokens" or "words"
    tokenizer: str | None
    tokenizer_revision: str | None
    splits: dict[str, SplitRecord]
    warnings: tuple[str, ...]
    mining: MiningRecord | None = None  # of a set whose negatives were mined

    def check(self) -> list[str]:
        """What does not add up; nothing if all is well."""
        kept = sum(split.rows for split in self.splits.values())
        removed = self.duplicates.exact + (self.duplicates.near or 0) + self.leaked + self.strayed
        more = 0 if self.mining is None else self.mining.more_rows
        problems = []
        if self.rows + more != kept + removed:
            problems.append(f"{self.rows} rows accepted and {more} mined are not {kept} kept + {removed} removed")
        if sum(self.reasons.values()) != self.rejected:
            problems.append(f"{self.rejected} rejected are not the sum of the reasons {self.reasons}")
        return problems

    def json_text(self) -> str:
        """The card for programs."""
        return self.model_dump_json(indent=2) + "\n"

    def lines(self) -> list[str]:
        """The card in a few lines, for a terminal."""
        near = self.duplicates.near_line()
        lines = [
            f"read       {self.read:,} rows of {len(self.inputs)} files: {self.rejected:,} rejected, "
            f"{self.cleaned:,} cleaned, {self.rows:,} {self.kind} rows accepted",
            f"removed    {self.duplicates.exact:,} exact duplicates, {near}, {self.leaked:,} leaks"
            + (f", {self.strayed:,} whose document is in another split" if self.strayed else ""),
        ]
        for name, split in self.splits.items():
            whole = split.lengths.get("whole") or next(iter(split.lengths.values()), None)
            length = "" if whole is None else f", {whole.total:,} {self.unit}, median {whole.median:,}"
            lines.append(f"{name:<11}{split.rows:,} rows of {split.groups:,} groups ({split.share:.1%}){length}")
        lines += [
            f"shared     {found.shared_units:,} of {found.units:,} {found.unit} units of {found.place} are about "
            f"documents of training"
            for found in self.shared_documents
        ]
        if self.mining is not None:
            lines += self.mining.lines()
        return lines + [f"warning    {warning}" for warning in self.warnings]
