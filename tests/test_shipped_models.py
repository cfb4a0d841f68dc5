"""The reader and the reranker that Tandem carries: found by their names, and used where nobody names others."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import yaml
from command_line import run
from small_index import SmallDocument, build_index
from tiny_models import tiny_model
from tiny_readers import fitted_to_find
from tiny_rerankers import fitted_to_words

from ray_jobs.answer.defaults import READER, RERANKER
from ray_jobs.index.manifest import Manifest, commit
from ray_jobs.models import resolve
from ray_jobs.models.embedder import Embedder, EmbedderConfig
from ray_jobs.storage import LocalStorage

Capsys = pytest.CaptureFixture[str]
TEXTS = {"zoo": "The fox sleeps all day. An owl sees in the dark.", "farm": "A hen and a pig live here."}


def published(folder: Path, name: str, embedder: Embedder, **changes: Any) -> None:
    documents = [
        SmallDocument(doc_id, [(text, embedder.encode_documents([text])[0].tolist())]) for doc_id, text in TEXTS.items()
    ]
    storage = LocalStorage(folder / "store")
    manifest = build_index(storage, folder / f"build-{name}", documents, 1, name=name)
    commit(storage, Manifest.model_validate({**manifest.model_dump(), "embedder": embedder.identity, **changes}))


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store with an index of a real embedder, one in another language, and one of the fake embedder."""
    folder = tmp_path_factory.mktemp("shipped")
    mini = tiny_model(folder / "mini", normalize=True)
    real = Embedder.load(EmbedderConfig(model=str(mini), engine="torch", precision="float32", device="cpu"))
    published(folder, "notes", real)
    lexical = {"language": "german", "chunks": 2, "total_length": 20}
    published(folder, "notizen", real, lexical=lexical)
    published(folder, "fakes", Embedder.load(EmbedderConfig(engine="fake")))
    return folder / "store"


@pytest.fixture(autouse=True)
def carried(tmp_path_factory: pytest.TempPathFactory, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """What Tandem carries is two fitted toys."""
    shared, folder = tmp_path_factory.getbasetemp(), tmp_path / "shipped"
    shutil.copytree(fitted_to_find(shared), folder / READER)
    shutil.copytree(fitted_to_words(shared), folder / RERANKER)
    monkeypatch.setattr(resolve, "SHIPPED", folder)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.chdir(tmp_path)
    return folder


def test_they_are_listed_after_those_of_the_store_and_shown(
    capsys: Capsys, store: Path, carried: Path, tmp_path: Path
) -> None:
    (carried / READER / "card.json").write_text('{"method": "reader", "threshold": 2.5}')
    listed = json.loads(run(capsys, "models", "list", "--store", store, "--json").succeeded())
    assert [(item["name"], item["origin"]) for item in listed] == [(READER, "shipped"), (RERANKER, "shipped")]
    assert "threshold  2.5" in run(capsys, "models", "info", READER, "--store", store).succeeded()
    run(capsys, "models", "export", READER, "--to", tmp_path / "out", "--store", store).succeeded()
    assert (tmp_path / "out" / "config.json").is_file()
    run(capsys, "models", "info", "nobody", "--store", store).refused(f"Tandem carries {READER}, {RERANKER}", code=1)


def asked(capsys: Capsys, store: Path, *arguments: object, index: str = "notes") -> dict[str, Any]:
    given = ("ask", "Where is the owl?", "--index", index, "--store", store, "--json", *arguments)
    found: dict[str, Any] = json.loads(run(capsys, *given).succeeded())
    return found


def test_a_shipped_model_is_found_by_its_name_after_the_stores(carried: Path, tmp_path: Path) -> None:
    found = resolve.resolve(READER)
    assert (found.origin, found.path) == ("shipped", (carried / READER).resolve())
    shutil.copytree(carried / READER, tmp_path / "models" / READER)
    assert resolve.resolve(READER, LocalStorage(tmp_path)).origin == "store"


def test_ask_reranks_and_reads_by_the_shipped_models(capsys: Capsys, store: Path) -> None:
    found = asked(capsys, store)
    assert found["citations"][0]["quote"] == "owl"
    assert found["timings"].keys() == {"retrieve", "rerank", "answer"}


def test_each_of_them_can_be_switched_off(capsys: Capsys, store: Path) -> None:
    plain = asked(capsys, store, "--no-rerank", "--reader", "quotes")
    assert plain["timings"].keys() == {"retrieve", "answer"}
    assert all(citation["quote"] != "owl" for citation in plain["citations"])
    assert asked(capsys, store, "--no-rerank")["citations"][0]["quote"] == "owl"
    quoting = asked(capsys, store, "--reader.max-quotes", 1)
    assert all(citation["quote"] != "owl" for citation in quoting["citations"])


@pytest.mark.parametrize("index", ["notizen", "fakes"])
def test_they_are_not_used_where_they_do_not_suit_the_index(capsys: Capsys, store: Path, index: str) -> None:
    found = asked(capsys, store, index=index)
    assert found["timings"].keys() == {"retrieve", "answer"}
    assert all(citation["quote"] != "owl" for citation in found["citations"])


def test_without_them_ask_quotes_as_before(capsys: Capsys, store: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(resolve, "SHIPPED", store / "nothing")
    assert asked(capsys, store)["timings"].keys() == {"retrieve", "answer"}
    ended = run(capsys, "ask", "owl", "--index", "notes", "--store", store, "--rerank")
    ended.refused("rerank=true and no reranker that suits index=notes", "--reranker NAME", code=2)


def test_search_reranks_only_when_asked_to(capsys: Capsys, store: Path) -> None:
    def scores(*arguments: object) -> set[str]:
        given = ("search", "owl", "--index", "notes", "--store", store, "--json", *arguments)
        return set(json.loads(run(capsys, *given).succeeded())["hits"][0]["scores"])

    assert "rerank" not in scores()
    assert "rerank" in scores("--rerank")


def test_a_reranker_that_is_named_and_switched_off_is_refused(capsys: Capsys, store: Path) -> None:
    ended = run(capsys, "ask", "owl", "--index", "notes", "--store", store, "--no-rerank", "--reranker", "x")
    ended.refused("rerank=false with reranker='x'", code=2)


def served(capsys: Capsys, store: Path, *arguments: object) -> dict[str, Any]:
    given = ("serve", "--store", store, "--dry-run", *arguments)
    found: dict[str, Any] = yaml.safe_load(run(capsys, *given).succeeded())["applications"][0]["args"]
    return found


def test_a_server_answers_by_them(capsys: Capsys, store: Path) -> None:
    found = served(capsys, store, "--index", "notes")
    assert found["reranker"] == {"model": RERANKER}
    assert found["generator"] == {"reader": READER, "name": "extractive"}
    assert found["api"]["chat"]["rerank"] is True
    assert "search" not in found["api"]


@pytest.mark.parametrize(
    ("arguments", "reranker", "reader"),
    [
        (["--index", "notes", "--no-own-models"], None, None),
        (["--index", "notes", "--generator.reader", "quotes"], RERANKER, None),
        (["--index", "notes", "--reranker", "mine", "--generator.reader", "his"], "mine", "his"),
        (["--index", "notes", "--index", "fakes"], None, None),
        (["--index", "notizen"], None, None),
    ],
)
def test_a_server_takes_others_or_none(
    capsys: Capsys, store: Path, arguments: list[str], reranker: str | None, reader: str | None
) -> None:
    found = served(capsys, store, *arguments)
    assert found.get("reranker", {}).get("model") == reranker
    assert found.get("generator", {}).get("reader") == reader
    assert ("chat" in found["api"]) == (reranker == RERANKER)


def test_what_a_dry_run_prints_is_served_as_it_stands(capsys: Capsys, store: Path, tmp_path: Path) -> None:
    plain = run(capsys, "serve", "--store", store, "--index", "notes", "--no-own-models", "--dry-run").succeeded()
    (tmp_path / "plain.yaml").write_text(plain)
    again = yaml.safe_load(run(capsys, "serve", "--config", "plain.yaml", "--dry-run").succeeded())
    assert again["applications"][0]["args"] == yaml.safe_load(plain)["applications"][0]["args"]
