"""`tandem search` and `tandem ask` with a reranker, through the command line."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from command_line import Ended, run
from small_index import SmallDocument, build_index
from tiny_rerankers import fitted_to_words

from ray_jobs.index.manifest import commit
from ray_jobs.models.embedder import Embedder, EmbedderConfig
from ray_jobs.storage import LocalStorage

pytestmark = pytest.mark.usefixtures("elsewhere")

Capsys = pytest.CaptureFixture[str]
FAKE = ("--reranker", "any", "--reranker-options.engine", "fake")

# Chunks of each document, and the text whose vector each has instead of its own: dense search is led astray.
CHUNKS = {
    "bread": [("bread cheese date lemon mint olive", "cat owl fox"), ("honey jam ice fig egg nut", "cat owl")],
    "cat": [("cat bread cheese grape kale nut", "cat owl fox bee"), ("zebra yak wasp vole urchin toad", "fox")],
    "right": [("jay kiwi lynx mole newt pig", "zebra yak"), ("kale cat ice owl fox lemon", "zebra")],
}
RIGHT = CHUNKS["right"][1][0]


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store with an index `notes`, embedded by the fake, and a fitted reranker `words` among its models."""
    folder = tmp_path_factory.mktemp("made")
    storage = LocalStorage(folder / "store")
    embedder = Embedder.load(EmbedderConfig(engine="fake"))
    documents = [
        SmallDocument(doc_id, [(text, embedder.encode_documents([other])[0].tolist()) for text, other in chunks])
        for doc_id, chunks in CHUNKS.items()
    ]
    manifest = build_index(storage, folder / "build", documents, 2, name="notes")
    commit(storage, manifest.model_copy(update={"embedder": embedder.identity}))
    shutil.copytree(fitted_to_words(tmp_path_factory.getbasetemp()), folder / "store" / "models" / "words")
    return folder / "store"


def search(capsys: Capsys, store: Path, *arguments: object, query: str = "cat owl fox") -> Ended:
    return run(capsys, "search", query, "--index", "notes", "--store", store, *arguments)


def hits(capsys: Capsys, store: Path, *arguments: object) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads(search(capsys, store, *arguments, "--json").succeeded())["hits"]
    return found


def test_a_reranker_raises_what_dense_search_put_last(capsys: Capsys, store: Path) -> None:
    arguments = ("--mode", "dense", "--by", "chunk")
    before = hits(capsys, store, *arguments)
    after = hits(capsys, store, *arguments, "--reranker", "words")
    assert before[-1]["text"] == after[0]["text"] == RIGHT


@pytest.mark.parametrize("mode", ["hybrid", "dense", "lexical"])
def test_reranked_hits_are_those_of_search_with_one_score_more(capsys: Capsys, store: Path, mode: str) -> None:
    before = hits(capsys, store, "--mode", mode, "--by", "chunk")
    after = hits(capsys, store, "--mode", mode, "--by", "chunk", "--reranker", "words")
    assert after[0]["text"] == RIGHT
    assert [hit["rank"] for hit in after] == list(range(1, len(before) + 1))
    scores = [hit["score"] for hit in after]
    assert scores == sorted(scores, reverse=True)
    former = {hit["chunk_id"]: hit for hit in before}
    for hit in after:
        found = former.pop(hit["chunk_id"])
        found["scores"]["rerank"] = hit["score"]
        assert {**hit, "rank": 0, "score": 0} == {**found, "rank": 0, "score": 0}


def test_documents_are_reranked_by_their_best_chunk(capsys: Capsys, store: Path) -> None:
    found = hits(capsys, store, "--mode", "dense", "-k", 2, *FAKE)
    assert [hit["doc_id"] for hit in found] == ["right", "cat"]
    assert [hit["score"] for hit in found] == pytest.approx([1, 1 / 3])
    assert found[0]["text"] == RIGHT


def test_only_what_was_retrieved_is_reranked(capsys: Capsys, store: Path) -> None:
    arguments = ("--mode", "dense", "--by", "chunk", "-k", 2)
    before = hits(capsys, store, *arguments)
    after = hits(capsys, store, *arguments, *FAKE, "--rerank-depth", 2)
    assert {hit["chunk_id"] for hit in after} == {hit["chunk_id"] for hit in before}
    assert hits(capsys, store, *arguments, *FAKE)[0]["text"] not in {hit["text"] for hit in before}


def test_the_score_of_the_reranker_is_printed_with_those_of_the_stages(capsys: Capsys, store: Path) -> None:
    ended = search(capsys, store, *FAKE)
    assert "rerank 1.000)" in ended.succeeded().splitlines()[0]
    assert ended.err == ""


def test_loading_a_model_prints_nothing(capsys: Capsys, store: Path) -> None:
    ended = search(capsys, store, "--reranker", "words", "--json")
    json.loads(ended.succeeded())
    assert ended.err == ""


def test_a_reranker_may_be_named_by_path_and_in_a_file(capsys: Capsys, store: Path, tmp_path: Path) -> None:
    by_name = hits(capsys, store, "--reranker", "words")
    assert hits(capsys, store, "--rerank", "--reranker", store / "models" / "words") == by_name
    (tmp_path / "c.yaml").write_text("rerank: true\nreranker: words\nreranker_options: {batch_tokens: 64}\n")
    scores = [hit["score"] for hit in hits(capsys, store, "--config", "c.yaml")]
    assert scores == pytest.approx([hit["score"] for hit in by_name], abs=0.01)


def test_ask_answers_from_what_the_reranker_put_first(capsys: Capsys, store: Path) -> None:
    def asked(*arguments: object) -> dict[str, Any]:
        question = ("ask", "cat owl fox", "--index", "notes", "--store", store, "-k", 2, "--json")
        found: dict[str, Any] = json.loads(run(capsys, *question, *arguments).succeeded())
        return found

    before, after = asked("--mode", "dense"), asked("--mode", "dense", *FAKE)
    assert before["timings"].keys() == {"retrieve", "answer"}
    assert after["timings"].keys() == {"retrieve", "rerank", "answer"}
    assert [passage["score"] for passage in after["passages"]] == pytest.approx([1, 1 / 3])
    assert [passage["number"] for passage in after["passages"]] == [1, 2]
    assert not before["grounded"]
    assert after["grounded"]
    assert after["answer"] == f"{RIGHT} [1]"


REFUSED: list[tuple[list[str], int, list[str]]] = [
    (["--rerank"], 2, ["rerank=true", "--reranker NAME"]),
    (["--reranker", ""], 2, ["reranker=''"]),
    (["--reranker", "no/model"], 1, ["'no/model' not found", "looked in", "models/no/model"]),
    (["--reranker", "sentence-transformers/all-MiniLM-L6-v2"], 1, ["is no reranker", "BertModel"]),
    (["--reranker", "words", "--rerank-depth", "0"], 2, ["rerank_depth='0'", "greater than or equal to 1"]),
    (["--reranker", "words", "--reranker-options.engine", "steam"], 2, ["reranker_options.engine", "'steam'"]),
    (["--reranker", "words", "--reranker-options.max-tokens", "999"], 2, ["max_tokens=999", "80 positions"]),
    (["--reranker", "words", "--reranker-options.max-tokens", "8"], 2, ["takes 9 tokens", "shorten the query"]),
    ([*FAKE, "--reranker-options.precision", "bfloat16"], 2, ["engine=fake", "bfloat16"]),
]


@pytest.mark.parametrize("command", ["search", "ask"])
@pytest.mark.parametrize(("arguments", "code", "fragments"), REFUSED, ids=lambda value: str(value)[:60])
def test_a_reranker_that_cannot_be_is_refused_in_one_line(
    capsys: Capsys, store: Path, command: str, arguments: list[str], code: int, fragments: list[str]
) -> None:
    query = "cat dog fox owl bee pig"
    run(capsys, command, query, "--index", "notes", "--store", store, *arguments).refused(*fragments, code=code)


def test_a_file_of_queries_is_not_reranked(capsys: Capsys, tmp_path: Path) -> None:
    (tmp_path / "q.jsonl").write_text('{"id": "1", "text": "cat"}\n')
    ended = run(capsys, "search", "--queries", "q.jsonl", "--output", "o.jsonl", "--index", "notes", *FAKE)
    ended.refused("reranker='any' with --queries", "does not rerank", code=2)
    assert not (tmp_path / "o.jsonl").exists()


@pytest.mark.parametrize("command", ["search", "ask"])
def test_help_names_the_reranker(capsys: Capsys, command: str) -> None:
    with pytest.raises(SystemExit):
        run(capsys, command, "--help")
    shown = capsys.readouterr().out
    for flag in ("--rerank ", "--reranker str", "--rerank-depth int", "--reranker-options.precision"):
        assert flag in shown
