"""Finished pieces of runs that have not published: the first receipt counts, and none outlives its objects."""

from __future__ import annotations

from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from ray_jobs.ingest.work import Work, key_of
from ray_jobs.storage import LocalStorage

PARTS = st.lists(st.text(max_size=5) | st.integers() | st.lists(st.text(max_size=3), max_size=3), max_size=4)


@given(PARTS, PARTS)
def test_a_key_stands_for_one_content(one: list[str | int | list[str]], other: list[str | int | list[str]]) -> None:
    assert (key_of(*one) == key_of(*other)) == (one == other)


def test_the_first_receipt_of_a_piece_counts(tmp_path: Path) -> None:
    work = Work(LocalStorage(tmp_path), "x", 3)
    assert not work.begun()
    assert work.keep("embedded", "k", "first") == "first"
    assert work.keep("embedded", "k", "second") == "first"
    assert work.find("embedded", "k") == "first"
    assert work.find("staged", "k") is None
    assert work.begun()


def test_pieces_belong_to_the_snapshot_that_a_run_builds_on(tmp_path: Path) -> None:
    storage = LocalStorage(tmp_path)
    for parent in (0, 3, 4):
        Work(storage, "x", parent).keep("staged", "k", str(parent))
        storage.create(f"{Work(storage, 'x', parent).folder}/groups/a.arrow", b"rows")
    Work(storage, "y", 0).keep("staged", "k", "of another index")
    Work(storage, "x", 3).clear()
    assert {item.key for item in storage.list("")} == {
        "indexes/x/work/000004/groups/a.arrow",
        "indexes/x/work/000004/receipts/staged/k.json",
        "indexes/y/work/000000/receipts/staged/k.json",
    }


def test_receipts_go_before_what_they_name(tmp_path: Path) -> None:
    gone: list[str] = []

    class Watched(LocalStorage):
        def delete(self, key: str) -> None:
            gone.append(key)
            super().delete(key)

    storage = Watched(tmp_path)
    work = Work(storage, "x", 0)
    for kind in ("embedded", "staged"):
        work.keep(kind, "k", "receipt")
    storage.create(f"{work.folder}/groups/a.arrow", b"rows")
    work.clear()
    assert ["receipts" in key for key in gone] == [True, True, False]
