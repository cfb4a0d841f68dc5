"""Mined sets of a small index, without Ray: queries of several positives, and what the card lists."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from small_index import SmallDocument, build_index

from ray_jobs.index.manifest import commit
from ray_jobs.storage import LocalStorage
from ray_jobs.train import negatives, prepare
from ray_jobs.train.data import writing
from ray_jobs.train.data.config import PrepareConfig
from ray_jobs.train.data.mine_config import MineConfig
from ray_jobs.train.data.prepared import Prepared

pytest_plugins = ["in_process"]
pytestmark = pytest.mark.usefixtures("in_process")

QUERIES = 40


def words(*numbers: int) -> list[str]:
    return [f"w{hashlib.sha256(str(number).encode()).hexdigest()[:10]}" for number in numbers]


def query(number: int) -> str:
    return " ".join(words(*range(10 * number, 10 * number + 8)))


def passage(number: int, shared: int, name: str) -> str:
    """A text that holds so many words of a query, among many that no other text has."""
    own = [int(hashlib.sha256(f"{name} {number} {n}".encode()).hexdigest()[:9], 16) for n in range(30)]
    return " ".join([*query(number).split()[:shared], *words(*own)])


def store_of(folder: Path, rows: list[dict[str, object]], **settings: object) -> str:
    """A store with an index of passages that are near queries, and prepared rows."""
    storage = LocalStorage(folder / "store")
    texts = {f"{name}{n}": passage(n, 5, name) for n in range(QUERIES) for name in ("near", "also")}
    texts |= {f"half{n}": passage(n, 4, "half") for n in range(QUERIES)}
    documents = [SmallDocument(doc_id, [(text, [1.0] * 8)]) for doc_id, text in texts.items()]
    commit(storage, build_index(storage, folder / "build", documents, 2))
    source = folder / "rows.jsonl"
    source.write_text("".join(json.dumps(row) + "\n" for row in rows))
    split = {"train": 0.4, "validation": 0.3, "test": 0.3}
    config = {"inputs": [str(source)], "name": "rows", "store": str(folder / "store"), "split": split, **settings}
    prepare.run(PrepareConfig.model_validate(config))
    return str(folder / "store")


def mine(store: str, **settings: object) -> Prepared:
    config = {"data": "rows", "index": "small", "name": "mined", "store": store, "search": {"mode": "lexical"}}
    return negatives.run(MineConfig.model_validate({**config, **settings})).prepared


def rows_of(prepared: Prepared) -> dict[str, list[dict[str, object]]]:
    assert prepared.card.check() == []
    return {name: pq.read_table(path).to_pylist() for name, path in prepared.splits().items()}


def test_with_a_reranker_the_lowest_of_all_positives_counts_wherever_their_rows_are(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(writing, "ROWS_A_GROUP", 16)
    rows: list[dict[str, object]] = [
        {"query": query(n), "positive": passage(n, shared, f"with {shared}")}
        for n in range(QUERIES)
        for shared in (7, 6, 4)
    ]
    reranker = {"reranker": "fake", "reranker_options": {"engine": "fake"}}
    store = store_of(tmp_path, rows, keep_leaks=True)
    mined = mine(store, texts="data", absolute_margin=0.0, block_queries=7, **reranker)
    for found in rows_of(mined).values():
        for row in found:
            # What holds five words of the query scores less than two of its positives, and more than the third.
            assert row["negative_ids"] == [f"half{(int(str(row['row'])) - 1) // 3}"]
    record = mined.card.mining
    assert record is not None
    assert record.total.skipped == {"absolute-margin": 2 * len(rows)}
    assert record.total.positive.mean == pytest.approx(4 / 8)


@pytest.mark.parametrize("kind", ["retrieval", "qa"])
def test_what_shares_no_document_with_training_is_listed_by_the_ids_of_the_mined_rows(
    tmp_path: Path, kind: str
) -> None:
    # Each passage is asked for by two rows, which are of different groups.
    texts = [passage(n // 2, 7, "right") for n in range(QUERIES)]
    rows: list[dict[str, object]] = [
        {"query": query(n), "positive": texts[n], "doc_id": f"d{n}"}
        if kind == "retrieval"
        else {"question": query(n), "passage": texts[n], "answers": texts[n].split()[-1:], "doc_id": f"d{n}"}
        for n in range(QUERIES)
    ]
    mined = mine(store_of(tmp_path, rows, source_column="doc_id"), texts="data", output_kind=kind)
    found = rows_of(mined)
    name = "positive" if kind == "retrieval" else "passage"
    trained = {row[name] for row in found["train"] if row[name] in texts}
    for shared in mined.card.shared_documents:
        apart = [row["id"] for row in found[shared.place] if row[name] in texts and row[name] not in trained]
        assert list(shared.disjoint) == apart
        assert apart
    assert [shared.place for shared in mined.card.shared_documents] == ["validation", "test"]


def test_what_is_mined_as_before_keeps_its_hash() -> None:
    config = MineConfig(data="d", index="i", name="n")
    assert config.content_hash("0" * 32, ("i", 1, "job"), None) == "0b72bd7cd2efe15374d76bf1c1f42eaa"
