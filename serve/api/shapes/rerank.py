"""Reranking, in Cohere's shape."""

from __future__ import annotations

from typing import Annotated

from pydantic import BaseModel, Field

from serve.api.shapes.json_types import OBJECT, TEXT, NotBlank, Strict, one_of
from serve.api.shapes.shared import Timings


class RerankDocument(Strict):
    """A document to score."""

    text: str


class RerankRequest(Strict):
    """A query and the documents to order by it."""

    query: NotBlank
    documents: list[
        Annotated[
            Annotated[str, TEXT] | Annotated[RerankDocument, OBJECT], one_of("a text, or an object with the field text")
        ]
    ] = Field(min_length=1)
    model: str | None = Field(None, max_length=255, description="name of the reranker, see /v1/models")
    top_n: int | None = Field(None, ge=1, description="how many results; null: all")
    return_documents: bool | None = None

    @property
    def texts(self) -> tuple[str, ...]:
        """The documents' texts, whichever way they were written."""
        return tuple(given if isinstance(given, str) else given.text for given in self.documents)


class RerankedDocument(BaseModel):
    """The document of a result."""

    text: str


class RerankResult(BaseModel):
    """One document; `index` is its place in the request, from 0."""

    index: int
    relevance_score: float
    document: RerankedDocument | None = None


class RerankTokens(BaseModel):
    """What the reranker has read."""

    input_tokens: int


class RerankMeta(BaseModel):
    """What the call took."""

    tokens: RerankTokens


class RerankResults(BaseModel):
    """Results, best first."""

    id: str
    model: str
    results: list[RerankResult]
    meta: RerankMeta
    timings: Timings = Field(description="milliseconds a stage")
