"""Parsers that cannot be trusted: what hangs, asks for too much or crashes costs itself, and nothing else."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import psutil
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from every_format import write_every_format
from hostile_files import heavy_word
from hypothesis import given
from hypothesis import strategies as st
from reading import reasons, text_of
from waiting import wait_for

from ray_jobs.corpus import apart
from ray_jobs.corpus.apart import TRUSTED, Reader
from ray_jobs.corpus.channel import Channel
from ray_jobs.corpus.document import Document, RawDocument, Reject, make_document
from ray_jobs.corpus.limits import Limits
from ray_jobs.corpus.messages import Begun, Ended, decode, encode
from ray_jobs.corpus.planning import whole
from ray_jobs.corpus.readers import READERS, read_part
from ray_jobs.corpus.reasons import REASONS
from ray_jobs.corpus.sources import list_sources
from ray_jobs.errors import TandemError

pytest_plugins = ["hostile_helper"]
pytestmark = pytest.mark.usefixtures("hostile")

LIMITS = Limits(seconds=60, memory_bytes=256 << 20)


@pytest.fixture
def reader() -> Iterator[Reader]:
    found = Reader(LIMITS)
    yield found
    found.close()


def written(tmp_path: Path, *lines: str) -> Path:
    path = tmp_path / "a.hostile"
    path.write_text("\n".join(lines))
    return path


def read(reader: Reader, path: Path) -> list[Document | Reject]:
    (file,) = list_sources([str(path)])
    return list(reader.read(whole(file)))


def helpers() -> list[psutil.Process]:
    return [child for child in psutil.Process().children() if _is_helper(child)]


def _is_helper(process: psutil.Process) -> bool:
    try:
        return apart.MODULE in process.cmdline()
    except psutil.Error:  # it has ended
        return False


texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
values = st.one_of(
    st.booleans(), st.integers(), st.floats(allow_nan=False, allow_infinity=False), texts, st.lists(texts)
)


@given(texts, texts, st.dictionaries(texts, values, max_size=3), st.lists(texts, max_size=3))
def test_a_document_comes_back_as_it_went(text: str, title: str, metadata: dict[str, object], pages: list[str]) -> None:
    starts = tuple(sum(len(page) for page in pages[:n]) for n in range(len(pages)))
    raw = RawDocument(
        "".join(pages) or text, title=title, metadata={**metadata, "when": datetime.now(UTC)}, pages=starts
    )
    document = make_document(raw, "id", "source", "pdf")
    assert decode(encode(document)) == document


@given(st.text(), st.sampled_from(sorted(REASONS)))
def test_a_reject_comes_back_as_it_went(text: str, reason: str) -> None:
    reject = Reject("file", reason, text)
    assert decode(encode(reject)) == reject


@given(st.binary(max_size=50))
def test_what_is_no_message_is_refused(data: bytes) -> None:
    for wrong in (data, b'["document", {"doc_id": "x"}]', b'["reject", [1, 2, 3]]', b'["begun", null]'):
        with pytest.raises(ValueError, match=r"."):
            decode(wrong)
    assert (decode(encode(Begun(3))), decode(encode(Ended(True)))) == (Begun(3), Ended(True))


def test_a_helper_reads_what_the_process_itself_would_read(tmp_path: Path, reader: Reader) -> None:
    files = list(list_sources([str(write_every_format(tmp_path / "corpus"))]))
    assert {file.format for file in files} | {"pydoc", "hostile"} == set(READERS)
    for file in files:
        assert list(reader.read(whole(file))) == list(read_part(whole(file), LIMITS))
    assert len(helpers()) == 1


def test_formats_that_are_trusted_start_no_helper(tmp_path: Path, reader: Reader) -> None:
    for file in list_sources([str(write_every_format(tmp_path / "corpus"))]):
        if file.format in TRUSTED:
            assert all(isinstance(item, Document) for item in reader.read(whole(file)))
    assert helpers() == []


def test_one_helper_serves_many_documents(tmp_path: Path, reader: Reader) -> None:
    path = written(tmp_path, "tell-process")
    assert len({text_of(read(reader, path)) for _ in range(5)}) == 1


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ("crash", "crashed"),
        ("leave", "crashed"),
        (f"take {10 << 30}", "out-of-memory"),
        (f"take {300 << 20}", "out-of-memory"),
        ("descend", "too-deep"),
    ],
)
def test_what_breaks_its_parser_costs_itself_alone(tmp_path: Path, reader: Reader, line: str, reason: str) -> None:
    found = read(reader, written(tmp_path, "say before", line, "say after"))
    assert reasons(found) == ["", reason]
    assert text_of(found[:1]) == "before"
    assert text_of(read(reader, written(tmp_path, "say next"))) == "next"


@pytest.mark.parametrize("line", ["sleep", "spin"])
def test_what_hangs_costs_its_limit_and_no_more(tmp_path: Path, line: str) -> None:
    reader = Reader(Limits(seconds=1))
    assert text_of(read(reader, written(tmp_path, "say first"))) == "first"
    (hanging,) = helpers()
    found = read(reader, written(tmp_path, "say before", line))
    assert reasons(found) == ["", "timed-out"]
    assert "more than 1 s" in str(found[-1])
    assert not hanging.is_running()
    assert text_of(read(reader, written(tmp_path, "say next"))) == "next"
    reader.close()


def test_parsers_that_get_no_more_memory_say_so_and_take_no_more(tmp_path: Path, reader: Reader) -> None:
    (tmp_path / "a.docx").write_bytes(heavy_word())
    pq.write_table(pa.table({"text": ["a" * (1 << 29)]}), tmp_path / "a.parquet", compression="zstd")
    for name in ("a.docx", "a.parquet"):
        assert reasons(read(reader, tmp_path / name)) == ["out-of-memory"]
        (helper,) = helpers()
        peak = Path(f"/proc/{helper.pid}/status").read_text().partition("VmHWM:")[2].split()[0]
        assert int(peak) << 10 < LIMITS.memory_bytes + (200 << 20)


def test_memory_below_the_limit_may_be_taken(tmp_path: Path, reader: Reader) -> None:
    assert reasons(read(reader, written(tmp_path, f"take {200 << 20}", "say after"))) == [""]


def test_a_helper_that_keeps_what_it_took_is_replaced(tmp_path: Path, reader: Reader) -> None:
    path = written(tmp_path, f"keep {100 << 20}", "tell-process")
    assert len({text_of(read(reader, path)) for _ in range(4)}) == 4
    assert len(helpers()) == 0


def test_a_helper_that_is_lost_between_documents_is_replaced(tmp_path: Path, reader: Reader) -> None:
    path = written(tmp_path, "tell-process")
    first = text_of(read(reader, path))
    os.kill(int(first), signal.SIGKILL)
    wait_for(lambda: not helpers())
    assert text_of(read(reader, path)) != first


def test_a_reader_that_is_left_in_the_middle_reads_the_next_part(tmp_path: Path, reader: Reader) -> None:
    (file,) = list_sources([str(written(tmp_path, "say one", "say two"))])
    items = reader.read(whole(file))
    next(items)
    items.close()
    assert text_of(read(reader, written(tmp_path, "say three"))) == "three"


def test_a_helper_that_does_not_start_is_an_error_of_the_run(
    tmp_path: Path, reader: Reader, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(apart, "MODULE", "absent_helper")
    with pytest.raises(TandemError, match=r"helper=absent_helper: .* does not start \(.*exit code 1.*installation"):
        read(reader, written(tmp_path, "say one"))


def test_the_helper_ends_with_its_process_also_in_the_middle_of_a_document(tmp_path: Path) -> None:
    path = written(tmp_path, "tell-process", "sleep")
    code = (
        "import hostile_helper, sys\n"
        "from ray_jobs.corpus import apart, formats, readers\n"
        "from ray_jobs.corpus.limits import Limits\n"
        "from ray_jobs.corpus.planning import whole\n"
        "from ray_jobs.corpus.sources import list_sources\n"
        "formats.FORMATS['.hostile'] = 'hostile'\n"
        "readers.READERS['hostile'] = apart.MODULE = 'hostile_helper'\n"
        "(file,) = list_sources([sys.argv[1]])\n"
        "for item in apart.Reader(Limits()).read(whole(file)):\n"
        "    print(item.text, flush=True)\n"
    )
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    with subprocess.Popen([sys.executable, "-c", code, str(path)], stdout=subprocess.PIPE, env=environment) as process:
        assert process.stdout is not None
        helper = psutil.Process(int(process.stdout.readline()))
        process.kill()
    wait_for(lambda: not helper.is_running() or helper.status() == psutil.STATUS_ZOMBIE)


def test_a_message_comes_whole_or_not_at_all() -> None:
    ours, theirs = socket.socketpair()
    channel, raw = Channel(ours), theirs
    other = Channel(theirs)
    for message in (b"", b"small", b"x" * 100_000):
        other.send(message)
        assert channel.receive(10) == message
    raw.sendall((100).to_bytes(8, "little") + b"part of it")
    other.close()
    with pytest.raises(EOFError):
        channel.receive(10)
    channel.close()


@pytest.mark.parametrize(("sent", "error"), [(b"", TimeoutError), ((1 << 60).to_bytes(8, "little"), ValueError)])
def test_what_does_not_come_or_is_too_long_is_not_waited_for(sent: bytes, error: type[Exception]) -> None:
    ours, theirs = socket.socketpair()
    channel = Channel(ours)
    theirs.sendall(sent)
    with pytest.raises(error):
        channel.receive(0.01)
    channel.close()
    theirs.close()
