from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import pytest

from ray_jobs.answer.engine import Message, Request
from ray_jobs.answer.engine_config import EngineConfig, load_engine
from ray_jobs.answer.evidence import ANY_MODEL, MINILM
from ray_jobs.answer.extractive import ReaderConfig
from ray_jobs.answer.extractive_engine import ExtractiveEngine
from ray_jobs.answer.grounding import problems, unquoted
from ray_jobs.answer.protocol import Answer, Passage, complete
from ray_jobs.answer.quoting import ABSTENTION
from ray_jobs.errors import NotFoundError, UsageError
from ray_jobs.index.lexical import LexicalStatistics
from ray_jobs.models.embedder import Embedder, EmbedderConfig

QUESTION = "Does a task reserve a CPU or a GPU?"
TEXT = "A task reserves one CPU by default. Actors keep their state between calls."
SOURCES = [Passage(1, "d", "d@0#0", "Tasks", "", None, "t.md", 0, len(TEXT), TEXT, 1.0)]
STATISTICS = LexicalStatistics(1000, 100_000, {"task": 9, "reserv": 5, "cpu": 3, "gpu": 990})
FAKE = EngineConfig(embedder=EmbedderConfig(engine="fake"))


@pytest.fixture(scope="module")
def embedder() -> Embedder:
    return Embedder.load(EmbedderConfig(engine="fake"))


@pytest.fixture(scope="module")
def engine(embedder: Embedder) -> ExtractiveEngine:
    return ExtractiveEngine("reader", embedder, ReaderConfig())


def request(**changes: object) -> Request:
    return Request(**{"model": "reader", "messages": (Message("user", QUESTION),), "statistics": STATISTICS, **changes})  # type: ignore[arg-type]


def answer(engine: ExtractiveEngine, request: Request, question: str = QUESTION) -> Answer:
    written = complete(engine.generator(request), question, SOURCES)
    assert written is not None
    return written


def test_it_quotes_with_the_statistics_of_the_request(engine: ExtractiveEngine) -> None:
    written = answer(engine, request())
    assert written.text == "A task reserves one CPU by default. [1]"
    assert problems(written.text, written.citations, SOURCES) == unquoted(written.text, written.citations) == []
    # Where every chunk holds the words that the passage has, and none the one that it lacks, it says nothing.
    common = LexicalStatistics(1000, 100_000, {"task": 990, "reserv": 990, "cpu": 990, "gpu": 0})
    assert answer(engine, request(statistics=common)).text == ABSTENTION


def test_requests_are_read_in_their_own_language(engine: ExtractiveEngine) -> None:
    with pytest.raises(UsageError, match="language = 'klingon'"):
        engine.generator(request(language="klingon"))
    assert answer(engine, request(language="none"), question="TASK reserves CPU default").grounded


def test_many_requests_share_the_engine(engine: ExtractiveEngine) -> None:
    with ThreadPoolExecutor(8) as threads:
        texts = set(threads.map(lambda _: answer(engine, request()).text, range(16)))
    assert texts == {"A task reserves one CPU by default. [1]"}


def test_without_retrieval_there_is_nothing_to_quote(engine: ExtractiveEngine) -> None:
    assert engine.needs_passages
    with pytest.raises(UsageError, match=r"model=reader only quotes .*: leave retrieval on"):
        engine.generator(request(closed_book=True))


def test_another_model_is_not_found(engine: ExtractiveEngine) -> None:
    for ask in (
        lambda: engine.generator(request(model="other")),
        lambda: engine.condense([Message("user", "Why?")], "other"),
    ):
        with pytest.raises(NotFoundError, match="model=other: not served here; expected reader"):
            ask()


def test_a_follow_up_is_condensed_by_rule(engine: ExtractiveEngine) -> None:
    turns = [Message("user", "How does Serve scale?"), Message("assistant", "By load."), Message("user", "Why?")]
    assert engine.condense(turns, "reader") == "Why? Serve scale"


def test_the_calibration_is_that_of_the_embedders_model(embedder: Embedder) -> None:
    class Named:
        encode_queries, encode_documents = embedder.encode_queries, embedder.encode_documents

        def __init__(self, model: str) -> None:
            self.identity = embedder.identity.model_copy(update={"model": model})

    calibrations = [
        ExtractiveEngine("reader", Named(model), ReaderConfig())._calibration
        for model in ("sentence-transformers/all-MiniLM-L6-v2", "other")
    ]
    assert calibrations == [MINILM, ANY_MODEL]


def test_it_is_the_default_engine_and_takes_an_embedder_that_is_loaded(embedder: Embedder) -> None:
    assert load_engine(FAKE).models == ("extractive",)
    loaded: list[Embedder] = []

    def shared() -> Embedder:
        loaded.append(embedder)
        return embedder

    assert load_engine(EngineConfig(name="quotes"), embedder=shared).models == ("quotes",)
    assert loaded == [embedder]
