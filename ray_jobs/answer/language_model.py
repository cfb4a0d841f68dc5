"""What a language model must be able to do to write answers, wherever it runs.

Guaranteed by every model: `write` may be called from many threads; cancelling a Writing ends it before its next piece
and frees what it holds. Not guaranteed: that texts are written side by side; those beyond a model's bound wait.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Literal, Protocol

from ray_jobs.answer.engine import Message, Sampling
from ray_jobs.answer.prompt import Reading
from ray_jobs.answer.protocol import Usage

FinishReason = Literal["stop", "length"]


class Writing(Protocol):
    """A text while it is written."""

    def __iter__(self) -> Iterator[str]:
        """Its pieces as they come. Raises ModelError when the model fails."""
        ...

    def cancel(self) -> None:
        """Write no more; may come from another thread, and again."""
        ...

    @property
    def finish_reason(self) -> FinishReason:
        """Why it ended, once it has."""
        ...

    @property
    def usage(self) -> Usage | None:
        """The tokens it took so far; None where nobody counts them."""
        ...


class LanguageModel(Protocol):
    """A model that answers conversations."""

    @property
    def models(self) -> tuple[str, ...]:
        """Names that `write` takes, the default first."""
        ...

    @property
    def reading(self) -> Reading:
        """How it reads a conversation."""
        ...

    @property
    def context_tokens(self) -> int:
        """Tokens of prompt and answer together."""
        ...

    def answer_tokens(self, wanted: int | None) -> int:
        """Tokens that an answer may have when `wanted` are asked for; None asks for the model's own limit."""
        ...

    def write(self, messages: Sequence[Message], sampling: Sampling, model: str) -> Writing:
        """Begin to answer; stop strings are none of its concern. `model` is one of `models`."""
        ...
