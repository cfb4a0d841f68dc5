"""Which files are new, changed, unchanged or gone: against dictionaries."""

from __future__ import annotations

import pyarrow as pa
from hypothesis import given
from hypothesis import strategies as st

from ray_jobs.corpus.sources import SourceFile
from ray_jobs.ingest.seen import SEEN_SCHEMA, after, compare

File = tuple[str, str]  # name of the source, path below it
listings = st.dictionaries(
    st.tuples(st.sampled_from(["one", "two"]), st.sampled_from("abcd")),
    st.tuples(st.integers(0, 2), st.sampled_from("12")),
    max_size=6,
)


def listed(files: dict[File, tuple[int, str]]) -> list[SourceFile]:
    return [SourceFile(name, f"/{name}/{path}", path, *mark, "txt") for (name, path), mark in sorted(files.items())]


def seen_after(steps: list[tuple[dict[File, tuple[int, str]], set[str], bool]]) -> pa.Table:
    seen = SEEN_SCHEMA.empty_table()
    for files, failed, forget in steps:
        seen = after(compare(listed(files), seen), seen, failed, forget)
    return seen


@given(first=listings, second=listings)
def test_every_listed_file_is_read_or_is_as_it_was_seen(
    first: dict[File, tuple[int, str]], second: dict[File, tuple[int, str]]
) -> None:
    changes = compare(listed(second), seen_after([(first, set(), False)]))
    assert {(file.source, file.relative) for file in changes.to_read} == {
        key for key, mark in second.items() if first.get(key) != mark
    }
    assert changes.unchanged == sum(first.get(key) == mark for key, mark in second.items())
    names = {name for name, _ in second}
    assert set(changes.vanished) == {f"{name}/{path}" for name, path in first.keys() - second.keys() if name in names}


@given(first=listings, second=listings, forget=st.booleans())
def test_what_was_read_is_known_and_what_vanished_until_it_is_forgotten(
    first: dict[File, tuple[int, str]], second: dict[File, tuple[int, str]], forget: bool
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
