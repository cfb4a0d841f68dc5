"""From a folder of every format to a cited answer: the command line, a real cluster and the real default model."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from command_line import end, run, start
from every_format import write_every_format

from ray_jobs.index import manifest
from ray_jobs.storage import LocalStorage

Capsys = pytest.CaptureFixture[str]
INDEX = ("--index", "facts")
ASKED = {
    "penguins": ("Where do emperor penguins breed?", "corpus/penguins.txt"),
    "lamp": ("How often must the lamp of the lighthouse be trimmed?", "corpus/deep/lighthouse.md"),
    "etna": ("What is the tallest active volcano in Europe?", "corpus/volcano.html"),
    "bridge": ("When was the Forth Bridge opened?", "corpus/bridge.pdf"),
    "bread": ("How does sourdough rise?", "corpus/bread.docx"),
    "bees": ("How do honey bees tell each other where flowers are?", "bees"),
    "saturn": ("What are the rings of Saturn made of?", "saturn"),
    "tea": ("Why is green tea steamed?", "tea"),
    "chess": ("What happens to a pawn that reaches the last rank?", "chess"),
}


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory, cluster: dict[str, str]) -> Path:
    """A folder in which `tandem ingest corpus --index facts --shards 3` was typed; its summary in `summary.json`."""
    folder = tmp_path_factory.mktemp("end-to-end")
    write_every_format(folder / "corpus")
    ingested = end(start(cluster, folder, "ingest", "corpus", *INDEX, "--shards", 3, "--json"))
    (folder / "summary.json").write_text(ingested.succeeded())
    return folder


@pytest.fixture(autouse=True)
def beside(made: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Stand where the index was made, so that `--store` keeps its default."""
    monkeypatch.chdir(made)


def search(capsys: Capsys, query: str, *more: object) -> list[dict[str, Any]]:
    hits: list[dict[str, Any]] = json.loads(run(capsys, "search", query, *INDEX, "--json", *more).succeeded())["hits"]
    return hits


def stored_text(folder: Path, doc_id: str) -> str:
    storage = LocalStorage(folder / "tandem-store")
    for record in manifest.read_live(storage, "facts").documents:
        for row in pq.read_table(storage.local(record.key)).to_pylist():
            if row["doc_id"] == doc_id:
                return str(row["text"])
    raise AssertionError(f"{doc_id} is not stored")


def test_every_file_is_counted_and_indexed_in_three_shards(made: Path) -> None:
    summary = json.loads((made / "summary.json").read_text())
    assert summary["outcome"] == "published"
    assert summary["shards"] == 3
    assert (summary["counts"]["sources"], summary["counts"]["read"]) == (9, 9)
    assert (summary["counts"]["documents"], summary["counts"]["indexed"]) == (11, 11)
    assert summary["reasons"] == {}


@pytest.mark.parametrize("mode", ["dense", "lexical", "hybrid"])
def test_each_mode_finds_what_speaks_of_it(capsys: Capsys, made: Path, mode: str) -> None:
    hits = search(capsys, "tallest active volcano in Europe", "--mode", mode, "-k", 3)
    assert hits[0]["doc_id"] == "corpus/volcano.html"
    assert [hit["rank"] for hit in hits] == list(range(1, len(hits) + 1))
    assert sorted((hit["score"] for hit in hits), reverse=True) == [hit["score"] for hit in hits]
    for hit in hits:
        assert stored_text(made, hit["doc_id"])[hit["start"] : hit["end"]] == hit["text"]


def test_a_filter_on_metadata_decides_what_may_be_found(capsys: Capsys) -> None:
    found = search(capsys, "history", "--where", "year >= 1400 and year < 1900")
    assert {hit["doc_id"] for hit in found} == {"wein", "saturn", "chess"}
    assert {hit["doc_id"] for hit in search(capsys, "history", "--where", "author = 'Ada'", "--by", "chunk")} == {
        "corpus/deep/lighthouse.md"
    }
    nothing = run(capsys, "search", "history", *INDEX, "--where", "year = 1").succeeded()
    assert nothing.strip() == "no document matches"


def test_results_count_chunks_or_documents(capsys: Capsys) -> None:
    options = ("--mode", "dense", "-k", 50)
    documents = search(capsys, "lighthouse fog horn", *options)
    chunks = search(capsys, "lighthouse fog horn", "--by", "chunk", *options)
    assert len({hit["doc_id"] for hit in documents}) == len(documents) == 11
    assert len({hit["chunk_id"] for hit in chunks}) == len(chunks) >= 11


def test_what_people_read_names_document_span_and_text(capsys: Capsys) -> None:
    shown = run(capsys, "search", "When was the Forth Bridge opened?", *INDEX, "-k", 1).succeeded()
    assert "corpus/bridge.pdf" in shown
    assert "Forth Bridge was opened" in shown


@pytest.mark.parametrize("name", ["bridge", "saturn", "lamp"])
def test_an_answer_cites_spans_that_cut_exactly_the_stored_text(capsys: Capsys, made: Path, name: str) -> None:
    question, doc_id = ASKED[name]
    asked = json.loads(run(capsys, "ask", question, *INDEX, "--json").succeeded())
    assert asked["grounded"]
    assert asked["citations"][0]["doc_id"] == doc_id
    for citation in asked["citations"]:
        assert f"[{citation['number']}]" in asked["answer"]
        text = stored_text(made, citation["doc_id"])
        assert text[citation["start"] : citation["end"]] == citation["quote"]
        assert " ".join(citation["quote"].split()) in asked["answer"]


def test_an_answer_says_on_which_page_it_stands(capsys: Capsys) -> None:
    shown = run(capsys, "ask", ASKED["bridge"][0], *INDEX).succeeded()
    assert "1890" in shown
    assert "corpus/bridge.pdf, p. 2, characters " in shown


def test_what_the_corpus_does_not_answer_is_said(capsys: Capsys) -> None:
    asked = json.loads(run(capsys, "ask", "Who won the football world cup in 2014?", *INDEX, "--json").succeeded())
    assert asked["answer"] == "The corpus does not answer this question."
    assert asked["citations"] == []
    assert not asked["grounded"]


def test_the_index_is_listed_described_and_verified(capsys: Capsys) -> None:
    (listed,) = json.loads(run(capsys, "index", "list", "--json").succeeded())
    assert (listed["index"], listed["snapshot"], listed["documents"], listed["shards"]) == ("facts", 1, 11, 3)
    described = run(capsys, "index", "info", "facts").succeeded()
    for fragment in ("facts, snapshot 1", "11 indexed", "3 shards", "all-MiniLM-L6-v2", "year int", "author string"):
        assert fragment in described
    assert "intact" in run(capsys, "index", "verify", "facts").succeeded()


@pytest.mark.usefixtures("ray_session")
@pytest.mark.parametrize(
    ("suffix", "count", "more"),
    [("jsonl", 5, ()), ("parquet", 3, ("--mode", "dense", "--by", "chunk", "-k", 4, "--where", "exists year"))],
)
def test_a_file_of_queries_gives_what_single_searches_give(
    capsys: Capsys, made: Path, tmp_path: Path, suffix: str, count: int, more: tuple[object, ...]
) -> None:
    queries, output = tmp_path / "queries.jsonl", tmp_path / f"hits.{suffix}"
    names = list(ASKED)[:count]
    queries.write_text("".join(json.dumps({"id": name, "text": ASKED[name][0]}) + "\n" for name in names))
    run(capsys, "search", "--queries", queries, "--output", output, *INDEX, *more).succeeded()
    if suffix == "parquet":
        found = pq.read_table(output).to_pylist()
    else:
        found = [json.loads(line) for line in output.read_text().splitlines()]
    assert [row["query_id"] for row in found] == names
    for row in found:
        question, doc_id = ASKED[row["query_id"]]
        single = search(capsys, question, *more)
        assert [hit["chunk_id"] for hit in row["hits"]] == [hit["chunk_id"] for hit in single]
        assert [hit["score"] for hit in row["hits"]] == pytest.approx([hit["score"] for hit in single], abs=1e-4)
        assert more or row["hits"][0]["doc_id"] == doc_id
        assert all(hit["text"] == other["text"] for hit, other in zip(row["hits"], single, strict=True))


def test_the_same_command_again_embeds_nothing(capsys: Capsys) -> None:
    again = run(capsys, "ingest", "corpus", *INDEX, "--shards", 3)
    assert "nothing changed: snapshot 1 of facts is live, nothing was embedded" in again.succeeded()
    assert "9 listed = 0 read + 9 unchanged + 0 failed" in again.out
    assert again.err == ""
