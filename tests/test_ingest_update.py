"""An ingest over a snapshot: only what is new or has changed is embedded, and the result is that of a fresh ingest."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from ingest_runs import all_rows, article, doc_ids, ingest, live, write_jsonl

from ray_jobs.index.search import SearchConfig
from ray_jobs.index.snapshot import Snapshot
from ray_jobs.index.verify import verify
from ray_jobs.ingest import job
from ray_jobs.ingest.embed import GroupEmbedder
from ray_jobs.models.for_queries import load_for_queries
from ray_jobs.storage import LocalStorage

pytest_plugins = ["in_process"]
pytestmark = pytest.mark.usefixtures("in_process")

Corpus = dict[str, dict[str, int]]  # by file, by document: which text it has

texts = st.integers(0, 3)
corpora = st.dictionaries(
    st.sampled_from("abc"), st.dictionaries(st.sampled_from("pqrstu"), texts, max_size=4), min_size=1, max_size=3
)


def distinct(corpus: Corpus) -> Corpus:
    """Each document in one file alone: the first that has it."""
    taken: set[str] = set()
    found: Corpus = {}
    for file in sorted(corpus):
        found[file] = {name: text for name, text in corpus[file].items() if name not in taken}
        taken |= found[file].keys()
    return found


def lay_out(folder: Path, corpus: Corpus) -> Path:
    """Write the files of a corpus and take away those that it lacks."""
    source = folder / "corpus"
    source.mkdir(exist_ok=True)
    for path in source.iterdir():
        if path.stem not in corpus:
            path.unlink()
    for file, documents in corpus.items():
        content = "".join(
            json.dumps({"id": name, "text": f"Text {text} of {name}, " * (1 + 20 * (text % 2)), "year": text}) + "\n"
            for name, text in documents.items()
        )
        path = source / f"{file}.jsonl"
        if not path.exists() or path.read_text() != content:
            path.write_text(content)
    return source


def embedded_texts(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Ids of the documents that are embedded from now on."""
    found: list[str] = []
    real = GroupEmbedder._embed

    def embed(self: GroupEmbedder, prepared: Any) -> Any:
        found.extend(document.doc_id for document, _ in prepared.kept)
        return real(self, prepared)

    monkeypatch.setattr(GroupEmbedder, "_embed", embed)
    return found


def answers(folder: Path) -> list[list[tuple[str, float]]]:
    snapshot = Snapshot.open(LocalStorage(folder / "store"), "test")
    embedder = load_for_queries(None, snapshot.manifest.embedder)
    hits = snapshot.search(["Text 2 of q", "Text 1", "of s"], SearchConfig(k=4), embedder)
    return [[(hit.doc_id, hit.score) for hit in own] for own in hits]


@settings(max_examples=20, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(steps=st.lists(corpora, min_size=2, max_size=4))
def test_with_prune_any_history_ends_as_a_fresh_ingest_and_embeds_only_what_changed(
    steps: list[Corpus], monkeypatch: pytest.MonkeyPatch
) -> None:
    with tempfile.TemporaryDirectory() as name, monkeypatch.context() as patched:
        folder, embedded = Path(name), embedded_texts(patched)
        before: dict[str, tuple[str, int]] = {}
        for corpus in map(distinct, steps):
            corpus = {**corpus, "z": {"always": 1}}
            embedded.clear()
            source = lay_out(folder, corpus)
            counts = ingest(folder, source, prune=True).counts
            now = {name: (file, text) for file, own in sorted(corpus.items()) for name, text in own.items()}
            assert sorted(embedded) == sorted(name for name, place in now.items() if before.get(name) != place)
            assert counts.check() == []
            assert doc_ids(folder) == sorted(now)
            before = now
        incremental, answered = all_rows(folder), answers(folder)
        assert verify(LocalStorage(folder / "store"), live(folder)).problems == ()
        with tempfile.TemporaryDirectory() as other:
            ingest(Path(other), lay_out(Path(other), corpus))
            assert all_rows(Path(other)) == incremental
            assert answers(Path(other)) == answered


def test_without_prune_what_vanished_stays_and_comes_back_unembedded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ingest(tmp_path, lay_out(tmp_path, {"a": {"p": 1, "q": 1}, "b": {"r": 1}}))
    embedded = embedded_texts(monkeypatch)
    ingest(tmp_path, lay_out(tmp_path, {"a": {"p": 2}}))
    assert (embedded, doc_ids(tmp_path)) == (["p"], ["p", "q", "r"])
    assert ingest(tmp_path, lay_out(tmp_path, {"a": {"p": 2}, "c": {"s": 0}})).counts.kept == 3
    assert embedded == ["p", "s"]
    assert len(live(tmp_path).shards) == 3
    assert live(tmp_path).dead_rows > 0


def test_unchanged_files_start_no_ray_and_are_not_opened(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "many"
    folder.mkdir()
    for number in range(50):
        (folder / f"{number}.txt").write_text(f"Note {number}.")
    ingest(tmp_path, folder)

    def never(*given: object) -> None:
        raise AssertionError("Ray was started")

    monkeypatch.setattr(job, "session", never)
    again = ingest(tmp_path, folder)
    assert (again.outcome, again.counts.sources, again.counts.unchanged) == ("unchanged", 50, 50)


def test_touched_files_are_read_and_not_embedded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = write_jsonl(tmp_path / "a.jsonl", [article(n) for n in range(1, 30)])
    ingest(tmp_path, source)
    embedded = embedded_texts(monkeypatch)
    source.touch()
    assert (ingest(tmp_path, source).outcome, embedded) == ("unchanged", [])


def test_what_cannot_be_read_any_more_is_not_removed(tmp_path: Path) -> None:
    source = lay_out(tmp_path, {"a": {"p": 1, "q": 1}, "b": {"r": 1}, "c": {"s": 1}})
    ingest(tmp_path, source)
    (source / "a.jsonl").write_text("{broken\n" + (source / "a.jsonl").read_text().splitlines()[1] + "\n")
    (source / "b.jsonl").unlink()
    counts = ingest(tmp_path, source, prune=True, max_failed=1).counts
    assert doc_ids(tmp_path) == ["p", "q", "s"]
    assert counts.check() == []
    lay_out(tmp_path, {"a": {"q": 1}, "c": {"s": 1}})
    ingest(tmp_path, source, prune=True)
    assert doc_ids(tmp_path) == ["q", "s"]
    assert live(tmp_path).dead_letters == ()


def test_a_document_that_moves_to_another_file_outlives_the_first_one(tmp_path: Path) -> None:
    source = lay_out(tmp_path, {"a": {"p": 1}, "b": {"q": 1}})
    ingest(tmp_path, source)
    lay_out(tmp_path, {"b": {"q": 1}, "c": {"p": 1}})
    ingest(tmp_path, source, prune=True)
    assert doc_ids(tmp_path) == ["p", "q"]
    assert {(row["doc_id"], row["source"]) for row in all_rows(tmp_path)} == {
        ("p", "corpus/c.jsonl"),
        ("q", "corpus/b.jsonl"),
    }


@pytest.mark.parametrize(
    "changed",
    [{"chunking": {"max_tokens": 32, "overlap_tokens": 4, "min_tokens": 8}}, {"language": "german"}, {"retrain": True}],
    ids=["chunking", "language", "retrain"],
)
def test_with_another_configuration_all_rows_are_made_anew_from_the_stored_text(
    tmp_path: Path, changed: dict[str, object]
) -> None:
    source = lay_out(tmp_path, {"a": {"p": 1, "q": 3}, "b": {"r": 1}})
    ingest(tmp_path, source)
    lay_out(tmp_path, {"a": {"p": 1, "q": 2}})
    ingest(tmp_path, source)
    summary = ingest(tmp_path, source, **changed)
    assert (summary.outcome, summary.counts.kept, live(tmp_path).dead_rows) == ("published", 3, 0)
    with tempfile.TemporaryDirectory() as other:
        fresh = lay_out(Path(other), {"a": {"p": 1, "q": 2}, "b": {"r": 1}})
        ingest(Path(other), fresh, **changed)
        assert all_rows(tmp_path) == all_rows(Path(other))


def test_columns_keep_their_types_and_a_value_that_does_not_fit_is_a_dead_letter(tmp_path: Path) -> None:
    ingest(tmp_path, write_jsonl(tmp_path / "a.jsonl", [{"id": "x", "text": "one", "year": 2000}]))
    more = [{"id": "y", "text": "two", "year": "unknown"}, {"id": "z", "text": "three", "year": 2001, "new": "n"}]
    summary = ingest(tmp_path, write_jsonl(tmp_path / "b.jsonl", more), max_failed=0.5)
    assert live(tmp_path).metadata == {"new": "string", "year": "int"}
    assert (doc_ids(tmp_path), summary.reasons) == (["x", "z"], {"misfit": 1})
    snapshot = Snapshot.open(LocalStorage(tmp_path / "store"), "test")
    config = SearchConfig(mode="lexical", where="exists new or year = 2000")
    [hits] = snapshot.search(["one three"], config, None)
    assert {hit.doc_id for hit in hits} == {"x", "z"}


def test_a_corpus_that_drifts_from_its_template_is_told_how_to_train_it(tmp_path: Path) -> None:
    from ray_jobs.errors import RejectedError

    first = write_jsonl(tmp_path / "a.jsonl", [article(n) for n in range(100)])
    ingest(tmp_path, first, index_type="PQ4x4", recall_target=0.01)
    more = write_jsonl(tmp_path / "b.jsonl", [article(n) for n in range(100, 300)])
    with pytest.raises(RejectedError, match=r"recall_target=1\.0: .* train it on what there is now with --retrain"):
        ingest(tmp_path, more, index_type="PQ4x4", recall_target=1.0)
    assert live(tmp_path).number == 1
