"""Models of a store are used by their names: to ingest, to search, to answer, to serve."""

from __future__ import annotations

import json
import shutil
import uuid
from pathlib import Path
from typing import Any

import httpx2
import pytest
import tiny_language_models
from command_line import run
from served import deployed, free_port, http
from tiny_adapters import adapter
from tiny_models import tiny_model
from tiny_readers import fitted_to_find
from tiny_rerankers import WORDS, fitted_to_words

from ray_jobs.answer.engine import Message, Request
from ray_jobs.answer.engine_config import EngineConfig, load_engine
from ray_jobs.answer.protocol import Final, Passage
from ray_jobs.index.manifest import read_live
from ray_jobs.storage import LocalStorage

Capsys = pytest.CaptureFixture[str]
TEXTS = {"zoo": "The fox sleeps all day. An owl sees in the dark.", "farm": "A hen and a pig live here."}
SMALL = ("--embedder.precision", "float32")


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store with an embedder `mini`, a reranker `words`, a reader `finder`, and a language model with an adapter."""
    folder = tmp_path_factory.mktemp("by-name")
    models = folder / "store" / "models"
    shared = tmp_path_factory.getbasetemp()
    shutil.copytree(tiny_model(folder / "mini", normalize=True, max_seq_length=128), models / "mini")
    shutil.copytree(fitted_to_words(shared), models / "words")
    shutil.copytree(fitted_to_find(shared), models / "finder")
    tokenizer = tiny_language_models.word_tokenizer([*WORDS, *(f" {word}" for word in WORDS)], True)
    network = tiny_language_models.tiny_llama(tokenizer, max_position_embeddings=1024)
    tiny_language_models.save(models / "chat", network, tokenizer)
    adapter(models / "chat", models / "polite", "CAUSAL_LM")
    (folder / "notes").mkdir()
    for name, text in TEXTS.items():
        (folder / "notes" / f"{name}.txt").write_text(text)
    return folder / "store"


@pytest.fixture(scope="module")
def index(store: Path, ray_session: None) -> str:
    """An index that the command line made with the embedder of that name."""
    from cluster import cli

    made = ["ingest", store.parent / "notes", "--index", "notes", "--store", store, "--embedder", "mini", *SMALL]
    assert cli.run(list(map(str, made))) == 0
    return "notes"


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")


def test_an_index_remembers_the_embedder_of_the_store(store: Path, index: str) -> None:
    embedder = read_live(LocalStorage(store), index).embedder
    assert (embedder.model, embedder.dimension) == ("mini", 32)


def test_search_and_its_job_find_that_embedder_again(capsys: Capsys, store: Path, index: str, tmp_path: Path) -> None:
    shown = run(capsys, "search", "owl", "--index", index, "--store", store, "--mode", "dense", "--json")
    assert len(json.loads(shown.succeeded())["hits"]) == 2
    (tmp_path / "q.jsonl").write_text('{"id": "1", "text": "owl"}\n')
    job = ("--queries", "q.jsonl", "--output", "hits.jsonl", "--mode", "dense")
    run(capsys, "search", *job, "--index", index, "--store", store).succeeded()
    (line,) = (tmp_path / "hits.jsonl").read_text().splitlines()
    assert len(json.loads(line)["hits"]) == 2


def test_a_dry_run_takes_the_embedder_of_the_store(capsys: Capsys, store: Path) -> None:
    made = ("ingest", store.parent / "notes", "--index", "other", "--store", store, "--embedder", "mini", "--dry-run")
    assert "embedder   mini" in run(capsys, *made).succeeded()


def test_ask_reranks_and_reads_by_names_of_the_store(capsys: Capsys, store: Path, index: str) -> None:
    ask = ("ask", "Where is the owl?", "--index", index, "--store", store, "--json")
    found = json.loads(run(capsys, *ask, "--reranker", "words", "--reader", "finder").succeeded())
    assert found["citations"][0]["quote"] == "owl"
    assert {"retrieve", "rerank", "answer"} == found["timings"].keys()


def test_an_embedder_that_the_store_lacks_is_refused_before_work(capsys: Capsys, store: Path) -> None:
    made = ("ingest", store.parent / "notes", "--index", "other", "--store", store, "--embedder", "no/model")
    run(capsys, *made).refused("'no/model' not found", "models/no/model", code=1)


def test_another_embedder_than_the_indexs_is_refused(capsys: Capsys, store: Path, index: str, tmp_path: Path) -> None:
    shutil.copytree(tiny_model(tmp_path / "made", pooling="cls"), store / "models" / "other")
    asked = ("search", "owl", "--index", index, "--store", store, "--embedder", "other")
    run(capsys, *asked).refused("other", "mini", code=2)


def test_a_generator_takes_base_and_adapter_by_names_of_the_store(store: Path) -> None:
    config = EngineConfig.model_validate(
        {
            "engine": "transformers",
            "model": "chat",
            "adapters": {"kind": "polite"},
            "precision": "float32",
            "device": "cpu",
            "max_new_tokens": 4,
        }
    )
    engine = load_engine(config, None, LocalStorage(store))
    assert engine.models == ("chat", "chat:kind")
    passage = Passage(
        number=1, doc_id="zoo", chunk_id="zoo#0", title="", heading="", page=None, page_breaks=(), source="zoo",
        start=0, end=7, text="ant bee", score=1.0,
    )  # fmt: skip
    for model in engine.models:
        request = Request(model=model, messages=(Message("user", "ant"),))
        events = list(engine.generator(request).stream("ant", [passage]))
        assert isinstance(events[-1], Final)


@pytest.mark.slow
def test_a_server_takes_the_names_of_the_store(store: Path, index: str) -> None:
    from serve.config import ServeConfig

    config = ServeConfig.model_validate(
        {
            "application": f"tandem-{uuid.uuid4().hex[:8]}",
            "store": str(store),
            "index": index,
            "partitions": 1,
            "reranker": "words",
            "generator": {"reader": "finder"},
            "api": {"open": True, "chat": {"rerank": True, "k": 2, "by": "chunk"}},
        }
    )
    port = free_port()
    with http(port), deployed(config, port) as url, httpx2.Client(base_url=url, timeout=60) as web:
        names = {item["id"]: item["kind"] for item in web.get("/v1/models").json()["data"]}
        assert names == {"finder": "generator", "mini": "embedder", "words": "reranker"}
        asked = {"model": "finder", "messages": [{"role": "user", "content": "Where is the owl?"}]}
        answer: dict[str, Any] = web.post("/v1/chat/completions", json=asked).json()
        assert answer["citations"][0]["quote"] == "owl"
        assert answer["degraded"] == []
        assert "rerank" in answer["timings"]
