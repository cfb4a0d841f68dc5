"""What answers many questions at once: a loaded engine, from which each request takes a generator of its own.

Guaranteed by every engine: `generator` may be called from many threads, and the generators it gives run side by side;
a model that it does not have is a NotFoundError that lists those it has. Not guaranteed: that a generator is fast to
make and costs nothing; it is made for one request and thrown away.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal, Protocol

from ray_jobs.answer.protocol import Generator
from ray_jobs.index.lexical import LexicalStatistics

Role = Literal["system", "user", "assistant"]


@dataclass(frozen=True)
class Message:
    """One turn of a conversation."""

    role: Role
    content: str


@dataclass(frozen=True)
class Sampling:
    """How a language model chooses tokens; the names and meanings are OpenAI's. A quoting engine uses none of it."""

    max_tokens: int | None = None  # None: the engine's own limit
    temperature: float = 0.0  # 0: the most likely token always
    top_p: float = 1.0
    stop: tuple[str, ...] = ()
    seed: int | None = None


@dataclass(frozen=True)
class Request:
    """What a generator is made for; question and passages come with `Generator.stream`."""

    model: str  # "base" or "base:adapter"
    messages: tuple[Message, ...]  # the conversation, the question included as its last turn
    sampling: Sampling = field(default_factory=Sampling)
    closed_book: bool = False  # answer without any passage
    statistics: LexicalStatistics = field(default_factory=LexicalStatistics)  # of the question's terms, whole index
    language: str = "english"  # of the index


class Engine(Protocol):
    """A loaded model, or a connection to one."""

    @property
    def models(self) -> tuple[str, ...]:
        """Names that `Request.model` may have, the default first."""
        ...

    @property
    def needs_passages(self) -> bool:
        """Whether a request with `closed_book` is refused (UsageError), since there is nothing to quote."""
        ...

    def generator(self, request: Request) -> Generator:
        """A generator for one request. Raises NotFoundError for a model it does not have."""
        ...

    def condense(self, messages: Sequence[Message], model: str) -> str:
        """The last question of a conversation, made such that it can be understood without the turns before it."""
        ...
