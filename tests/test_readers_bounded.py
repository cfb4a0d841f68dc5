"""Readers hold no more than their limits, whatever a file holds: long lines, bombs, endless rows, wrong names."""

from __future__ import annotations

import gzip
import os
import subprocess
import sys
from itertools import pairwise
from pathlib import Path

import pytest
from hostile_files import GOOD, word_bomb, write_bomb, write_every_hostile_file, write_long_line
from hypothesis import given
from hypothesis import strategies as st
from reading import read, read_bytes, reasons

from ray_jobs.corpus.apart import Reader
from ray_jobs.corpus.document import Document, Reject
from ray_jobs.corpus.limits import Limits
from ray_jobs.corpus.planning import SourcePart, split, whole
from ray_jobs.corpus.readers import read_part
from ray_jobs.corpus.sources import list_sources

MEASURED = """
import resource, sys
from ray_jobs.corpus.limits import Limits
from ray_jobs.corpus.planning import whole
from ray_jobs.corpus.readers import read_part
from ray_jobs.corpus.sources import list_sources

def peak():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss << 10

(small,), (hostile,) = (list_sources([path]) for path in sys.argv[1:])
limits = Limits(line_bytes=8 << 20, text_bytes=8 << 20)
list(read_part(whole(small), limits))
before = peak()
found = [getattr(item, "reason", "") for item in read_part(whole(hostile), limits)]
print(peak() - before, *found)
"""


def test_every_hostile_file_gets_its_reason_and_good_rows_beside_the_damage_are_read(tmp_path: Path) -> None:
    owed = write_every_hostile_file(tmp_path / "hostile")
    found: dict[str, list[Document | Reject]] = {}
    reader = Reader(Limits())
    for file in list_sources([str(tmp_path / "hostile")]):
        found[file.relative] = [item for part in split(file, 64 << 20) for item in reader.read(part)]
    reader.close()
    assert {name: {r for r in reasons(items) if r} for name, items in found.items()} == owed
    read_whole = {"utf8.jsonl": 2, "nulls.jsonl": 2, "line.jsonl": 2, "line.csv": 6001, "bomb.jsonl.zst": 1}
    for name, number in read_whole.items():
        assert reasons(found[name]).count("") == number, name
    assert reasons(found["truncated.jsonl.gz"]).count("") > 100


@pytest.mark.parametrize("name", ["a.jsonl", "a.csv", "a.jsonl.zst"])
def test_memory_stays_bounded_for_a_line_or_a_bomb_of_a_gigabyte(tmp_path: Path, name: str) -> None:
    before = b"id,text\n" + b"x,words\n" * 10_000 if name.endswith("csv") else GOOD % b"x"
    (tmp_path / f"small-{name.removesuffix('.zst')}").write_bytes(before)
    if name.endswith("zst"):
        write_bomb(tmp_path / name)
    else:
        write_long_line(tmp_path / name, before, b"x,y\n" if name.endswith("csv") else before)
    small, hostile = tmp_path / f"small-{name.removesuffix('.zst')}", tmp_path / name
    measured = subprocess.run(
        [sys.executable, "-c", MEASURED, str(small), str(hostile)],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    ).stdout.split()
    assert int(measured[0]) < 100 << 20
    assert measured[1:] == ["expands" if name.endswith("zst") else "too-long"]


@given(st.lists(st.integers(0, 40), max_size=8), st.booleans(), st.integers(1, 60))
def test_a_line_is_too_long_by_its_own_length_wherever_the_file_is_cut(
    tmp_path_factory: pytest.TempPathFactory, lengths: list[int], ends: bool, size: int
) -> None:
    path = tmp_path_factory.mktemp("lines") / "a.jsonl"
    lines = ['{"text": "' + "x" * length + '"}' for length in lengths]
    path.write_text("\n".join(lines) + ("\n" if ends and lines else ""))
    (file,) = list_sources([str(path)])
    cuts = sorted({0, *range(0, file.size, size), file.size})
    parts = [SourcePart(file, a, b, b - a) for a, b in pairwise(cuts)]
    found = [item for part in parts for item in read_part(part, Limits(line_bytes=30))]
    assert reasons(found) == ["too-long" if len(line) > 30 else "" for line in lines]


def test_parts_of_a_long_line_read_no_further_than_their_own_end(tmp_path: Path) -> None:
    write_long_line(tmp_path / "a.jsonl", GOOD % b"1", GOOD % b"2")
    (file,) = list_sources([str(tmp_path / "a.jsonl")])
    parts = split(file, 1 << 20)
    assert len(parts) > 1000
    found = [reasons(list(read_part(part, Limits(line_bytes=1 << 20)))) for part in parts]
    assert [item for items in found for item in items] == ["", "too-long", ""]


CELLS = st.lists(st.sampled_from(["x", "a long cell of words", 'with "quotes"', "two\nlines"]), min_size=1, max_size=6)


@given(CELLS)
def test_a_row_that_is_too_long_costs_only_itself(tmp_path_factory: pytest.TempPathFactory, cells: list[str]) -> None:
    path = tmp_path_factory.mktemp("rows") / "a.csv"
    quoted = ['"' + cell.replace('"', '""') + '"' for cell in cells]
    path.write_text("text\n" + "\n".join(quoted) + "\n")
    (file,) = list_sources([str(path)])
    found = list(read_part(whole(file), Limits(line_bytes=13)))
    kept = [item.text for item in found if isinstance(item, Document)]
    assert kept == [cell for cell, row in zip(cells, quoted, strict=True) if len(row) < 13]
    assert {r for r in reasons(found) if r} <= {"too-long"}
    assert len(found) == len(cells)


def test_a_quote_that_is_never_closed_costs_no_more_than_the_bound_of_a_row(tmp_path: Path) -> None:
    rows = b"".join(b"%d,words\n" % n for n in range(1000))
    (tmp_path / "a.csv").write_bytes(b'id,text\nx,"never closed\n' + rows)
    (file,) = list_sources([str(tmp_path / "a.csv")])
    found = list(read_part(whole(file), Limits(line_bytes=1000)))
    assert reasons(found)[0] == "too-long"
    assert reasons(found).count("") > 800
    assert len(reasons(found)) == reasons(found).count("") + 1


@pytest.mark.parametrize("name", ["a.txt", "a.md", "a.csv", "a.jsonl"])
def test_a_text_over_its_bound_is_given_up(tmp_path: Path, name: str) -> None:
    content = {"a.csv": "id,text\n1,%s\n", "a.jsonl": '{"id": "1", "text": "%s"}\n'}.get(name, "%s")
    for letter in "xé漢":
        (tmp_path / name).write_text(content % (letter * 100))
        (file,) = list_sources([str(tmp_path / name)])
        size = 100 * len(letter.encode())
        assert reasons(list(read_part(whole(file), Limits(text_bytes=size)))) == [""]
        assert reasons(list(read_part(whole(file), Limits(text_bytes=size - 1)))) == ["too-large"]


@given(st.integers(1, 1 << 40), st.integers(1, 1 << 40), st.integers(1, 1 << 50), st.floats(1, 1e6))
def test_a_file_may_unpack_to_the_text_of_a_document_and_never_beyond_the_absolute_bound(
    size: int, text: int, absolute: int, expansion: float
) -> None:
    allowed = Limits(text_bytes=text, unpacked_bytes=absolute, expansion=expansion).unpacked(size)
    assert min(text, absolute) <= allowed <= absolute
    assert allowed <= max(text, size * expansion)


def test_what_repeats_itself_is_read_as_long_as_it_stays_within_the_expansion(tmp_path: Path) -> None:
    lines = GOOD % b"x" * 20_000
    (tmp_path / "a.jsonl.gz").write_bytes(packed := gzip.compress(lines))
    (file,) = list_sources([str(tmp_path / "a.jsonl.gz")])
    ratio = len(lines) / len(packed)
    enough = list(read_part(whole(file), Limits(text_bytes=1000, expansion=ratio + 1)))
    assert set(reasons(enough)) == {""}
    found = reasons(list(read_part(whole(file), Limits(text_bytes=1000, expansion=ratio / 4))))
    assert found[-1] == "expands"
    assert set(found[:-1]) <= {""}


def test_a_word_document_that_unpacks_to_too_much_is_not_unpacked(tmp_path: Path) -> None:
    (found,) = read_bytes(tmp_path, "a.docx", word_bomb())
    assert isinstance(found, Reject)
    assert found.reason == "expands"


def test_a_file_with_a_wrong_name_is_one_reject_however_it_is_cut(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_bytes(gzip.compress(os.urandom(300_000)))
    (file,) = list_sources([str(tmp_path / "a.jsonl")])
    parts = split(file, 10_000)
    assert len(parts) > 10
    assert [r for part in parts for r in reasons(list(read_part(part, Limits())))] == ["wrong-format"]


def test_a_name_that_is_no_text_costs_only_its_file(tmp_path: Path) -> None:
    folder = tmp_path / "names"
    folder.mkdir()
    (folder / "good.txt").write_text("words")
    with open(os.fsencode(folder) + b"/caf\xe9.txt", "wb") as file:
        file.write(b"words")
    found = {file.doc_id: list(read_part(whole(file), Limits())) for file in list_sources([str(folder)])}
    assert reasons(found["names/good.txt"]) == [""]
    assert len(found) == 2
    for name in found:
        name.encode()


def test_an_id_that_would_fill_the_index_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text('{"id": "%s", "text": "a"}\n{"id": "b", "text": "b"}\n' % ("x" * 3000))
    assert reasons(read(tmp_path / "a.jsonl")) == ["bad-id", ""]
