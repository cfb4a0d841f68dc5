"""What an answer is, and what every generator of answers promises.

A generator is given a question and numbered passages, and streams events: pieces of text and citations as they come,
then one Final with the whole answer. The extractive reader, trained readers and language models all stand behind it.

Guaranteed by every generator: the text of the pieces joined is the text of the final answer; every citation comes
before the Final, once, and points into a passage that was given. Not guaranteed: that a generator which writes in its
own words is right; ``grounding`` checks what can be checked.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal, Protocol


@dataclass(frozen=True)
class Passage:
    """A retrieved chunk, numbered from 1 for this question; ``[number]`` in an answer refers to it.

    ``text`` is exactly ``document text[start:end]``, in code points. ``page`` is the one on which it starts,
    from 1; None without pages.
    """

    number: int
    doc_id: str
    chunk_id: str
    title: str
    heading: str
    page: int | None
    source: str
    start: int
    end: int
    text: str
    score: float
    page_breaks: tuple[int, ...] = ()  # where further pages start inside it, code points of the document

    def page_at(self, position: int) -> int | None:
        """The page on which the code point ``position`` of the document stands; None without pages."""
        return None if self.page is None else self.page + sum(start <= position for start in self.page_breaks)


@dataclass(frozen=True)
class Citation:
    """Where a part of an answer stands: ``quote`` is exactly ``document text[start:end]``, in code points."""

    number: int
    doc_id: str
    chunk_id: str
    source: str
    start: int
    end: int
    page: int | None
    heading: str
    quote: str

    @classmethod
    def of(cls, passage: Passage, start: int, end: int) -> Citation:
        """Cite ``passage.text[start:end]``."""
        return cls(
            number=passage.number,
            doc_id=passage.doc_id,
            chunk_id=passage.chunk_id,
            source=passage.source,
            start=passage.start + start,
            end=passage.start + end,
            page=passage.page_at(passage.start + start),
            heading=passage.heading,
            quote=passage.text[start:end],
        )


@dataclass(frozen=True)
class Usage:
    """Tokens of a language model that an answer took."""

    prompt_tokens: int
    completion_tokens: int


@dataclass(frozen=True)
class Answer:
    """A whole answer; ``grounded`` is false when it abstains or when what it says cannot be traced to its citations.

    ``timings`` maps stages of the generator to seconds; ``finish_reason`` is "length" when the answer was cut off at
    its limit of tokens; ``usage`` is None where no language model wrote it.
    """

    text: str
    citations: tuple[Citation, ...]
    grounded: bool
    timings: Mapping[str, float] = field(default_factory=dict)
    finish_reason: Literal["stop", "length"] = "stop"
    usage: Usage | None = None


@dataclass(frozen=True)
class TextDelta:
    """The next piece of the answer's text."""

    text: str


@dataclass(frozen=True)
class Cited:
    """A citation whose marker has just been streamed."""

    citation: Citation


@dataclass(frozen=True)
class Final:
    """The end of the stream."""

    answer: Answer


AnswerEvent = TextDelta | Cited | Final


class Generator(Protocol):
    """Answers questions from passages. One stream at a time; ``cancel`` may come from another thread."""

    def stream(self, question: str, passages: Sequence[Passage]) -> Iterator[AnswerEvent]:
        """Answer ``question`` from ``passages``; the last event is Final unless the stream was cancelled."""
        ...

    def cancel(self) -> None:
        """End the running stream, without a Final, before its next event; nothing happens when none runs."""
        ...


def complete(generator: Generator, question: str, passages: Sequence[Passage]) -> Answer | None:
    """The final answer of ``generator``, for callers that do not stream; None if it was cancelled."""
    for event in generator.stream(question, passages):
        if isinstance(event, Final):
            return event.answer
    return None
