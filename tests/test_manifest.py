"""Invariant 2: a snapshot is all or nothing, and creating its manifest is the commit."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest
from small_index import SmallDocument, VectorEmbedder, build_index

from ray_jobs.errors import ConflictError, CorruptError, NotFoundError, StorageError, UsageError
from ray_jobs.index import layout
from ray_jobs.index.manifest import Counts, Manifest, commit, names, numbers, read, read_live
from ray_jobs.index.search import SearchConfig
from ray_jobs.index.snapshot import Snapshot
from ray_jobs.index.verify import verify
from ray_jobs.storage import LocalStorage

OLD = [SmallDocument("old", [("old words", [1.0, 0.0])])]
NEW = [SmallDocument("new", [("new words", [0.0, 1.0])]), SmallDocument("other", [("other words", [1.0, 1.0])])]


class Crash(Exception):
    """The process dies here."""


class CrashingStorage(LocalStorage):
    """Dies before its n-th write."""

    def __init__(self, root: Path, survives: int) -> None:
        super().__init__(root)
        self.left = survives

    def _spend(self) -> None:
        if self.left == 0:
            raise Crash
        self.left -= 1

    def create(self, key: str, data: bytes) -> None:
        self._spend()
        super().create(key, data)

    def upload(self, key: str, path: Path) -> None:
        self._spend()
        super().upload(key, path)


@pytest.fixture
def storage(tmp_path: Path) -> LocalStorage:
    storage = LocalStorage(tmp_path / "store")
    commit(storage, build_index(storage, tmp_path / "build", OLD, 1))
    return storage


def live_documents(storage: LocalStorage) -> list[str]:
    (hits,) = Snapshot.open(storage, "small").search(["1 1"], SearchConfig(mode="dense"), VectorEmbedder(2))
    return sorted(hit.doc_id for hit in hits)


def test_a_crash_before_any_write_of_a_build_leaves_the_old_snapshot_live(
    storage: LocalStorage, tmp_path: Path
) -> None:
    published = False
    for survives in range(40):
        crashing = CrashingStorage(storage.root, survives)
        try:
            commit(crashing, build_index(crashing, tmp_path / f"b{survives}", NEW, 2, number=2, name="small"))
            published = True
        except Crash:
            assert live_documents(storage) == ["old"]
            assert numbers(storage, "small") == [1]
            for leftover in list(storage.list("indexes/small/shards")):
                if "/2-2-" in leftover.key:
                    storage.delete(leftover.key)
        if published:
            break
    assert published
    assert survives > 10
    assert live_documents(storage) == ["new", "other"]
    assert read(storage, "small", 1).number == 1


def test_of_two_runs_racing_for_one_number_one_wins_and_the_other_says_so(
    storage: LocalStorage, tmp_path: Path
) -> None:
    second = build_index(storage, tmp_path / "b2", NEW, 2, number=2)
    third = second.model_copy(update={"shards": second.shards[:1]})
    outcomes: list[str] = []
    barrier = threading.Barrier(2)

    def publish(manifest: Manifest) -> None:
        barrier.wait()
        try:
            commit(storage, manifest)
            outcomes.append("won")
        except ConflictError as error:
            outcomes.append("lost" if "was published by another run" in str(error) else str(error))

    threads = [threading.Thread(target=publish, args=(item,)) for item in (second, third)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(outcomes) == ["lost", "won"]
    assert read_live(storage, "small").number == 2


def test_an_open_snapshot_stays_as_it_was_when_a_new_one_is_published(storage: LocalStorage, tmp_path: Path) -> None:
    before = Snapshot.open(storage, "small")
    commit(storage, build_index(storage, tmp_path / "b2", NEW, 2, number=2))
    (hits,) = before.search(["1 1"], SearchConfig(mode="dense"), VectorEmbedder(2))
    assert [hit.doc_id for hit in hits] == ["old"]
    assert live_documents(storage) == ["new", "other"]


def test_the_manifest_survives_json_unchanged(storage: LocalStorage) -> None:
    manifest = read_live(storage, "small")
    assert Manifest.model_validate_json(manifest.model_dump_json()) == manifest


def test_an_unknown_index_names_those_that_exist(storage: LocalStorage) -> None:
    assert names(storage) == ["small"]
    with pytest.raises(NotFoundError, match=r"index=large: no such index .*it has: small"):
        read_live(storage, "large")


def test_a_manifest_that_is_cut_off_or_of_another_format_is_refused_with_its_place(storage: LocalStorage) -> None:
    path = storage.root / layout.manifest("small", 1)
    whole = path.read_text()
    for broken, told in (
        (whole[:100], "not a manifest of format 2: the whole file"),
        (whole.replace('"format_version": 2', '"format_version": "x"'), "not a manifest of format 2: format_version"),
        (whole.replace('"format_version": 2', '"format_version": 1'), "is of format 1, .* reads format 2; use the"),
    ):
        path.write_text(broken)
        with pytest.raises(CorruptError, match=told):
            read_live(storage, "small")


@pytest.mark.parametrize("name", ["vectors.faiss", "vectors.f16", "rows.arrow", "postings/rows.i32"])
def test_verify_finds_one_flipped_byte_in_any_file(storage: LocalStorage, name: str) -> None:
    manifest = read_live(storage, "small")
    path = storage.root / manifest.shards[0].files[name].key
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 0xFF
    path.write_bytes(bytes(data))
    (problem,) = verify(storage, manifest).problems
    assert name in problem
    assert "sha256" in problem


@pytest.mark.parametrize("name", ["vectors.faiss", "vectors.f16", "rows.arrow", "postings/terms.arrow"])
def test_a_truncated_file_is_refused_at_open_with_both_sizes(storage: LocalStorage, name: str) -> None:
    record = read_live(storage, "small").shards[0].files[name]
    path = storage.root / record.key
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(CorruptError, match=f"{record.size - 1} bytes, the manifest says {record.size}"):
        Snapshot.open(storage, "small")


@pytest.mark.parametrize("name", ["vectors.faiss", "vectors.f16", "rows.arrow", "postings/rows.i32"])
def test_a_flipped_byte_is_refused_at_open_even_after_an_open_that_was_fine(storage: LocalStorage, name: str) -> None:
    Snapshot.open(storage, "small")
    path = storage.root / read_live(storage, "small").shards[0].files[name].key
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 0xFF
    path.write_bytes(bytes(data))
    with pytest.raises(CorruptError, match=f"{name}: content differs from its sha256"):
        Snapshot.open(storage, "small")


def test_an_intact_snapshot_verifies(storage: LocalStorage) -> None:
    result = verify(storage, read_live(storage, "small"))
    assert result.problems == ()
    assert result.rows == 1


def test_counts_that_do_not_add_up_are_named() -> None:
    assert Counts(sources=2, read=1, sources_failed=1, documents=3, indexed=1, empty=1, failed=1).check() == []
    lost = Counts(sources=2, read=1, documents=3, indexed=1).check()
    assert [problem.split(" != ")[0] for problem in lost] == ["sources listed 2", "documents produced 3"]


@pytest.mark.parametrize("name", ["", "a/b", "..", "-x", "a b", "x" * 129])
def test_a_name_that_cannot_be_a_folder_is_refused(name: str) -> None:
    with pytest.raises(UsageError, match="expected letters"):
        layout.check_name(name)


def test_a_store_that_cannot_be_written_refuses_the_commit(
    storage: LocalStorage, monkeypatch: pytest.MonkeyPatch
) -> None:
    manifest = read_live(storage, "small").model_copy(update={"number": 2})

    def refuse(*_: object, **__: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "open", refuse)
    with pytest.raises(StorageError, match="permission denied"):
        commit(storage, manifest)
    monkeypatch.undo()
    assert numbers(storage, "small") == [1]
