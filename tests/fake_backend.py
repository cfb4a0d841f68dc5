"""A backend without models, whose every move a test can script, and which remembers what it was asked."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass, field

import numpy as np

from ray_jobs.answer.protocol import Answer, AnswerEvent, Citation, Cited, Final, Passage, TextDelta, Usage
from ray_jobs.index.hits import Hit
from ray_jobs.index.lexical import LexicalStatistics
from serve.messages import (
    CondenseCall,
    Coverage,
    DeploymentDescription,
    Description,
    EmbedCall,
    EmbedReply,
    GenerateCall,
    IndexDescription,
    RerankCall,
    RerankReply,
    SearchCall,
    SearchReply,
)

TEXTS = (
    "The manifest is written last. Without it a snapshot does not exist.",
    "A shard is a part of an index. <script>alert('é 字')</script>",
    "The quantiser is trained on a sample of the vectors.",
)
WHOLE = Coverage(partitions_total=4, partitions_ok=4, documents=1.0)
PARTIAL = Coverage(partitions_total=4, partitions_ok=3, documents=0.75, missing=(2,))

Step = AnswerEvent | float | Exception
"""What a scripted generation does next: an event, a pause in seconds, or a failure."""


def make_hits(count: int) -> tuple[Hit, ...]:
    """As many hits, best first, of the three texts."""
    return tuple(
        Hit(
            doc_id=f"d{number}",
            chunk_id=f"d{number}#0",
            score=1.0 / (number + 1),
            rank=number + 1,
            text=TEXTS[number % len(TEXTS)],
            source=f"file-{number}.md",
            start=100 * number,
            end=100 * number + len(TEXTS[number % len(TEXTS)]),
            title=f"Title {number}",
            heading="Heading",
            page=None,
            page_breaks=(),
            metadata={"lang": "en", "year": 2020 + number},
            scores={"dense": 0.5, "lexical": 2.0},
        )
        for number in range(count)
    )


def quote(call: GenerateCall) -> Sequence[Step]:
    """Quotes the first sentence of the first passage, or abstains."""
    if not call.passages:
        return [TextDelta("I do not know."), Final(Answer("I do not know.", (), grounded=False))]
    passage = call.passages[0]
    citation = cite(passage, passage.text.index(".") + 1)
    pieces = [*citation.quote.split(" "), f"[{passage.number}]"]
    spaced = [piece if position == 0 else f" {piece}" for position, piece in enumerate(pieces)]
    usage = Usage(prompt_tokens=90, completion_tokens=7)
    answer = Answer("".join(spaced), (citation,), grounded=True, timings={"judge": 0.001}, usage=usage)
    return [*map(TextDelta, spaced), Cited(citation), Final(answer)]


def cite(passage: Passage, end: int) -> Citation:
    """A citation of the beginning of a passage."""
    return Citation.of(passage, 0, end)


def describe_index(name: str, coverage: Coverage = WHOLE, snapshot: int | None = 7) -> IndexDescription:
    """An index of 1,000 documents."""
    return IndexDescription(name, snapshot, None, 1_000, 5_000, "fake-embedder", {"lang": "string"}, coverage)


@dataclass
class FakeBackend:
    """Does what its fields say; a delay or an error comes before the reply that it belongs to."""

    indexes: tuple[IndexDescription, ...] = (describe_index("docs"), describe_index("other"))
    generators: tuple[str, ...] = ("base", "base:polite")
    needs_passages: bool = False
    reranker: str | None = "fake-reranker"
    coverage: Coverage = WHOLE
    delays: dict[str, float] = field(default_factory=dict)
    errors: dict[str, Exception] = field(default_factory=dict)
    script: Callable[[GenerateCall], Sequence[Step]] = quote
    rerank_scores: Callable[[RerankCall], Sequence[float]] = lambda call: [len(text) / 10 for text in call.texts]
    dimension: int = 4

    searches: list[SearchCall] = field(default_factory=list)
    reranks: list[RerankCall] = field(default_factory=list)
    embeds: list[EmbedCall] = field(default_factory=list)
    condenses: list[CondenseCall] = field(default_factory=list)
    generations: list[GenerateCall] = field(default_factory=list)
    cancelled: list[str] = field(default_factory=list)  # methods whose caller stopped waiting
    produced: int = 0  # events that a generation has given
    closed: int = 0  # generations that are over, one way or another

    def reset(self) -> None:
        """Be as new."""
        vars(self).update(vars(FakeBackend()))

    async def search(self, call: SearchCall) -> SearchReply:
        self.searches.append(call)
        await self._happen("search")
        statistics = LexicalStatistics(1_000, 9_000, {"manifest": 3})
        hits = make_hits(min(call.config.k, 12))
        return SearchReply(call.index, 7, hits, self.coverage, statistics, "english", {"embed": 0.002, "rows": 0.001})

    async def rerank(self, call: RerankCall) -> RerankReply:
        self.reranks.append(call)
        await self._happen("rerank")
        return RerankReply("fake-reranker", tuple(self.rerank_scores(call)), tokens=9 * len(call.texts))

    async def embed(self, call: EmbedCall) -> EmbedReply:
        self.embeds.append(call)
        await self._happen("embed")
        rows = [[len(text) + place / 8 for place in range(self.dimension)] for text in call.texts]
        return EmbedReply("fake-embedder", np.array(rows, np.float32), tokens=3 * len(call.texts))

    async def condense(self, call: CondenseCall) -> str:
        self.condenses.append(call)
        await self._happen("condense")
        return " / ".join(message.content for message in call.messages if message.role == "user")

    async def generate(self, call: GenerateCall) -> AsyncIterator[AnswerEvent]:
        self.generations.append(call)
        try:
            await self._happen("generate")
            for step in self.script(call):
                if isinstance(step, Exception):
                    raise step
                if isinstance(step, float):
                    await asyncio.sleep(step)
                    continue
                self.produced += 1
                yield step
        finally:
            self.closed += 1

    async def describe(self) -> Description:
        await self._happen("describe")
        deployments = (DeploymentDescription("Retriever", "HEALTHY", 1, 1),)
        return Description(
            self.indexes, self.generators, self.needs_passages, "fake-embedder", self.reranker, deployments
        )

    async def _happen(self, method: str) -> None:
        try:
            await asyncio.sleep(self.delays.get(method, 0))
        except asyncio.CancelledError:
            self.cancelled.append(method)
            raise
        if method in self.errors:
            raise self.errors[method]
