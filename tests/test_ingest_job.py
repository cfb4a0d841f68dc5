"""The ingest job on a real Ray cluster: exactly once, all or nothing, nothing lost silently."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from ingest_runs import all_rows, article, doc_ids, ingest, live, write_jsonl

from ray_jobs.errors import ConflictError, NotFoundError, RejectedError, UsageError
from ray_jobs.index import manifest
from ray_jobs.index.manifest import Manifest
from ray_jobs.index.search import SearchConfig
from ray_jobs.index.snapshot import Snapshot
from ray_jobs.ingest import outcome
from ray_jobs.models.for_queries import load_for_queries
from ray_jobs.storage import LocalStorage, open_storage

pytestmark = pytest.mark.usefixtures("ray_session")


def test_the_same_input_gives_the_same_rows_and_vectors_however_it_is_divided(tmp_path: Path) -> None:
    source = write_jsonl(tmp_path / "a.jsonl", [article(n, year=2000 + n % 3) for n in range(200)])
    ingest(tmp_path, source, shards=1, store=str(tmp_path / "one"))
    ingest(tmp_path, source, shards=5, group_bytes=8192, store=str(tmp_path / "many"))
    one, many = all_rows(tmp_path, "one"), all_rows(tmp_path, "many")
    assert len(one) > 400
    assert one == many
    assert len(manifest.read_live(LocalStorage(tmp_path / "many"), "test").shards) == 5


def test_every_row_cuts_its_text_from_the_stored_document(tmp_path: Path) -> None:
    ingest(tmp_path, write_jsonl(tmp_path / "a.jsonl", [article(n) for n in range(80)]))
    storage = LocalStorage(tmp_path / "store")
    stored = {}
    for record in live(tmp_path).documents:
        stored.update({row["doc_id"]: row["text"] for row in pq.read_table(storage.local(record.key)).to_pylist()})
    rows = all_rows(tmp_path)
    assert rows
    for row in rows:
        assert row["text"] == stored[row["doc_id"]][row["start"] : row["end"]]


def test_both_sums_hold_and_every_failure_has_its_reason(tmp_path: Path) -> None:
    folder = tmp_path / "mixed"
    folder.mkdir()
    write_jsonl(folder / "rows.jsonl", [article(n) for n in range(1, 30)] + [{"id": "blank", "text": "  "}])
    with (folder / "rows.jsonl").open("a") as file:
        file.write("this is not JSON\n")
        file.write(json.dumps(article(3)) + "\n")
        file.write(json.dumps({**article(4), "text": "another text under a taken id"}) + "\n")
    (folder / "note.txt").write_text("A short note on shards.")
    (folder / "picture.xyz").write_bytes(bytes(range(256)))
    summary = ingest(tmp_path, folder, max_failed=0.2)
    counts = summary.counts
    assert counts.check() == []
    assert (counts.sources, counts.read, counts.sources_failed) == (3, 2, 1)
    assert (counts.documents, counts.indexed, counts.empty, counts.duplicates, counts.failed) == (34, 30, 1, 1, 2)
    assert summary.reasons == {"bad-json": 1, "duplicate-id": 1, "unknown-format": 1}
    storage = LocalStorage(tmp_path / "store")
    letters = [
        row for record in live(tmp_path).dead_letters for row in pq.read_table(storage.local(record.key)).to_pylist()
    ]
    assert {row["reason"] for row in letters} == set(summary.reasons)


def test_the_same_inputs_again_embed_nothing_and_publish_nothing(tmp_path: Path) -> None:
    source = write_jsonl(tmp_path / "a.jsonl", [article(n) for n in range(20)])
    assert ingest(tmp_path, source).outcome == "published"
    again = ingest(tmp_path, source)
    assert (again.outcome, again.snapshot, again.counts.unchanged) == ("unchanged", 1, 1)
    source.touch()
    touched = ingest(tmp_path, source)
    assert (touched.outcome, touched.snapshot) == ("unchanged", 1)


def test_changed_inputs_are_rebuilt_and_the_old_snapshot_can_still_be_read(tmp_path: Path) -> None:
    source = write_jsonl(tmp_path / "a.jsonl", [article(n) for n in range(1, 20)])
    ingest(tmp_path, source)
    write_jsonl(
        source,
        [article(n) for n in range(1, 10)] + [{"id": "new", "text": "new words"}],
    )
    summary = ingest(tmp_path, source)
    assert (summary.outcome, summary.snapshot) == ("published", 2)
    assert "new" in doc_ids(tmp_path)
    old = Snapshot.open(LocalStorage(tmp_path / "store"), "test", 1)
    assert old.manifest.counts.indexed == 19


def test_a_replaced_document_does_not_come_back(tmp_path: Path) -> None:
    source = write_jsonl(tmp_path / "a.jsonl", [{"id": "x", "text": "the old zebra"}, {"id": "y", "text": "stays"}])
    ingest(tmp_path, source)
    write_jsonl(source, [{"id": "x", "text": "the new tiger"}, {"id": "y", "text": "stays"}])
    summary = ingest(tmp_path, source)
    assert summary.counts.check() == []
    assert [row["text"] for row in all_rows(tmp_path)] == ["the new tiger", "stays"]


def test_other_sources_are_left_alone_and_prune_removes_only_what_vanished(tmp_path: Path) -> None:
    first = write_jsonl(tmp_path / "first.jsonl", [{"id": "f1", "text": "one"}, {"id": "f2", "text": "two"}])
    second = write_jsonl(tmp_path / "second.jsonl", [{"id": "s1", "text": "three"}])
    ingest(tmp_path, first)
    summary = ingest(tmp_path, second)
    assert doc_ids(tmp_path) == ["f1", "f2", "s1"]
    assert (summary.counts.kept, summary.counts.documents, summary.counts.check()) == (2, 3, [])
    write_jsonl(first, [{"id": "f2", "text": "two"}])
    ingest(tmp_path, first)
    assert doc_ids(tmp_path) == ["f1", "f2", "s1"]
    write_jsonl(first, [{"id": "f2", "text": "two, changed"}])
    summary = ingest(tmp_path, first, prune=True)
    assert doc_ids(tmp_path) == ["f2", "s1"]
    assert summary.counts.check() == []


def test_too_many_failures_publish_nothing_and_name_the_first(tmp_path: Path) -> None:
    source = write_jsonl(tmp_path / "a.jsonl", [article(n) for n in range(1, 10)])
    ingest(tmp_path, source)
    with source.open("a") as file:
        file.write("{broken\n")
    with pytest.raises(
        RejectedError, match=r"max_failed=0.01: 1 of 10 documents failed \(1 bad-json\), first: a.jsonl"
    ):
        ingest(tmp_path, source)
    assert live(tmp_path).number == 1


def test_a_corpus_without_text_publishes_nothing(tmp_path: Path) -> None:
    source = write_jsonl(tmp_path / "a.jsonl", [{"id": "x", "text": ""}])
    with pytest.raises(RejectedError, match="none of the sources has any text"):
        ingest(tmp_path, source)
    with pytest.raises(NotFoundError):
        live(tmp_path)


def test_a_run_that_loses_the_race_says_so_and_the_winner_stays_live(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = write_jsonl(tmp_path / "a.jsonl", [article(n) for n in range(1, 10)])
    real = outcome.make_manifest

    def overtaken(*arguments: object) -> Manifest:
        made = real(*arguments)
        manifest.commit(open_storage(str(tmp_path / "store")), made.model_copy(update={"config": {"winner": True}}))
        return made

    monkeypatch.setattr(outcome, "make_manifest", overtaken)
    with pytest.raises(ConflictError, match="snapshot 1 was published by another run"):
        ingest(tmp_path, source)
    assert live(tmp_path).config == {"winner": True}


def test_a_failed_run_keeps_what_it_has_finished_and_a_finished_one_nothing(tmp_path: Path) -> None:
    source = write_jsonl(tmp_path / "a.jsonl", [article(n) for n in range(300)])
    with pytest.raises(RejectedError):
        ingest(tmp_path, source, index_type="PQ1x2", recall_target=1.0)
    storage = LocalStorage(tmp_path / "store")
    assert list(storage.list("indexes/test/work"))
    found = ingest(tmp_path, source).found
    assert found["groups read"] == found["groups embedded"] > 1
    assert list(storage.list("indexes/test/work")) == list(storage.list("indexes/test/leases")) == []
    left = {item.key.rsplit("/", 1)[1] for item in storage.list("runs")}
    assert left == {"config.json", "events.jsonl", "metrics.json", "report.html"}
    assert list((tmp_path / "store" / ".scratch").iterdir()) == []


def test_sources_that_failed_are_read_again_and_the_others_are_not(tmp_path: Path) -> None:
    folder = tmp_path / "many"
    folder.mkdir()
    for part in range(3):
        write_jsonl(folder / f"{part}.jsonl", [article(n) for n in range(100 * part, 100 * part + 59)])
    with (folder / "1.jsonl").open("a") as file:
        file.write("{broken\n")
    with pytest.raises(RejectedError):
        ingest(tmp_path, folder, group_bytes=200_000, max_failed=0)
    found = ingest(tmp_path, folder, group_bytes=200_000, max_failed=0.1).found
    assert found == {"groups read": 2}


def test_metadata_is_typed_by_what_was_seen_or_as_the_user_says(tmp_path: Path) -> None:
    rows = [article(n, year=2000 + n, score=n if n % 2 else n / 2, tags=["x", "y"]) for n in range(1, 10)]
    ingest(tmp_path, write_jsonl(tmp_path / "a.jsonl", rows))
    assert live(tmp_path).metadata == {"score": "float", "tags": "list<string>", "year": "int"}
    ingest(tmp_path, tmp_path / "a.jsonl", metadata={"year": "string"})
    assert live(tmp_path).metadata["year"] == "string"
    with pytest.raises(
        UsageError, match=r"metadata\.yaer: no document has this column; expected one of score, tags, year"
    ):
        ingest(tmp_path, tmp_path / "a.jsonl", metadata={"yaer": "string"})


def test_a_value_that_does_not_fit_its_column_is_a_dead_letter_not_a_null(tmp_path: Path) -> None:
    rows = [article(n, year=2000 + n) for n in range(1, 10)] + [article(11, year="unknown")]
    summary = ingest(tmp_path, write_jsonl(tmp_path / "a.jsonl", rows), metadata={"year": "int"}, max_failed=0.5)
    assert summary.reasons == {"misfit": 1}
    assert "a11" not in doc_ids(tmp_path)
    assert all(row["metadata"]["year"] is not None for row in all_rows(tmp_path))


def test_an_approximate_index_is_published_with_its_measured_recall(tmp_path: Path) -> None:
    source = write_jsonl(tmp_path / "a.jsonl", [article(n) for n in range(300)])
    summary = ingest(tmp_path, source, index_type="IVF16,SQ8", shards=3, recall_target=0.9)
    assert summary.recall is not None
    assert summary.recall.recall >= 0.9
    assert 1 <= live(tmp_path).template.nprobe <= 16
    snapshot = Snapshot.open(LocalStorage(tmp_path / "store"), "test")
    embedder = load_for_queries(None, snapshot.manifest.embedder)
    (hits,) = snapshot.search(["topic3 thing5"], SearchConfig(k=5), embedder)
    assert len(hits) == 5


def test_recall_below_its_target_publishes_nothing(tmp_path: Path) -> None:
    source = write_jsonl(tmp_path / "a.jsonl", [article(n) for n in range(300)])
    with pytest.raises(RejectedError, match=r"recall_target=1.0: index_type=PQ1x2 reaches recall@10 0\.\d+ at most"):
        ingest(tmp_path, source, index_type="PQ1x2", recall_target=1.0)


def test_vectors_are_those_of_the_embedder(tmp_path: Path) -> None:
    ingest(tmp_path, write_jsonl(tmp_path / "a.jsonl", [{"id": "x", "title": "T", "text": "some words"}]))
    embedder = load_for_queries(None, live(tmp_path).embedder)
    (row,) = all_rows(tmp_path)
    expected = embedder.encode_documents(["T\nsome words"])[0].astype(np.float16)
    assert np.frombuffer(row["vector"], np.float16).tolist() == expected.tolist()
