"""What travels between deployments: plain, frozen data, the same with Ray and without.

Guaranteed: a reply names the snapshot it was made from, and everything in it comes from that one. Times are seconds.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
import numpy.typing as npt

from ray_jobs.answer.engine import Message, Request
from ray_jobs.answer.protocol import Passage
from ray_jobs.corpus.metadata import Schema
from ray_jobs.index.hits import Hit
from ray_jobs.index.lexical import LexicalStatistics
from ray_jobs.index.search import SearchConfig


@dataclass(frozen=True)
class Coverage:
    """How much of a snapshot an answer was made from."""

    partitions_total: int
    partitions_ok: int
    documents: float  # share of the snapshot's documents that was searched, 0 to 1
    missing: tuple[int, ...] = ()  # numbers of the partitions that did not answer

    @property
    def degraded(self) -> bool:
        """Whether anything is missing."""
        return self.partitions_ok < self.partitions_total


@dataclass(frozen=True)
class SearchCall:
    """One query for the retriever."""

    index: str
    text: str
    config: SearchConfig
    budget_s: float  # what is left of the request's time
    for_reader: bool = False  # the reply shall have the statistics of the query's terms, whatever the mode


@dataclass(frozen=True)
class SearchReply:
    """Hits of one snapshot, best first."""

    index: str
    snapshot: int
    hits: tuple[Hit, ...]
    coverage: Coverage
    statistics: LexicalStatistics  # of the query's terms: for a reader, or where the search needed them
    language: str
    timings: Mapping[str, float] = field(default_factory=dict)  # seconds a stage


@dataclass(frozen=True)
class RerankCall:
    """Texts to score against a query."""

    query: str
    texts: tuple[str, ...]
    budget_s: float


@dataclass(frozen=True)
class RerankReply:
    """A score for each text, in the order given; higher is better."""

    model: str
    scores: tuple[float, ...]
    tokens: int


@dataclass(frozen=True)
class EmbedCall:
    """Texts to embed."""

    texts: tuple[str, ...]
    kind: Literal["query", "document"]
    budget_s: float


@dataclass(frozen=True)
class EmbedReply:
    """Vectors (n, d) float32 and how many tokens went in."""

    model: str
    vectors: npt.NDArray[np.float32]
    tokens: int


@dataclass(frozen=True)
class CondenseCall:
    """A conversation whose last question shall stand alone."""

    messages: tuple[Message, ...]
    model: str
    budget_s: float


@dataclass(frozen=True)
class GenerateCall:
    """A question with the passages to answer it from.

    Of a `whole` answer nobody sees a part before its end: its events come together, and another replica may begin anew.
    """

    request: Request
    question: str
    passages: tuple[Passage, ...]
    budget_s: float
    whole: bool = False


@dataclass(frozen=True)
class IndexDescription:
    """One index as it is served."""

    name: str
    snapshot: int | None  # the version that answers; None before any is loaded
    loading: int | None  # the version that will answer next
    documents: int
    chunks: int
    embedder: str
    metadata: Schema
    coverage: Coverage


@dataclass(frozen=True)
class RetrieverDescription:
    """What the retriever says of itself; the default index first."""

    indexes: tuple[IndexDescription, ...] = ()
    embedder: str = ""


@dataclass(frozen=True)
class GeneratorDescription:
    """What the generator says of itself; the default model first."""

    models: tuple[str, ...] = ()
    needs_passages: bool = True


@dataclass(frozen=True)
class DeploymentDescription:
    """One deployment as Ray Serve sees it."""

    name: str
    status: str
    replicas: int
    wanted: int


@dataclass(frozen=True)
class Description:
    """What is served now; the first index and the first generator are the defaults."""

    indexes: tuple[IndexDescription, ...]
    generators: tuple[str, ...]
    needs_passages: bool
    embedder: str
    reranker: str | None
    deployments: tuple[DeploymentDescription, ...] = ()
