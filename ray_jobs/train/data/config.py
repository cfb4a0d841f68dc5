"""What a user may set of data preparation; checked whole before any work."""

from __future__ import annotations

import hashlib
import json
from typing import Literal, Self

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from ray_jobs.index.layout import check_name
from ray_jobs.storage import DEFAULT_STORE

KindName = Literal["auto", "messages", "completion", "preference", "label", "retrieval", "qa"]


class SplitConfig(BaseModel):
    """How rows are divided."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    train: float = Field(0.9, gt=0, le=1, description="share of the groups to train on")
    validation: float = Field(0.05, ge=0, lt=1, description="share of the groups to choose by while training")
    test: float = Field(0.05, ge=0, lt=1, description="share of the groups to report on")
    seed: int = Field(0, ge=0, description="another seed divides the groups another way")
    by: Literal["source", "query"] = Field(
        "source", description="what stays together: rows of one source, or (retrieval data) of one query"
    )

    @model_validator(mode="after")
    def _whole(self) -> Self:
        total = self.train + self.validation + self.test
        if abs(total - 1) > 1e-6:
            raise ValueError(f"train + validation + test = {total:g}: expected shares that sum to 1")
        return self

    @property
    def shares(self) -> dict[str, float]:
        """The wished share of each split."""
        return {"train": self.train, "validation": self.validation, "test": self.test}


class PrepareConfig(BaseModel):
    """One preparation of a data set."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    inputs: tuple[str, ...] = Field((), description="JSON Lines or Parquet: files, folders, globs or URIs")
    name: str = Field(description="name of the prepared data set")
    store: str = Field(DEFAULT_STORE, description="path or URI of the store")
    kind: KindName = Field("auto", description="kind of the rows; auto: by their columns")
    columns: dict[str, str] = Field({}, description="expected column: column of the input that holds it")
    source_column: str | None = Field(
        None, description="column whose rows stay together; 'row': nothing but rows that ask the same; None: by kind"
    )
    split: SplitConfig = SplitConfig()
    near_duplicates: bool = Field(
        True,
        description="also remove rows that are nearly the same as an earlier one; off where one word changes the "
        "meaning, as in claims",
    )
    near_threshold: float = Field(0.8, ge=0.5, le=0.95, description="Jaccard similarity from which texts are near")
    evaluation_sets: dict[str, str] = Field({}, description="name: file that no training row may be found in")
    keep_leaks: bool = Field(False, description="report leaks and keep the rows")
    tokenizer: str | None = Field(None, description="model whose tokens are counted; None: words")
    max_length: int | None = Field(None, ge=1, description="length that the card judges the rows by")
    max_rejected: float = Field(0.01, ge=0, le=1, description="share of wrong rows from which nothing is prepared")
    block_bytes: int = Field(8 << 20, ge=1 << 10, description="bytes of input that one task reads at most")

    @field_validator("name")
    @classmethod
    def _name(cls, value: str) -> str:
        return check_name(value, "name")

    @model_validator(mode="after")
    def _possible(self) -> Self:
        if not self.inputs:
            raise ValueError("inputs is empty: expected at least one JSON Lines or Parquet file")
        if self.split.by == "query" and self.kind not in ("auto", "retrieval"):
            raise ValueError(f"split.by=query with kind={self.kind}: only retrieval data can be split by query")
        if self.split.by == "query" and self.source_column is not None:
            raise ValueError("split.by=query with source_column: name the query in a column query_id instead")
        taken = [name for name in self.evaluation_sets if name in self.split.shares]
        if taken:
            raise ValueError(f"evaluation_sets.{taken[0]}: a split has this name; choose another")
        return self

    def splits_documents(self, kind: str) -> bool:
        """Whether rows of this kind are split by the documents that they are about, no other source being named."""
        return kind == "retrieval" and self.split.by == "source" and self.source_column is None

    def deciding(self) -> dict[str, object]:
        """Everything of the configuration that decides what the prepared data hold."""
        apart = {"inputs", "name", "store", "max_rejected", "block_bytes", "evaluation_sets"}
        return self.model_dump(mode="json", exclude=apart)

    def content_hash(
        self, kind: str, files: dict[str, list[tuple[str, str]]], tokenizer: str | None, *, lists: bool = False
    ) -> str:
        """A hash of configuration and inputs: the same hash is not prepared again.

        `files` are (name, sha256) of the inputs and of each evaluation set, `tokenizer` is the revision of its model,
        `lists` tells whether rows have lists of positives, or answers that are lists of messages.
        """
        deciding = [PREPARATION, self.deciding(), kind, sorted(files.items()), tokenizer, *self._changed(kind, lists)]
        return hashlib.sha256(json.dumps(deciding, sort_keys=True).encode()).hexdigest()[:32]

    def _changed(self, kind: str, lists: bool) -> list[str]:
        """What has been prepared otherwise since PREPARATION was raised, where it concerns this preparation."""
        by_document = self.splits_documents(kind)
        changes = {
            "near duplicates have one label": kind == "label" and self.near_duplicates,
            "positives of a row stay together": by_document and lists,
            "splits share no document": by_document and not self.keep_leaks,
            "preferences keep their conversations": kind == "preference" and lists,
        }
        return [change for change, concerned in changes.items() if concerned]


PREPARATION = 2  # raised when this program would prepare the same inputs to something else
