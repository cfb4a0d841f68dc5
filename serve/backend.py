"""All that the API asks of the deployments behind it; one implementation calls Ray Serve, tests have their own.

Guaranteed by every implementation: a call ends within its `budget_s`, by a DeadlineError at the latest; a BusyError or
UnavailableError says that the work was not done. Closing the iterator of `generate` early stops the generation.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator
from typing import Protocol

from ray_jobs.answer.protocol import AnswerEvent
from serve.messages import (
    CondenseCall,
    Description,
    EmbedCall,
    EmbedReply,
    GenerateCall,
    RerankCall,
    RerankReply,
    SearchCall,
    SearchReply,
)


class Backend(Protocol):
    """Retriever, reranker and generator, wherever they run."""

    async def search(self, call: SearchCall) -> SearchReply:
        """The hits of one query. Partitions that do not answer are missing from its coverage."""
        ...

    async def rerank(self, call: RerankCall) -> RerankReply:
        """Scores of texts; raises NotFoundError when no reranker is deployed."""
        ...

    async def embed(self, call: EmbedCall) -> EmbedReply:
        """Vectors of texts."""
        ...

    async def condense(self, call: CondenseCall) -> str:
        """The last question of a conversation, understandable without the turns before it."""
        ...

    def generate(self, call: GenerateCall) -> AsyncGenerator[AnswerEvent, None]:
        """The events of an answer as they come; the last one is Final."""
        ...

    async def describe(self) -> Description:
        """What is served now; never fails, a deployment that does not answer is described as such."""
        ...
