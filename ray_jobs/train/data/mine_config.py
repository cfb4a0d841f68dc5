"""What a user may set of mining; checked whole before any work."""

from __future__ import annotations

import hashlib
import json
from typing import Literal, Self

from pydantic import Field, field_validator, model_validator

from ray_jobs.index.layout import check_name
from ray_jobs.index.search import SearchConfig
from ray_jobs.models.embedder_config import EmbedderConfig
from ray_jobs.models.reranker_config import RerankerOptions
from ray_jobs.storage import DEFAULT_STORE
from ray_jobs.train.data.mining import MiningRules


class MineConfig(MiningRules):
    """One run of mining."""

    data: str = Field(min_length=1, description="prepared rows with a query or a question: NAME or NAME@HASH")
    index: str = Field(description="index that is searched")
    name: str = Field(description="name of the data set that comes out")
    store: str = Field(DEFAULT_STORE, description="path or URI of the store")
    snapshot: int | None = Field(None, ge=1, description="number of the snapshot; None: the live one")
    output_kind: Literal["retrieval", "qa"] = Field(
        "retrieval", description="retrieval: queries with negatives; qa: questions, and passages without an answer"
    )
    texts: Literal["index", "data"] = Field(
        "index",
        description="index: positive and negatives as a reranker sees hits, title and headings first; data: the "
        "positive as it is, negatives without title",
    )
    search: SearchConfig = Field(SearchConfig(), description="how to search; how deep is said by range_max")
    embedder: EmbedderConfig | None = Field(None, description="how to embed queries; None: as the index was")
    reranker: str | None = Field(
        None, min_length=1, description="scores count by this model: name or path of a cross-encoder or its adapter"
    )
    reranker_options: RerankerOptions = Field(RerankerOptions(), description="how the reranker runs")
    block_queries: int = Field(256, ge=1, description="queries that are searched together")

    @field_validator("name")
    @classmethod
    def _name(cls, value: str) -> str:
        return check_name(value, "name")

    @model_validator(mode="after")
    def _one_depth(self) -> Self:
        for key in ("k", "by"):
            if key in self.search.model_fields_set:
                value = getattr(self.search, key)
                raise ValueError(
                    f"search.{key}={value}: mining looks at chunks, as many as range_max says; leave it out"
                )
        return self

    @model_validator(mode="after")
    def _another_name(self) -> Self:
        if self.name == self.data.partition("@")[0]:
            raise ValueError(
                f"name={self.name!r} is that of the data: the newest of a name counts; choose another name"
            )
        return self

    @property
    def shows_index(self) -> bool:
        """Whether positives, too, are shown as a reranker sees hits, not as the data have them."""
        return self.texts == "index" and self.output_kind == "retrieval"

    def deciding(self) -> dict[str, object]:
        """Everything of the configuration that decides what comes out."""
        apart = {"data": True, "name": True, "store": True, "snapshot": True, "embedder": True, "block_queries": True}
        return self.model_dump(mode="json", exclude=apart | {"reranker_options": {"threads", "batch_tokens", "device"}})

    def content_hash(self, data: str, snapshot: tuple[str, int, str], reranker: str | None) -> str:
        """A hash of configuration, data (its hash), snapshot (index, number, job) and reranker (its revision)."""
        # What is mined otherwise since MINING was raised.
        changed = [] if reranker is None else ["every positive has its own score"]
        deciding = [MINING, self.deciding(), data, snapshot, reranker, *changed]
        return hashlib.sha256(json.dumps(deciding, sort_keys=True).encode()).hexdigest()[:32]


MINING = 1  # raised when this program would mine something else from the same
