"""The search job on a real cluster gives what one process gives."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from ray_jobs.errors import NotFoundError, StorageError, UsageError
from ray_jobs.index.search import SearchConfig
from ray_jobs.index.snapshot import Snapshot
from ray_jobs.ingest import job as ingest_job
from ray_jobs.ingest.config import IngestConfig
from ray_jobs.models.for_queries import load_for_queries
from ray_jobs.search import job
from ray_jobs.search.config import SearchJobConfig
from ray_jobs.search.queries import read_queries
from ray_jobs.storage import LocalStorage

pytestmark = pytest.mark.usefixtures("ray_session")
WORDS = ("shard", "snapshot", "quantiser", "manifest", "postings", "recall", "filter", "ledger", "chunk", "vector")


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory, ray_session: None) -> Path:
    folder = tmp_path_factory.mktemp("search")
    rng = np.random.default_rng(0)
    rows = [
        {"id": f"d{n}", "text": " ".join(rng.choice(WORDS, int(rng.integers(3, 40)))), "year": 2000 + n % 10}
        for n in range(400)
    ]
    (folder / "corpus.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    ingest_job.run(
        IngestConfig.model_validate(
            {
                "sources": [str(folder / "corpus.jsonl")],
                "index": "words",
                "store": str(folder / "store"),
                "shards": 5,
                "embedder": {"engine": "fake"},
            }
        )
    )
    return folder


def write_queries(path: Path, count: int) -> list[tuple[str, str]]:
    rng = np.random.default_rng(1)
    queries = [(f"q{n}", " ".join(rng.choice(WORDS, 3))) for n in range(count)]
    if path.suffix == ".parquet":
        table = pa.table({"id": [query for query, _ in queries], "text": [text for _, text in queries]})
        pq.write_table(table, path)
    else:
        path.write_text("".join(json.dumps({"id": query, "text": text}) + "\n" for query, text in queries))
    return queries


def run(store: Path, queries: Path, output: Path, search: SearchConfig) -> job.SearchSummary:
    config = SearchJobConfig(
        index="words", store=str(store / "store"), queries=queries, output=output, search=search, block_queries=40
    )
    return job.run(config)


@pytest.mark.parametrize(
    ("suffix", "search"),
    [
        (".jsonl", SearchConfig(mode="hybrid", k=7)),
        (".parquet", SearchConfig(mode="hybrid", k=5, by="chunk", where="year >= 2005", fusion="rrf")),
        (".jsonl", SearchConfig(mode="lexical", k=3)),
    ],
)
def test_the_job_gives_the_ids_order_and_scores_of_one_process(
    store: Path, tmp_path: Path, suffix: str, search: SearchConfig
) -> None:
    queries = write_queries(tmp_path / f"queries{suffix}", 100)
    output = tmp_path / f"hits{suffix}"
    summary = run(store, tmp_path / f"queries{suffix}", output, search)
    rows = (
        pq.read_table(output).to_pylist()
        if suffix == ".parquet"
        else [json.loads(line) for line in output.read_text().splitlines()]
    )
    assert [row["query_id"] for row in rows] == [query for query, _ in queries]
    snapshot = Snapshot.open(LocalStorage(store / "store"), "words")
    embedder = load_for_queries(None, snapshot.manifest.embedder)
    alone = [snapshot.search([text], search, embedder)[0] for _, text in queries]
    for row, hits in zip(rows, alone, strict=True):
        assert [(hit["doc_id"], hit["chunk_id"], hit["rank"]) for hit in row["hits"]] == [
            (hit.doc_id, hit.chunk_id, hit.rank) for hit in hits
        ]
        np.testing.assert_allclose([hit["score"] for hit in row["hits"]], [hit.score for hit in hits], atol=1e-4)
        assert set(row["hits"][0]) == {"doc_id", "chunk_id", "score", "rank", "text", "source", "start", "end"}
    assert (summary.queries, summary.hits) == (100, sum(map(len, alone)))
    assert list((store / "store").glob("runs/*/search/*")) == []


def test_a_filter_on_an_unknown_field_is_refused_and_leaves_no_output(store: Path, tmp_path: Path) -> None:
    write_queries(tmp_path / "q.jsonl", 3)
    with pytest.raises(UsageError, match="yaer"):
        run(store, tmp_path / "q.jsonl", tmp_path / "hits.jsonl", SearchConfig(where="yaer > 3"))
    assert not (tmp_path / "hits.jsonl").exists()


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("", "no query in it"),
        ('{"id": 1, "text": "a"}\n{"id": 1, "text": "b"}\n', "line 2 and line 1 share id '1'"),
        ('{"id": 1, "text": "a"}\nnot json\n', "line 2 is not JSON"),
        ('{"id": 1}\n', "line 1 has no 'text'"),
        ('{"id": 1, "text": "  "}\n', "line 1: text='  '"),
        ("[1]\n", "line 1 is a list"),
    ],
)
def test_a_wrong_row_of_queries_is_named(tmp_path: Path, content: str, words: str) -> None:
    path = tmp_path / "q.jsonl"
    path.write_text(content)
    with pytest.raises(UsageError, match=words):
        read_queries(path)


def test_a_missing_file_of_queries_is_named(tmp_path: Path) -> None:
    with pytest.raises(NotFoundError, match="no such file"):
        read_queries(tmp_path / "none.jsonl")


def test_an_output_that_is_a_folder_is_refused_before_any_work(tmp_path: Path) -> None:
    with pytest.raises(StorageError, match="expected a file"):
        job.check_writable(tmp_path)
