"""`tandem search QUERY --index NAME`: one query here, or many as a job."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Self

from pydantic import Field, model_validator
from pydantic_settings import CliPositionalArg

from cluster.paths import anchored
from cluster.reranking import RerankingSettings
from cluster.settings import Command, show
from ray_jobs.index.hits import Hit
from ray_jobs.index.search import SearchConfig
from ray_jobs.models.setting import EmbedderSetting
from ray_jobs.storage import DEFAULT_STORE


class SearchCommand(RerankingSettings, SearchConfig, Command):
    """Search an index: one query, or a file of queries as a job."""

    query: CliPositionalArg[str | None] = Field(None, description="what to look for")
    index: str = Field(description="name of the index")
    store: str = Field(DEFAULT_STORE, description="path or URI of the store")
    snapshot: int | None = Field(None, ge=1, description="number of the snapshot; None: the live one")
    k: int = Field(10, ge=1, le=10_000, description="results a query")
    queries: Path | None = Field(None, description='JSON Lines of {"id", "text"}: search them all as a job')
    output: Path | None = Field(None, description="where the job writes its hits; Parquet by suffix, else JSON Lines")
    embedder: EmbedderSetting | None = Field(None, description="how to embed queries; None: as the index was")

    @model_validator(mode="after")
    def _one_way(self) -> Self:
        if (self.query is None) == (self.queries is None):
            raise ValueError("expected either a QUERY or --queries FILE")
        if (self.queries is None) != (self.output is None):
            raise ValueError("--queries and --output go together")
        if self.queries is not None and (self.rerank or self.reranker is not None):
            asked = "rerank=true" if self.reranker is None else f"reranker={self.reranker!r}"
            raise ValueError(f"{asked} with --queries: a job does not rerank; expected one QUERY")
        return self

    def search_config(self) -> SearchConfig:
        """The part that says how to search."""
        return SearchConfig.model_validate(self.model_dump(include=set(SearchConfig.model_fields)))


def run(command: SearchCommand) -> None:
    """Search and print the hits, or run the job and print what it did."""
    if command.queries is not None and command.output is not None:
        _run_job(command, command.queries, command.output)
        return
    from ray_jobs.index.snapshot import Snapshot
    from ray_jobs.models.for_queries import load_for_queries
    from ray_jobs.storage import open_storage

    assert command.query is not None, "the model requires a query or a file of queries"
    storage = open_storage(command.store)
    snapshot = Snapshot.open(storage, command.index, command.snapshot)
    config = command.search_config()
    embedder = None
    if config.mode != "lexical":
        embedder = load_for_queries(command.embedder, snapshot.manifest.embedder, storage)
    reranking = command.load_reranking(storage, snapshot.manifest)
    (hits,) = snapshot.search([command.query], config if reranking is None else reranking.wider(config), embedder)
    if reranking is not None:
        hits = reranking.apply(command.query, hits, config)
    if command.json_output:
        show(json.dumps({"hits": [hit.to_dict() for hit in hits]}, ensure_ascii=False, indent=1, default=str))
    else:
        show("\n".join(line for hit in hits for line in _lines(hit)) or "no document matches")


def _run_job(command: SearchCommand, queries: Path, output: Path) -> None:
    from ray_jobs import progress
    from ray_jobs.search import job
    from ray_jobs.search.config import SearchJobConfig

    config = SearchJobConfig(
        index=command.index,
        store=command.store,
        snapshot=command.snapshot,
        queries=queries,
        output=output,
        search=command.search_config(),
        embedder=command.embedder and anchored(command.embedder),
    )
    summary = job.run(config, progress.for_terminal())
    show(summary.model_dump_json(indent=1) if command.json_output else "\n".join(summary.lines()))


def _lines(hit: Hit) -> list[str]:
    place = hit.heading or hit.title
    page = f", p. {hit.page}" if hit.page is not None else ""
    stages = ", ".join(f"{name} {score:.3f}" for name, score in hit.scores.items())
    text = " ".join(hit.text.split())
    return [
        f"{hit.rank:>3}  {hit.score:.4f}  {hit.doc_id}  [{hit.start}:{hit.end}{page}]  ({stages})",
        *([f"     {place}"] if place else []),
        f"     {text[:200]}{'…' if len(text) > 200 else ''}",
    ]
