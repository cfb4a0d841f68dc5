"""`tandem ask QUESTION --index NAME`: a cited answer, without a server."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from pydantic import Field
from pydantic_settings import CliDualFlag, CliPositionalArg

from cluster.reranking import RerankingSettings
from cluster.settings import Command, show
from ray_jobs.answer.extractive import ReaderConfig
from ray_jobs.answer.protocol import Citation
from ray_jobs.answer.reader_setting import ReaderSetting
from ray_jobs.index.merge import By
from ray_jobs.index.search import SearchConfig
from ray_jobs.models.reader_config import ReaderConfig as SpanReaderConfig
from ray_jobs.models.reader_config import ReaderOptions
from ray_jobs.models.setting import EmbedderSetting
from ray_jobs.storage import DEFAULT_STORE

if TYPE_CHECKING:
    from ray_jobs.answer.asking import AskEmbedder
    from ray_jobs.answer.protocol import Generator
    from ray_jobs.index.snapshot import Snapshot
    from ray_jobs.storage import Storage


class AskCommand(RerankingSettings, SearchConfig, Command):
    """Answer a question from an index, with numbered citations, or say that the corpus does not answer it."""

    question: CliPositionalArg[str] = Field(description="what to ask")
    index: str = Field(description="name of the index")
    store: str = Field(DEFAULT_STORE, description="path or URI of the store")
    snapshot: int | None = Field(None, ge=1, description="number of the snapshot; None: the live one")
    k: int = Field(8, ge=1, le=100, description="passages to answer from")
    by: By = Field("chunk", description="what k counts")
    rerank: CliDualFlag[bool] = Field(
        True, description="rerank what was found: by --reranker, else by the reranker that Tandem carries"
    )
    reader: ReaderSetting | None = Field(
        None,
        description="--reader NAME: answer by this model: name or path of a reader, or of an adapter of one; "
        "--reader quotes, or a key of its: quote sentences without a model; None: by the reader that Tandem carries",
    )
    reader_options: ReaderOptions = Field(ReaderOptions(), description="how the reader of that name runs")
    embedder: EmbedderSetting | None = Field(None, description="how to embed the question; None: as the index was")


def run(command: AskCommand) -> None:
    """Answer and print the answer with its citations."""
    from ray_jobs.answer.asking import ask
    from ray_jobs.index.snapshot import Snapshot
    from ray_jobs.models.for_queries import load_for_queries
    from ray_jobs.storage import open_storage

    storage = open_storage(command.store)
    snapshot = Snapshot.open(storage, command.index, command.snapshot)
    embedder = load_for_queries(command.embedder, snapshot.manifest.embedder, storage)
    search = SearchConfig.model_validate(command.model_dump(include=set(SearchConfig.model_fields)))
    reader = _reader(command, snapshot, embedder, storage)
    reranking = command.load_reranking(storage, snapshot.manifest)
    asked = ask(snapshot, command.question, search, embedder, reader, reranking=reranking)
    if command.json_output:
        show(json.dumps(asked.to_dict(), ensure_ascii=False, indent=1))
        return
    show(asked.answer.text)
    sources: dict[int, list[Citation]] = {}
    for citation in asked.answer.citations:
        sources.setdefault(citation.number, []).append(citation)
    if sources:
        show("")
    for number, citations in sources.items():
        show(f"[{number}] {_place(citations)}")
    steps = ", ".join(f"{name} {seconds * 1000:.0f} ms" for name, seconds in asked.timings.items())
    show(f"\n({asked.index} snapshot {asked.snapshot}; {steps})")


def _reader(command: AskCommand, snapshot: Snapshot, embedder: AskEmbedder, storage: Storage) -> Generator:
    """The reader that was named, Tandem's own, or the one that quotes without a model of its own."""
    from ray_jobs.answer.asking import extractive_reader
    from ray_jobs.answer.defaults import default_reader

    chosen = command.reader or default_reader([snapshot.manifest]) or ReaderConfig()
    if not isinstance(chosen, str):
        return extractive_reader(snapshot, embedder, chosen)
    from ray_jobs.answer.reading import AnswerReader
    from ray_jobs.models.reader import Reader

    config = SpanReaderConfig(model=chosen, **command.reader_options.model_dump())
    return AnswerReader(Reader.load(config, storage))


def _place(citations: list[Citation]) -> str:
    """Document, heading, page and spans of what one source was quoted for."""
    first = citations[0]
    spans = ", ".join(f"{citation.start}:{citation.end}" for citation in citations)
    parts = [first.doc_id, first.heading, f"p. {first.page}" if first.page is not None else "", f"characters {spans}"]
    return ", ".join(part for part in parts if part)
