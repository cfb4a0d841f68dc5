from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ray_jobs.corpus.planning import OPENING_BYTES, SourcePart, pack, split, whole
from ray_jobs.corpus.sources import SourceFile, list_sources
from ray_jobs.errors import NotFoundError, UsageError


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    root = tmp_path / "docs"
    for name in ("b.md", "a/x.txt", "a/deep/y.pdf", ".hidden/z.md", ".hidden.md", "data.jsonl.gz", "odd.xyz"):
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"text")
    return root


def ids(*arguments: object, id_prefix: str | None = None) -> list[str]:
    return [file.doc_id for file in list_sources([str(a) for a in arguments], id_prefix)]


def jsonl(size: int) -> SourceFile:
    return SourceFile("s", "/s.jsonl", "", size, "0", "jsonl")


def test_a_folder_lists_its_files_sorted_and_hidden_ones_not(tree: Path) -> None:
    assert ids(tree) == ["docs/a/deep/y.pdf", "docs/a/x.txt", "docs/b.md", "docs/data.jsonl.gz", "docs/odd.xyz"]


def test_a_single_file_is_named_by_itself(tree: Path) -> None:
    assert ids(tree / "b.md") == ["b.md"]


def test_a_glob_is_named_by_the_folder_it_searches(tree: Path) -> None:
    assert ids(tree / "*.md") == ["docs/b.md"]
    assert ids(tree / "**/*.txt", f"flat={tree}/*/*.txt") == ["docs/a/x.txt", "flat/a/x.txt"]


def test_a_star_stays_inside_a_folder(tree: Path) -> None:
    assert ids(tree / "*/*") == ["docs/a/x.txt"]
    assert ids(tree / "**") == ids(tree)


def test_a_uri_lists_the_same_files_as_its_path(tree: Path) -> None:
    assert ids(f"file://{tree}") == ids(tree)
    assert ids(f"file://{tree}/**/*.txt") == ["docs/a/x.txt"]


def test_an_unknown_suffix_in_a_folder_is_listed_without_a_format(tree: Path) -> None:
    assert [f.format for f in list_sources([str(tree)])] == ["pdf", "txt", "md", "jsonl", ""]


def test_a_named_file_of_unknown_kind_is_a_usage_error_that_names_the_known(tree: Path) -> None:
    with pytest.raises(UsageError, match=r"odd\.xyz.*\.parquet"):
        ids(tree / "odd.xyz")


def test_two_sources_of_one_name_ask_for_another_name(tree: Path) -> None:
    with pytest.raises(UsageError, match="--id-prefix"):
        ids(tree, tree / "a/../../docs")


def test_a_name_sets_a_source_apart(tree: Path) -> None:
    assert ids(f"mine={tree}/b.md", tree / "b.md") == ["mine", "b.md"]


def test_a_path_with_an_equals_sign_is_a_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "year=2020").mkdir()
    (tmp_path / "year=2020" / "a.txt").write_text("x")
    monkeypatch.chdir(tmp_path)
    assert ids("year=2020") == ["year=2020/a.txt"]


def test_a_path_with_wildcard_characters_is_a_path_if_it_exists(tmp_path: Path) -> None:
    (tmp_path / "[a].txt").write_text("x")
    assert ids(tmp_path / "[a].txt") == ["[a].txt"]


def test_a_prefix_goes_before_every_id(tree: Path) -> None:
    assert ids(tree / "*.md", "pydoc:iniconfig", id_prefix="team/")[0] == "team/docs/b.md"


@pytest.mark.parametrize(
    "missing", ["/nowhere/at/all", "/nowhere/*.md", "pydoc:not_installed_anywhere", "pydoc:json.nope"]
)
def test_what_does_not_exist_is_not_found(missing: str) -> None:
    with pytest.raises(NotFoundError):
        ids(missing)


def test_a_glob_that_matches_nothing_is_not_found(tree: Path) -> None:
    with pytest.raises(NotFoundError, match="no file matches"):
        ids(tree / "*.docx")


def test_an_empty_folder_is_a_usage_error(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no file"):
        ids(tmp_path)


def test_no_source_is_a_usage_error() -> None:
    with pytest.raises(UsageError):
        ids()


def test_a_password_in_a_uri_is_refused_and_not_repeated() -> None:
    with pytest.raises(UsageError) as caught:
        ids("s3://key:hunter2@bucket/path")
    assert "hunter2" not in str(caught.value)


def test_an_unknown_scheme_is_a_usage_error() -> None:
    with pytest.raises(UsageError, match="no filesystem"):
        ids("gopher://host/path")


def test_a_loop_of_links_is_entered_once(tree: Path) -> None:
    (tree / "a" / "loop").symlink_to(tree)
    assert ids(tree).count("docs/b.md") == 1


def test_a_dangling_link_is_listed(tree: Path) -> None:
    (tree / "gone.txt").symlink_to(tree / "nothing.txt")
    assert "docs/gone.txt" in ids(tree)


def test_pydoc_lists_public_modules_without_importing_them() -> None:
    found = ids("pydoc:ray.data")
    assert "ray/data/dataset.py" in found
    assert not any("/_" in i and not i.endswith("__init__.py") for i in found)
    assert ids("pydoc:pyarrow")[0] == "pyarrow/README"
    assert not any("/tests/" in i or "/examples/" in i or "/benchmarks/" in i for i in ids("pydoc:ray"))


def test_a_package_keeps_its_own_name() -> None:
    with pytest.raises(UsageError, match="keeps its own name"):
        ids("other=pydoc:json")


@settings(deadline=None)
@given(st.integers(0, 10_000), st.integers(1, 3_000))
def test_parts_cover_a_file_without_gap_or_overlap(size: int, max_bytes: int) -> None:
    parts = split(jsonl(size), max_bytes)
    assert parts[0].start == 0
    assert parts[-1].end == size
    assert all(a.end == b.start for a, b in pairwise(parts))
    assert all(part.end - part.start == part.size <= max_bytes for part in parts)


@settings(deadline=None)
@given(st.lists(st.integers(0, 100), min_size=1), st.integers(1, 200))
def test_row_groups_are_kept_in_order_and_bounded(sizes: list[int], max_bytes: int) -> None:
    file = SourceFile("s", "/s.parquet", "", sum(sizes), "0", "parquet")
    parts = split(file, max_bytes, sizes)
    assert [i for part in parts for i in range(part.start, part.end)] == list(range(len(sizes)))
    assert all(part.size <= max_bytes or part.end - part.start == 1 for part in parts)


@settings(deadline=None)
@given(st.lists(st.integers(0, 30_000)), st.integers(1, 50_000))
def test_groups_hold_every_part_once_in_order_and_bounded(sizes: list[int], max_bytes: int) -> None:
    parts = [SourcePart(jsonl(size), 0, size, size) for size in sizes]
    groups = list(pack(parts, max_bytes))
    assert [part for group in groups for part in group] == parts
    for group in groups:
        assert group
        assert len(group) == 1 or sum(max(p.size, OPENING_BYTES) for p in group) <= max_bytes


def test_a_compressed_stream_is_one_part() -> None:
    file = SourceFile("s", "/s.jsonl.gz", "", 1000, "0", "jsonl")
    assert split(file, 10) == [whole(file)]


def test_a_bound_that_is_not_positive_is_a_usage_error() -> None:
    with pytest.raises(UsageError, match="max_bytes is 0"):
        split(jsonl(5), 0)
