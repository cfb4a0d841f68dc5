"""What an operator may set of the API; checked whole before anything is served."""

from __future__ import annotations

import re
from typing import Self

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from ray_jobs.errors import UsageError
from ray_jobs.index.filters import parse
from ray_jobs.index.merge import By
from ray_jobs.index.search import Mode
from serve.api.one_line import on_one_line

_SHA256 = re.compile(r"[0-9a-f]{64}")


class TenantConfig(BaseModel):
    """Who may call, what they may see and how often they may come."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    keys: tuple[str, ...] = Field(min_length=1, description="SHA-256 of each of its keys, in hex; see keys.new_key")
    indexes: tuple[str, ...] | None = Field(None, description="indices it may see; None: all")
    where: str | None = Field(None, description="filter that each of its searches must pass as well")
    requests_per_minute: float | None = Field(None, gt=0, description="in the long run; None: no limit")
    burst: int = Field(60, ge=1, description="requests that may come at once, after a time without any")

    @field_validator("keys")
    @classmethod
    def _hashes(cls, keys: tuple[str, ...]) -> tuple[str, ...]:
        for position, key in enumerate(keys):
            if not _SHA256.fullmatch(key):
                # Not shown: it may be a key that somebody forgot to hash.
                raise ValueError(f"keys[{position}]: expected the SHA-256 of a key, 64 digits 0-9a-f")
        return keys

    @field_validator("where")
    @classmethod
    def _parses(cls, where: str | None) -> str | None:
        try:
            return where if where is None else str(parse(where))
        except UsageError as error:
            raise ValueError(on_one_line(str(error))) from None


class RetrievalConfig(BaseModel):
    """What is retrieved for a request that does not say otherwise."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    k: int = Field(10, ge=1, le=10_000)
    by: By = "document"
    mode: Mode = "hybrid"
    rerank: bool = Field(False, description="rerank where a reranker is deployed")


class RerankConfig(BaseModel):
    """How hits are reranked."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    depth: int = Field(
        50, ge=1, le=1_000, description="hits that are scored; k is at most that where hits are reranked"
    )
    timeout_s: float = Field(3.0, gt=0, description="after which hits keep the order of retrieval")
    weight: float | None = Field(
        None,
        gt=0,
        le=1,
        description="the reranker's share in the order, retrieval has the rest; None: 1, or what suits Tandem's own",
    )


class ApiConfig(BaseModel):
    """The API of one server."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    tenants: dict[str, TenantConfig] = {}
    open: bool = Field(False, description="everybody may call, without a key, and see everything")
    max_body_bytes: int = Field(1 << 20, ge=1_000, description="bytes of a request's body")
    max_question_chars: int = Field(8_000, ge=1, description="code points of a query or of one turn of a conversation")
    max_hits: int = Field(1_000, ge=1, le=10_000, description="hits of one search")
    max_documents: int = Field(1_000, ge=1, description="documents of one rerank call")
    max_inputs: int = Field(2_048, ge=1, description="texts of one embeddings call")
    texts_per_request: int = Field(32, ge=1, description="texts to embed or rerank that count as one request")
    deadline_s: float = Field(30.0, gt=0, description="time of a request; a caller may ask for less")
    requests: int = Field(128, ge=1, description="requests under way at once in one gateway; one more is refused")
    generations: int = Field(16, ge=1, description="answers in the making at once; one more is refused")
    min_coverage: float = Field(0.0, ge=0, le=1, description="share of the documents that must have been searched")
    chat: RetrievalConfig = RetrievalConfig(k=8, by="chunk")
    search: RetrievalConfig = RetrievalConfig()
    rerank: RerankConfig = RerankConfig()
    description_s: float = Field(2.0, ge=0, description="age at which names of indices and models are asked for anew")

    @model_validator(mode="after")
    def _keys_are_needed_or_not(self) -> Self:
        if self.open and self.tenants:
            raise ValueError(f"open=true with tenants {', '.join(self.tenants)}: expected one or the other")
        return self

    @model_validator(mode="after")
    def _a_key_is_one_tenants(self) -> Self:
        owners: dict[str, str] = {}
        for name, tenant in self.tenants.items():
            for key in tenant.keys:
                if owners.setdefault(key, name) != name:
                    raise ValueError(f"tenants {owners[key]} and {name} share a key: give each its own")
        return self

    @model_validator(mode="after")
    def _reranked_hits_fit(self) -> Self:
        for route in ("chat", "search"):
            retrieval: RetrievalConfig = getattr(self, route)
            if retrieval.k > self.max_hits:
                raise ValueError(f"{route}.k={retrieval.k}: expected at most max_hits={self.max_hits}")
            if retrieval.rerank and retrieval.k > self.rerank.depth:
                raise ValueError(f"{route}.k={retrieval.k}: expected at most rerank.depth={self.rerank.depth}")
        return self
