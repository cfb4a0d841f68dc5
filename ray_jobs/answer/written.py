"""The engine of every language model: prompt, stop strings, citations and abstention around what the model writes.

Guaranteed: what ``cited`` guarantees of answers; no part of a stop string is in an answer; a question for which nothing
was found is answered by ABSTENTION without asking the model, unless the request is closed book. Cancelling ends the
model's work, not only the stream. Not guaranteed: that a model which was told to cite does so.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterable, Iterator, Sequence

from ray_jobs.answer.analyzers import Analyzers
from ray_jobs.answer.cited import CitedText
from ray_jobs.answer.condense import condense_by_model
from ray_jobs.answer.engine import Message, Request, Sampling
from ray_jobs.answer.fencing import neutralise
from ray_jobs.answer.language_model import FinishReason, LanguageModel, Writing
from ray_jobs.answer.prompt import assemble
from ray_jobs.answer.protocol import Answer, AnswerEvent, Final, Passage, TextDelta
from ray_jobs.answer.quoting import ABSTENTION
from ray_jobs.answer.stops import StopFilter
from ray_jobs.answer.support import Sources
from ray_jobs.errors import NotFoundError
from ray_jobs.index.analysis import Analyzer

_CONDENSED = Sampling(max_tokens=64)


class WritingEngine:
    """Answers that a language model writes."""

    needs_passages = False

    def __init__(self, model: LanguageModel, min_support: float) -> None:
        self.models = model.models
        self._model = model
        self._min_support = min_support
        self._analyzers = Analyzers()

    def generator(self, request: Request) -> WritingGenerator:
        """A generator for one request. Raises NotFoundError for a model or adapter that is not loaded."""
        self._check(request.model)
        return WritingGenerator(self._model, request, self._analyzers(request.language), self._min_support)

    def condense(self, messages: Sequence[Message], model: str) -> str:
        """The last question as the model rewrites it, or by rule where it writes nothing usable."""
        self._check(model)

        def write(prompt: Sequence[Message]) -> str:
            plain = [Message(turn.role, neutralise(turn.content, self._model.reading.reserved)) for turn in prompt]
            room = self._model.context_tokens - self._model.answer_tokens(_CONDENSED.max_tokens)
            if self._model.reading.count(plain) > room:
                return ""
            return "".join(self._model.write(plain, _CONDENSED, model))

        return condense_by_model(messages, self._analyzers("english"), write)

    def _check(self, model: str) -> None:
        if model not in self.models:
            raise NotFoundError(f"model={model}: not served here; expected one of {', '.join(self.models)}")


class WritingGenerator:
    """A Generator for one request to a language model."""

    def __init__(self, model: LanguageModel, request: Request, analyzer: Analyzer, min_support: float) -> None:
        self._model = model
        self._request = request
        self._analyzer = analyzer
        self._min_support = min_support
        self._cancelled = threading.Event()
        self._writing: Writing | None = None
        self._lock = threading.Lock()

    def cancel(self) -> None:
        """End the running stream before its next event, and the model's work for it."""
        with self._lock:
            self._cancelled.set()
            if self._writing is not None:
                self._writing.cancel()

    def stream(self, question: str, passages: Sequence[Passage]) -> Iterator[AnswerEvent]:
        """Pieces of the answer as the model writes it, a Cited behind each marker, then Final.

        Raises UsageError for a question that is too long, ModelError when the model fails.
        """
        self._cancelled.clear()
        for event in self._answer(question, () if self._request.closed_book else passages):
            if self._cancelled.is_set():
                return
            yield event

    def _answer(self, question: str, passages: Sequence[Passage]) -> Iterator[AnswerEvent]:
        started = time.perf_counter()
        if not self._request.closed_book and not any(passage.text.strip() for passage in passages):
            yield TextDelta(ABSTENTION)
            yield Final(Answer(ABSTENTION, (), grounded=False))
            return
        request, model = self._request, self._model
        budget = model.context_tokens - model.answer_tokens(request.sampling.max_tokens)
        prompt = assemble(question, passages, request.messages[:-1], budget, model.reading)
        cited = CitedText(question, Sources(prompt.passages, self._analyzer), self._min_support)
        stops = StopFilter(request.sampling.stop)
        timings = {"prompt": time.perf_counter() - started}
        writing = self._begin(prompt.messages)
        try:
            for piece in _from_first_word(writing):
                timings.setdefault("first_token", time.perf_counter() - started)
                yield from cited.feed(stops.feed(piece))
                if stops.stopped:
                    break
            yield from cited.feed(stops.finish())
            yield from cited.finish()
        finally:
            writing.cancel()
        timings["generate"] = time.perf_counter() - started
        outcome = cited.outcome
        reason: FinishReason = "stop" if stops.stopped else writing.finish_reason
        yield Final(Answer(outcome.text, outcome.citations, outcome.grounded, timings, reason, writing.usage))

    def _begin(self, messages: Sequence[Message]) -> Writing:
        writing = self._model.write(messages, self._request.sampling, self._request.model)
        with self._lock:
            self._writing = writing
            if self._cancelled.is_set():
                writing.cancel()
        return writing


def _from_first_word(pieces: Iterable[str]) -> Iterator[str]:
    """Pieces without the white space that models put before an answer."""
    begun = False
    for piece in pieces:
        text = piece if begun else piece.lstrip()
        begun = begun or bool(text)
        if begun:
            yield text
