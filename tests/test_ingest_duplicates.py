"""Documents that are alike: one of them is searched, and when it goes, another one takes its place."""

from __future__ import annotations

import json
import random
import tempfile
from itertools import combinations
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from ingest_runs import doc_ids, ingest, live, write_jsonl

from ray_jobs.corpus.sketch import shingles
from ray_jobs.errors import UsageError
from ray_jobs.index.verify import verify
from ray_jobs.ingest import compact_job, delete, job
from ray_jobs.ingest.compact_settings import CompactSettings
from ray_jobs.ingest.context import Run
from ray_jobs.ingest.delete import DeleteConfig
from ray_jobs.ingest.ledger import known_documents
from ray_jobs.models.embedder import EmbedderConfig, EmbedderIdentity
from ray_jobs.storage import LocalStorage

pytest_plugins = ["in_process"]
pytestmark = pytest.mark.usefixtures("in_process")

WORDS = [f"{a}{b}" for a in ("ker", "mol", "tas", "vin", "bru", "sel", "dor", "pim") for b in ("a", "eto", "ing", "ul")]
NEAR = {"deduplicate": {"mode": "near"}}
EXACT = {"deduplicate": {"mode": "exact"}}
Row = dict[str, object]


def text(seed: int, changed: int = 0) -> str:
    """A text of 60 words; those of one seed differ in the last `changed` ones."""
    words = random.Random(seed).choices(WORDS, k=60)
    return " ".join([*words[: 60 - changed], *random.Random(f"{seed}-{changed}").choices(WORDS, k=changed)])


def jaccard(one: str, other: str) -> float:
    own, others = set(shingles(f"\n{one}").tolist()), set(shingles(f"\n{other}").tolist())
    return len(own & others) / len(own | others)


def entries(folder: Path) -> dict[str, dict[str, Any]]:
    """What the ledger says of each document."""
    storage = LocalStorage(folder / "store")
    tables = [known_documents(storage, record) for record in live(folder).ledger]
    return {row["doc_id"]: row for table in tables for row in table.to_pylist()}


def remove(folder: Path, *ids: str) -> None:
    delete.run(DeleteConfig(ids=ids, index="test", store=str(folder / "store")))


def test_only_one_of_equal_and_of_near_documents_is_searched(tmp_path: Path) -> None:
    rows: list[Row] = [
        {"id": "a", "text": text(1)},
        {"id": "b", "text": text(1).upper() + "\n"},
        {"id": "c", "text": text(1, changed=3)},
        {"id": "d", "text": text(2)},
    ]
    assert jaccard(text(1), text(1, changed=3)) > 0.85
    source = write_jsonl(tmp_path / "a.jsonl", rows)
    exact = ingest(tmp_path, source, **EXACT)
    assert (doc_ids(tmp_path), exact.counts.duplicates) == (["a", "c", "d"], 1)
    near = ingest(tmp_path, source, **NEAR)
    assert (doc_ids(tmp_path), near.counts.duplicates) == (["a", "d"], 2)
    assert near.counts.check() == []
    assert entries(tmp_path)["b"]["duplicate_of"] == "a"
    assert [example[:2] for example in near.set_aside] == [("near-duplicate", "c"), ("same-content", "b")]
    off = ingest(tmp_path, source)
    assert (doc_ids(tmp_path), off.counts.duplicates) == (["a", "b", "c", "d"], 0)


def test_documents_that_differ_in_a_shared_column_are_no_duplicates(tmp_path: Path) -> None:
    rows: list[Row] = [
        {"id": f"{tenant}{n}", "text": text(1, changed=n), "tenant": tenant} for tenant in "ab" for n in (0, 2)
    ]
    source = write_jsonl(tmp_path / "a.jsonl", rows)
    ingest(tmp_path, source, deduplicate={"mode": "near", "within": ["tenant"]})
    assert doc_ids(tmp_path) == ["a0", "b0"]


def test_the_one_that_is_searched_stays_and_when_it_is_deleted_another_comes_in(tmp_path: Path) -> None:
    ingest(tmp_path, write_jsonl(tmp_path / "m.jsonl", [{"id": "m", "text": text(1)}]), **NEAR)
    rows: list[Row] = [{"id": name, "text": text(1, changed=n)} for n, name in enumerate("abc")]
    ingest(tmp_path, write_jsonl(tmp_path / "a.jsonl", rows), **NEAR)
    assert doc_ids(tmp_path) == ["m"]
    remove(tmp_path, "m")
    assert doc_ids(tmp_path) == ["a"]
    assert {name: row["duplicate_of"] for name, row in entries(tmp_path).items()} == {
        "a": None,
        "b": "a",
        "c": "a",
        "m": None,
    }
    remove(tmp_path, "b")
    assert doc_ids(tmp_path) == ["a"]
    remove(tmp_path, "a")
    assert doc_ids(tmp_path) == ["c"]
    assert live(tmp_path).counts.check() == []
    assert verify(LocalStorage(tmp_path / "store"), live(tmp_path)).problems == ()


def other_model(monkeypatch: pytest.MonkeyPatch, **differs: str) -> None:
    """The model that a deletion finds is not as it was in these respects."""
    choose = job.choose_embedder

    def chosen(run: Run) -> tuple[EmbedderConfig, EmbedderIdentity]:
        config, identity = choose(run)
        return config, identity.model_copy(update=differs)

    monkeypatch.setattr(job, "choose_embedder", chosen)


def test_a_duplicate_comes_in_by_the_model_of_the_index_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rows: list[Row] = [{"id": name, "text": text(1, changed=n)} for n, name in enumerate("ab")]
    ingest(tmp_path, write_jsonl(tmp_path / "a.jsonl", rows), **NEAR)
    before = live(tmp_path)
    with monkeypatch.context() as patch:
        other_model(patch, revision="another")
        with pytest.raises(UsageError, match="revision='another'"):
            remove(tmp_path, "a")
    assert live(tmp_path) == before
    other_model(monkeypatch, precision="another")
    remove(tmp_path, "a")
    assert doc_ids(tmp_path) == ["b"]
    assert live(tmp_path).embedder == before.embedder


def test_a_document_that_changes_gives_way_to_its_duplicate(tmp_path: Path) -> None:
    rows: list[Row] = [{"id": "a", "text": text(1)}, {"id": "b", "text": text(1, changed=2)}]
    source = write_jsonl(tmp_path / "a.jsonl", rows)
    ingest(tmp_path, source, **NEAR)
    assert doc_ids(tmp_path) == ["a"]
    write_jsonl(source, [{"id": "a", "text": text(3)}, rows[1]])
    ingest(tmp_path, source, **NEAR)
    assert doc_ids(tmp_path) == ["a", "b"]
    write_jsonl(source, [{"id": "a", "text": text(1)}, rows[1]])
    ingest(tmp_path, source, **NEAR)
    assert doc_ids(tmp_path) == ["b"]


def test_a_document_that_does_not_fit_stands_for_none(tmp_path: Path) -> None:
    rows: list[Row] = [{"id": "z", "text": text(9), "year": 1}]
    ingest(tmp_path, write_jsonl(tmp_path / "z.jsonl", rows), **NEAR)
    more: list[Row] = [{"id": "a", "text": text(1), "year": "never"}, {"id": "b", "text": text(1), "year": 2}]
    ingest(tmp_path, write_jsonl(tmp_path / "a.jsonl", more), max_failed=1.0, **NEAR)
    assert doc_ids(tmp_path) == ["b", "z"]


def test_filtered_documents_stay_in_the_ledger_and_pass_when_the_rules_change(tmp_path: Path) -> None:
    rows: list[Row] = [{"id": "long", "text": text(1)}, {"id": "short", "text": "Few words."}]
    source = write_jsonl(tmp_path / "a.jsonl", rows)
    strict = ingest(tmp_path, source, filters={"min_words": 5})
    assert (doc_ids(tmp_path), strict.counts.filtered) == (["long"], {"too-short": 1})
    assert strict.set_aside == (("too-short", "short", "Few words."),)
    more = write_jsonl(tmp_path / "b.jsonl", [{"id": "other", "text": text(2)}, {"id": "tiny", "text": "One."}])
    again = ingest(tmp_path, more, filters={"min_words": 5})
    assert (again.counts.filtered, again.counts.kept, again.counts.check()) == ({"too-short": 2}, 2, [])
    assert ingest(tmp_path, more, filters={"min_words": 2}).counts.filtered == {"too-short": 1}
    assert doc_ids(tmp_path) == ["long", "other", "short"]


corpora = st.dictionaries(
    st.sampled_from("ab"),
    st.dictionaries(st.sampled_from("pqrstu"), st.tuples(st.integers(0, 2), st.sampled_from([0, 0, 2])), max_size=4),
    min_size=1,
    max_size=2,
)
Corpus = dict[str, dict[str, tuple[int, int]]]


@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(steps=st.lists(st.tuples(corpora, st.booleans()), min_size=1, max_size=3))
def test_after_any_history_one_of_each_kind_is_searched_and_every_other_has_one_that_stands_for_it(
    steps: list[tuple[Corpus, bool]],
) -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        source = folder / "corpus"
        source.mkdir()
        now: dict[str, str] = {}
        for corpus, compacts in steps:
            for path in source.iterdir():
                path.unlink()
            corpus = {**corpus, "z": {"always": (7, 0)}}
            now = {}
            for file, documents in sorted(corpus.items()):
                rows = [{"id": f"{file}{own}", "text": text(*drawn)} for own, drawn in documents.items()]
                (source / f"{file}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
                now |= {f"{file}{own}": text(*drawn) for own, drawn in documents.items()}
            summary = ingest(folder, source, prune=True, **NEAR)
            if summary.outcome == "published":
                assert summary.counts.check() == []
            if compacts:
                compact_job.run(LocalStorage(folder / "store"), "test", CompactSettings(max_dead=0.0))
            _check_state(folder, now)


def _check_state(folder: Path, now: dict[str, str]) -> None:
    known = entries(folder)
    searched = set(doc_ids(folder))
    assert known.keys() == now.keys()
    assert searched == {name for name, row in known.items() if row["status"] == "indexed"}
    assert not any(jaccard(now[one], now[other]) > 0.85 for one, other in combinations(sorted(searched), 2))
    for name, row in known.items():
        if row["status"] == "duplicate":
            assert row["duplicate_of"] in searched
            assert jaccard(now[name], now[row["duplicate_of"]]) > 0.7
    assert verify(LocalStorage(folder / "store"), live(folder)).problems == ()
