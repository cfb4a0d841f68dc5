"""Which files are new, changed, unchanged or gone: against dictionaries, and in bounded memory."""

from __future__ import annotations

import os
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ray_jobs.corpus.sources import SourceFile
from ray_jobs.errors import StorageError
from ray_jobs.ingest.changes import Changes, compared
from ray_jobs.ingest.seen import SEEN_SCHEMA

File = tuple[str, str]  # name of the source, path below it
Files = dict[File, tuple[int, str]]
listings = st.dictionaries(
    st.tuples(st.sampled_from(["one", "two"]), st.sampled_from("abcd")),
    st.tuples(st.integers(0, 2), st.sampled_from("12")),
    max_size=6,
)
Step = tuple[Files, set[str], bool]  # what is listed, what fails, whether what vanished is forgotten


def listed(files: Files) -> list[SourceFile]:
    return [SourceFile(name, f"/{name}/{path}", path, *mark, "txt") for (name, path), mark in sorted(files.items())]


def seen_after(steps: list[Step]) -> pa.Table:
    seen = SEEN_SCHEMA.empty_table()
    for files, failed, forget in steps:
        with compared(listed(files), seen.to_batches()) as changes:
            changes.fail(failed)
            seen = pa.concat_tables([SEEN_SCHEMA.empty_table(), *changes.seen_after(forget)])
    return seen


@contextmanager
def change(first: Step, second: Files, again: bool = False) -> Iterator[Changes]:
    with compared(listed(second), seen_after([first]).to_batches(), again) as changes:
        yield changes


@given(first=listings, second=listings)
def test_every_listed_file_is_read_or_is_as_it_was_seen(first: Files, second: Files) -> None:
    with change((first, set(), False), second) as changes:
        read = {key: mark for key, mark in second.items() if first.get(key) != mark}
        vanished = {f"{name}/{path}" for name, path in first.keys() - second.keys() if name in {n for n, _ in second}}
        assert list(changes.to_read()) == listed(read)
        assert (changes.files, changes.fresh, changes.unchanged) == (len(second), len(read), len(second) - len(read))
        assert (changes.new, changes.vanished) == (len(read.keys() - first.keys()), len(vanished))
        assert changes.bytes == sum(size for size, _ in read.values())
        assert changes.formats() == ({"txt": len(read)} if read else {})
        names = {f"{name}/{path}" for name in ("one", "two") for path in "abcde"}
        assert changes.read_among(names) == {f"{name}/{path}" for name, path in read}
        assert changes.vanished_among(names) == vanished


@given(first=listings, second=listings, failed=st.sets(st.sampled_from(["one/a", "two/b"])))
def test_gone_is_what_vanished_and_what_was_known_and_read_whole(first: Files, second: Files, failed: set[str]) -> None:
    with change((first, set(), False), second) as changes:
        changes.fail(failed)
        known = {f"{name}/{path}" for name, path in first}
        read = changes.read_among(known) - failed
        assert [name for names in changes.gone() for name in names] == sorted(read | changes.vanished_among(known))


@given(first=listings, failed=st.sets(st.sampled_from(["one/a", "one/b", "two/a"])))
def test_what_failed_is_read_again_when_that_is_asked_for(first: Files, failed: set[str]) -> None:
    with change((first, failed, False), first) as changes:
        assert changes.fresh == 0
    with change((first, failed, False), first, again=True) as changes:
        assert {file.doc_id for file in changes.to_read()} == failed & {f"{name}/{path}" for name, path in first}


@given(first=listings, second=listings, forget=st.booleans())
def test_what_was_read_is_known_and_what_vanished_until_it_is_forgotten(
    first: Files, second: Files, forget: bool
) -> None:
    seen = seen_after([(first, {"one/a", "two/b"}, False), (second, {"one/c"}, forget)])
    names = {name for name, _ in second}
    stay = {key for key in first.keys() - second.keys() if not forget or key[0] not in names}
    expected = {key: (*second.get(key, first.get(key, (0, ""))), False) for key in second.keys() | stay}
    for name, path in expected:
        key = (name, path)
        read = key in second and first.get(key) != second[key]
        failed = {"one/c"} if read else {"one/a", "two/b", "one/c"}
        expected[key] = (*expected[key][:2], f"{name}/{path}" in failed)
    found = {tuple(row["source"].split("/")): (row["size"], row["modified"], row["failed"]) for row in seen.to_pylist()}
    assert found == expected
    assert all(row["source_name"] == row["source"].split("/")[0] for row in seen.to_pylist())


def test_a_name_that_is_no_unicode_comes_back_as_it_is() -> None:
    path = os.fsdecode(b"caf\xe9.txt")
    file = SourceFile("docs", f"/docs/{path}", path, 1, "1", "txt")
    with compared([file]) as changes:
        assert list(changes.to_read()) == [file]


def test_a_full_disk_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(StorageError, match=r"folder=.*database or disk is full.*TMPDIR"), compared():
        raise sqlite3.OperationalError("database or disk is full")


GROWING = """
import resource, sys
from pathlib import Path
from ray_jobs.corpus.sources import SourceFile
from ray_jobs.ingest import seen
from ray_jobs.ingest.changes import compared
from ray_jobs.ingest.plan import plan_sources
from ray_jobs.storage import LocalStorage

storage = LocalStorage(Path(sys.argv[1]))

def listed(count):
    return (SourceFile("docs", f"/docs/{n:09d}", f"{n:09d}.txt", n % 9999, "1", "txt") for n in range(count))

def peak(count):
    with compared(listed(count)) as first:
        record = seen.publish(storage, "index", first.seen_after(False))
    with compared(listed(count), seen.read(storage, record)) as changes:
        assert changes.fresh == 0
    with compared(listed(count)) as changes:
        groups = plan_sources(changes, 1 << 20).groups
        assert sum(len(group.parts) for group in groups) == count
        sum(map(len, changes.gone()))
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss

small, large = peak(50_000), peak(150_000)
print((large - small) << 10)
"""


def test_memory_does_not_grow_with_the_files(tmp_path: Path) -> None:
    """Python objects of 100,000 files would take 50 MB."""
    command = [sys.executable, "-c", GROWING, str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert int(done.stdout) < 24 << 20
