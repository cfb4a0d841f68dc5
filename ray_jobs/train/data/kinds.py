"""The kinds of rows, and which one a file holds. A new kind is one class and one line here."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from collections.abc import Set as AbstractSet

from ray_jobs.train.data.completion import Completion
from ray_jobs.train.data.kind import Kind
from ray_jobs.train.data.label import Label
from ray_jobs.train.data.messages import Messages
from ray_jobs.train.data.preference import Preference
from ray_jobs.train.data.qa import Qa
from ray_jobs.train.data.question import Question
from ray_jobs.train.data.retrieval import Retrieval

# The order counts: a row with a label is also a prompt with a completion.
KINDS: dict[str, Kind] = {
    kind.name: kind for kind in (Messages(), Preference(), Label(), Completion(), Retrieval(), Qa())
}
EVALUATION_KINDS: dict[str, Kind] = {**KINDS, Question.name: Question()}


def kind_of(names: AbstractSet[str], kinds: Mapping[str, Kind] = KINDS) -> str | None:
    """The first kind that a row with these columns fits; None without."""
    return next((name for name, kind in kinds.items() if kind.fits(names)), None)


def expected(kinds: Iterable[Kind]) -> str:
    """What inputs may hold, as a message names it."""
    return "; ".join(f"{kind.expected} ({kind.name})" for kind in kinds)
