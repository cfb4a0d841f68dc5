"""A running answer as OpenAI's chat completion, whole or in chunks."""

from __future__ import annotations

import time
from collections.abc import AsyncGenerator
from dataclasses import dataclass, field
from typing import Any
from uuid import uuid4

from ray_jobs.answer.protocol import Answer, Citation, Cited, Passage, TextDelta
from serve.api.deadline import Deadline
from serve.api.running_answer import RunningAnswer
from serve.api.shapes.chat_reply import (
    AnswerMessage,
    ChatChunk,
    ChatCompletion,
    Choice,
    ChunkChoice,
    CitationReply,
    Delta,
    SnapshotReply,
    SourceReply,
    Usage,
)
from serve.api.shapes.shared import CoverageReply, milliseconds


@dataclass(frozen=True)
class Completion:
    """The completion that a running answer becomes."""

    running: RunningAnswer
    deadline: Deadline
    id: str = field(default_factory=lambda: f"chatcmpl-{uuid4().hex}")
    created: int = field(default_factory=lambda: int(time.time()))

    async def whole(self) -> ChatCompletion:
        """All of it at once."""
        answer = await self.running.whole()
        return ChatCompletion(
            id=self.id,
            created=self.created,
            model=self._model,
            choices=[Choice(message=AnswerMessage(content=answer.text), finish_reason=answer.finish_reason)],
            usage=_usage(answer),
            sources=self._sources(),
            **self._result(answer),
        )

    async def chunks(self, include_usage: bool) -> AsyncGenerator[ChatChunk, None]:
        """A chunk for each event: the sources first, the result last."""
        yield self._chunk(Delta(role="assistant", content=""), sources=self._sources())
        async for event in self.running.events():
            if isinstance(event, TextDelta):
                yield self._chunk(Delta(content=event.text))
            elif isinstance(event, Cited):
                yield self._chunk(Delta(), citation=self._citation(event.citation))
            else:
                answer = event.answer
                yield self._chunk(Delta(), answer.finish_reason, **self._result(answer))
                if include_usage:
                    yield self._chunk(None, usage=_usage(answer))

    @property
    def _model(self) -> str:
        return self.running.call.request.model

    def _chunk(self, delta: Delta | None, finish_reason: Any = None, **beside: Any) -> ChatChunk:
        choices = []
        if delta is not None:
            choices = [ChunkChoice(index=0, delta=delta, logprobs=None, finish_reason=finish_reason)]
        return ChatChunk(
            id=self.id,
            object="chat.completion.chunk",
            created=self.created,
            model=self._model,
            choices=choices,
            **beside,
        )

    def _sources(self) -> list[SourceReply]:
        hits = () if self.running.found is None else self.running.found.hits
        return [
            SourceReply(
                number=passage.number,
                doc_id=passage.doc_id,
                chunk_id=passage.chunk_id,
                title=passage.title,
                heading=passage.heading,
                page=passage.page,
                source=passage.source,
                start=passage.start,
                end=passage.end,
                text=passage.text,
                score=passage.score,
                scores=dict(hit.scores),
            )
            for passage, hit in zip(self.running.call.passages, hits, strict=True)
        ]

    def _result(self, answer: Answer) -> dict[str, Any]:
        """What is known once the answer is whole."""
        found = self.running.found
        return {
            "citations": [self._citation(citation) for citation in answer.citations],
            "coverage": None if found is None else CoverageReply.of(found.reply.coverage),
            "grounded": answer.grounded,
            "snapshot": None if found is None else SnapshotReply(index=found.reply.index, number=found.reply.snapshot),
            "timings": milliseconds({**self.running.timings, "total": self.deadline.elapsed()}),
            "degraded": [] if found is None else list(found.degraded),
        }

    def _citation(self, citation: Citation) -> CitationReply:
        return CitationReply(
            number=citation.number,
            doc_id=citation.doc_id,
            chunk_id=citation.chunk_id,
            source=citation.source,
            title=self._passage(citation.number).title,
            heading=citation.heading,
            page=citation.page,
            start=citation.start,
            end=citation.end,
            quote=citation.quote,
        )

    def _passage(self, number: int) -> Passage:
        return next(passage for passage in self.running.call.passages if passage.number == number)


def _usage(answer: Answer) -> Usage:
    """The tokens of the language model; where there is none, there are none."""
    if answer.usage is None:
        return Usage(prompt_tokens=0, completion_tokens=0, total_tokens=0)
    prompt, completion = answer.usage.prompt_tokens, answer.usage.completion_tokens
    return Usage(prompt_tokens=prompt, completion_tokens=completion, total_tokens=prompt + completion)
