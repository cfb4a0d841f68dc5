"""Every mistake a user can make, through the command line: one clear line, exit code 1 or 2, nothing lost."""

from __future__ import annotations

import gzip
import json
import random
from pathlib import Path

import pytest
from command_line import FAKE, Ended, copy_store, end, rows, run, start, write_articles, write_notes

pytestmark = pytest.mark.usefixtures("elsewhere")

Capsys = pytest.CaptureFixture[str]


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory, cluster: dict[str, str]) -> Path:
    """A store with the index `notes`, made by a process of its own from a relative path into a relative store."""
    folder = tmp_path_factory.mktemp("made")
    write_notes(folder / "notes")
    ingested = end(
        start(cluster, folder, "ingest", "notes", "--index", "notes", "--store", "store", *FAKE, "--shards", 2)
    )
    assert "published snapshot 1 of notes" in ingested.succeeded()
    return folder / "store"


NEEDS_NOTHING: list[tuple[list[str], int, list[str]]] = [
    (["fly"], 2, ["fly", "no such command", "ingest, search, ask, serve, delete, index"]),
    (["ingest"], 2, ["--index"]),
    (["ingest", "--index", "x"], 2, ["sources", "at least one file"]),
    (["ingest", "absent", "--index", "x"], 1, ["'absent'", "no such file or folder"]),
    (["ingest", "*.pdf", "--index", "x"], 1, ["'*.pdf'", "no file matches"]),
    (["ingest", "pydoc:absent", "--index", "x"], 1, ["'absent'", "install it"]),
    (["ingest", "ftp://host/x", "--index", "x"], 2, ["ftp://host/x", "no filesystem"]),
    (["ingest", "a.txt", "--index", "../x"], 2, ["'../x'", "expected letters"]),
    (["ingest", "a.txt", "--index", "x", "--shards", "0"], 2, ["shards", "'0'", "greater than or equal to 1"]),
    (["ingest", "a.txt", "--index", "x", "--shards", "many"], 2, ["shards", "'many'", "integer"]),
    (["ingest", "a.txt", "--index", "x", "--max-failed", "1%"], 2, ["max_failed", "'1%'", "number"]),
    (["ingest", "a.txt", "--index", "x", "--colour", "red"], 2, ["--colour", "tandem ingest --help"]),
    (["ingest", "a.txt", "--index", "x", "--embedder.engine", "steam"], 2, ["embedder.engine", "'steam'", "'torch'"]),
    (["ingest", "a.txt", "--index", "x", "--chunking.max-tokens", "4"], 2, ["chunking.max_tokens", "'4'", "16"]),
    (
        ["ingest", "a.txt", "--index", "x", "--embedder.engine", "fake", "--embedder.precision", "bfloat16"],
        2,
        ["engine=fake with precision=bfloat16", "float32"],
    ),
    (
        ["ingest", "a.txt", "--index", "x", "--shard-bytes", "1048576", "--group-bytes", "2097152"],
        2,
        ["shard_bytes=1048576", "group_bytes=2097152"],
    ),
    (["ingest", "a.txt", "--index", "x", "--metadata", '{"year": "roman"}'], 2, ["metadata.year", "'roman'", "'int'"]),
    (["ingest", "a.txt", "--index", "x", "--store", "ftp://host"], 2, ["store=ftp://host", "expected a path"]),
    (["search", "cat"], 2, ["--index"]),
    (["search", "--index", "x"], 2, ["QUERY", "--queries"]),
    (["search", "cat", "--index", "x"], 1, ["index=x", "no such index", "none yet", "tandem ingest"]),
    (["search", "two", "words", "--index", "x"], 2, ["'words'", "quotes"]),
    (["search", "cat", "--index", "x", "-k", "0"], 2, ["k='0'", "greater than or equal to 1"]),
    (["search", "cat", "--index", "x", "--mode", "psychic"], 2, ["mode='psychic'", "'dense', 'lexical' or 'hybrid'"]),
    (["search", "cat", "--index", "x", "--queries", "q", "--output", "o"], 2, ["either a QUERY or --queries"]),
    (["search", "--index", "x", "--queries", "q"], 2, ["--queries and --output go together"]),
    (
        ["search", "cat", "--index", "x", "--weights.dense", "0", "--weights.lexical", "0"],
        2,
        ["dense=0 and lexical=0", "at least one"],
    ),
    (["ask", "--index", "x"], 2, ["QUESTION", "tandem ask --help"]),
    (["ask", "why", "--index", "x"], 1, ["index=x", "no such index", "tandem ingest"]),
    (["ask", "why", "--index", "x", "--reader.max-quotes", "0"], 2, ["reader.max_quotes='0'"]),
    (["index"], 2, ["ACTION", "tandem index --help"]),
    (
        ["index", "paint"],
        2,
        ["action='paint'", "'list', 'info', 'verify', 'dead-letters', 'report', 'compact', 'rollback' or 'gc'"],
    ),
    (["index", "info"], 2, ["info needs the name of an index"]),
    (["index", "list", "x"], 2, ["list shows every index"]),
    (["index", "info", "x"], 1, ["index=x", "no such index"]),
    (["index", "verify", "x", "--snapshot", "0"], 2, ["snapshot='0'"]),
]


@pytest.mark.parametrize(("arguments", "code", "fragments"), NEEDS_NOTHING, ids=lambda value: str(value)[:60])
def test_a_wrong_request_is_refused_in_one_line(
    capsys: Capsys, tmp_path: Path, arguments: list[str], code: int, fragments: list[str]
) -> None:
    (tmp_path / "a.txt").write_text("some text")
    run(capsys, *arguments).refused(*fragments, code=code)
    assert not (tmp_path / "tandem-store").exists()


CONFIGURATIONS: list[tuple[bytes, list[str]]] = [
    (b"k: [", ["config=c.yaml", "not YAML"]),
    (b"- k", ["config=c.yaml", "holds a list", "keys and values"]),
    (b"1: 2", ["config=c.yaml", "keys and values"]),
    (b"\xff\xfe\x00", ["config=c.yaml", "not YAML"]),
    (b"config: other.yaml", ["config=c.yaml", "one file"]),
    (b"colour: red", ["colour='red'", "unknown key", "--help"]),
    (b"exact-below: 1", ["exact-below=1", "unknown key", "did you mean exact_below?"]),
    (b"k: many", ["k='many'", "integer"]),
    (b"k: 0", ["k=0", "greater than or equal to 1"]),
    (b"weights: {dense: heavy}", ["weights.dense='heavy'", "number"]),
    (b"weights: {colour: 1}", ["weights.colour=1", "unknown key"]),
    (b"weights: {dense: 0, lexical: 0}", ["dense=0 and lexical=0"]),
]


@pytest.mark.parametrize("command", ["search", "ask"])
@pytest.mark.parametrize(("content", "fragments"), CONFIGURATIONS, ids=lambda value: str(value)[:40])
def test_a_wrong_configuration_file_is_refused_in_one_line(
    capsys: Capsys, tmp_path: Path, command: str, content: bytes, fragments: list[str]
) -> None:
    (tmp_path / "c.yaml").write_bytes(content)
    run(capsys, command, "why", "--index", "x", "--config", "c.yaml").refused(*fragments, code=2)


def test_a_missing_configuration_file_is_named_wherever_it_was_named(
    capsys: Capsys, monkeypatch: pytest.MonkeyPatch
) -> None:
    run(capsys, "index", "list", "--config", "gone.yaml").refused("config=gone.yaml", "No such file", code=2)
    monkeypatch.setenv("TANDEM_CONFIG", "lost.yaml")
    run(capsys, "index", "list").refused("config=lost.yaml", "No such file", code=2)


@pytest.mark.parametrize(
    ("name", "value", "fragments"),
    [
        ("TANDEM_K", "many", ["k='many'", "integer"]),
        ("TANDEM_WEIGHTS__DENSE", "heavy", ["weights.dense='heavy'", "number"]),
        ("TANDEM_WEIGHTS__COLOUR", "1", ["weights.colour='1'", "unknown key"]),
        ("TANDEM_WEIGHTS", "heavy", ["TANDEM_WEIGHTS='heavy'", "expected JSON"]),
        ("TANDEM_MODE", "psychic", ["mode='psychic'", "'hybrid'"]),
    ],
)
def test_a_wrong_environment_variable_is_refused_in_one_line(
    capsys: Capsys, monkeypatch: pytest.MonkeyPatch, name: str, value: str, fragments: list[str]
) -> None:
    monkeypatch.setenv(name, value)
    run(capsys, "search", "cat", "--index", "x").refused(*fragments, code=2)


def test_a_variable_without_the_prefix_is_no_setting(capsys: Capsys, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("K", "TOP_K", "JSON", "INDEX", "STORE"):
        monkeypatch.setenv(name, "another program's")
    run(capsys, "search", "cat", "--index", "x", "--json").refused("index=x", "no such index", code=1)


def test_the_command_line_wins_over_the_environment_and_that_over_the_file(
    capsys: Capsys, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "c.yaml").write_text("index: file\nstore: file-store\n")
    monkeypatch.setenv("TANDEM_INDEX", "environment")
    run(capsys, "search", "cat", "--config", "c.yaml").refused("index=environment", "file-store")
    run(capsys, "search", "cat", "--config", "c.yaml", "--index", "line").refused("index=line", "file-store")


READING: list[tuple[list[str], int, list[str]]] = [
    (["search", "cat", "--index", "nots"], 1, ["index=nots", "it has: notes"]),
    (["ask", "why", "--index", "nots"], 1, ["index=nots", "it has: notes"]),
    (["index", "verify", "nots"], 1, ["index=nots", "it has: notes"]),
    (["search", "cat", "--index", "notes", "--snapshot", "7"], 1, ["snapshot=7", "expected one of 1"]),
    (["ask", "why", "--index", "notes", "--snapshot", "7"], 1, ["snapshot=7", "expected one of 1"]),
    (["index", "info", "notes", "--snapshot", "7"], 1, ["snapshot=7", "expected one of 1"]),
    (["search", "  ", "--index", "notes"], 2, ["empty", "expected some words"]),
    (["ask", "", "--index", "notes"], 2, ["empty", "expected some words"]),
    (["search", "cat", "--index", "notes", "--where", "colour = 'red'"], 2, ["'colour'", "doc_id, title"]),
    (["ask", "why", "--index", "notes", "--where", "page = 'seven'"], 2, ["page", "'seven'", "a number"]),
    (
        ["search", "cat", "--index", "notes", "--embedder.model", "no/model", "--embedder.engine", "torch"],
        1,
        ["'no/model' not found", "looked in", "path"],
    ),
    (
        ["ask", "why", "--index", "notes", "--embedder.model", "store", "--embedder.engine", "torch"],
        1,
        ["'store'", "modules.json"],
    ),
]


@pytest.mark.parametrize(("arguments", "code", "fragments"), READING, ids=lambda value: str(value)[:60])
def test_what_an_index_cannot_answer_is_refused_in_one_line(
    capsys: Capsys,
    monkeypatch: pytest.MonkeyPatch,
    store: Path,
    arguments: list[str],
    code: int,
    fragments: list[str],
) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.chdir(store.parent)
    run(capsys, *arguments, "--store", store).refused(*fragments, code=code)


@pytest.mark.parametrize("command", ["search", "ask"])
@pytest.mark.parametrize(
    ("where", "column", "expectation"),
    [("page =", 7, "a number"), ("page ? 1", 6, "one of = !="), ("", 1, "a field"), ("page = 'x", 8, "never closed")],
)
def test_a_filter_that_cannot_be_parsed_is_pointed_at(
    capsys: Capsys, store: Path, command: str, where: str, column: int, expectation: str
) -> None:
    ended = run(capsys, command, "cat", "--index", "notes", "--store", store, "--where", where)
    message, shown, caret = ended.err.splitlines()
    assert ended.code == 2
    assert message.startswith(f"error: filter, character {column}: ")
    assert expectation in message
    assert shown == f"  {where}"
    assert caret.index("^") == column + 1


QUERIES: list[tuple[str, list[str]]] = [
    ("", ["there is no query"]),
    ('{"id": "1", "text": "cat"}\nnot JSON\n', ["line 2 is not JSON"]),
    ("[1]\n", ["line 1 is a list", "'id' and 'text'"]),
    ('{"id": "1"}\n', ["line 1 has no 'text'", "it has id"]),
    ('{"text": "cat"}\n', ["line 1 has no 'id'"]),
    ('{"id": "1", "text": "  "}\n', ["line 1", "expected some words"]),
    ('{"id": "1", "text": 5}\n', ["line 1", "text=5"]),
    ('{"id": "1", "text": "cat"}\n{"id": "1", "text": "dog"}\n', ["line 2 and line 1 share id '1'"]),
]


@pytest.mark.parametrize(("content", "fragments"), QUERIES, ids=lambda value: str(value)[:40])
def test_a_wrong_row_of_a_file_of_queries_is_named_and_nothing_is_written(
    capsys: Capsys, tmp_path: Path, store: Path, content: str, fragments: list[str]
) -> None:
    (tmp_path / "q.jsonl").write_text(content)
    ended = run(capsys, "search", "--queries", "q.jsonl", "--output", "o.jsonl", "--index", "notes", "--store", store)
    ended.refused("queries=q.jsonl", *fragments, code=2)
    assert not (tmp_path / "o.jsonl").exists()


@pytest.mark.parametrize(
    ("queries", "output", "more", "fragments"),
    [
        ("gone.jsonl", "o.jsonl", [], ["queries=gone.jsonl", "no such file"]),
        ("latin.jsonl", "o.jsonl", [], ["queries=latin.jsonl", "not UTF-8"]),
        ("q.parquet", "o.jsonl", [], ["queries=q.parquet", "not Parquet"]),
        ("q.jsonl", "folder", [], ["output=folder", "directory"]),
        ("q.jsonl", "q.jsonl/o.jsonl", [], ["output=q.jsonl/o.jsonl", "expected a file in a folder"]),
        ("q.jsonl", "/proc/o.jsonl", [], ["output=/proc/o.jsonl", "expected a file in a folder"]),
        ("q.jsonl", "o.jsonl", ["--where", "colour = 1"], ["'colour'"]),
        ("q.jsonl", "o.jsonl", ["--snapshot", "3"], ["snapshot=3"]),
    ],
)
def test_a_search_job_that_cannot_be_is_refused_before_ray_starts(
    capsys: Capsys, tmp_path: Path, store: Path, queries: str, output: str, more: list[str], fragments: list[str]
) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "q.jsonl").write_text('{"id": "1", "text": "cat"}\n')
    (tmp_path / "q.parquet").write_text("not Parquet")
    (tmp_path / "latin.jsonl").write_bytes('{"id": "1", "text": "café"}\n'.encode("latin-1"))
    run(
        capsys, "search", "--queries", queries, "--output", output, "--index", "notes", "--store", store, *more
    ).refused(*fragments)
    assert not (tmp_path / "o.jsonl").exists()


def shard_file(store: Path, name: str) -> Path:
    return sorted(store.glob(f"indexes/notes/shards/*/{name}"))[0]


FILES = ["vectors.faiss", "vectors.f16", "rows.arrow", "postings/terms.arrow", "postings/rows.i32"]


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("damage", ["cut", "gone"])
def test_a_shard_that_lost_bytes_is_refused_and_named_by_every_command(
    capsys: Capsys, tmp_path: Path, store: Path, name: str, damage: str
) -> None:
    copy = copy_store(store, tmp_path / "copy")
    damaged = shard_file(copy, name)
    if damage == "cut":
        damaged.write_bytes(damaged.read_bytes()[:-8])
    else:
        damaged.unlink()
    for command in (["search", "cat", "--index", "notes"], ["ask", "why", "--index", "notes"]):
        run(capsys, *command, "--store", copy).refused(name.rsplit("/", 1)[-1], code=1)
    run(capsys, "index", "verify", "notes", "--store", copy).refused("snapshot 1 is damaged", name, code=1)


@pytest.mark.parametrize("name", FILES)
def test_verify_finds_one_wrong_bit_by_its_hash(capsys: Capsys, tmp_path: Path, store: Path, name: str) -> None:
    copy = copy_store(store, tmp_path / "copy")
    damaged = shard_file(copy, name)
    content = bytearray(damaged.read_bytes())
    content[len(content) // 2] ^= 1
    damaged.write_bytes(content)
    run(capsys, "index", "verify", "notes", "--store", copy).refused("sha256", name, "ingest again", code=1)


@pytest.mark.parametrize(
    ("name", "content"), [("rows.arrow", b"\xff"), ("postings/rows.i32", b"\x7f"), ("vectors.faiss", b"\x00")]
)
def test_garbage_of_the_right_size_ends_in_one_line(
    capsys: Capsys, tmp_path: Path, store: Path, name: str, content: bytes
) -> None:
    copy = copy_store(store, tmp_path / "copy")
    for damaged in copy.glob(f"indexes/notes/shards/*/{name}"):
        old = damaged.read_bytes()
        # Of the rows only a text is damaged: the file still opens.
        damaged.write_bytes(old.replace(b"animal", content * 6) if name == "rows.arrow" else content * len(old))
    run(capsys, "search", "animal number", "--index", "notes", "--store", copy).refused(code=1)


@pytest.mark.parametrize("content", [b"", b"{", b"\x00\xff", b'{"format_version": 2}'])
def test_a_damaged_manifest_is_refused_and_named_by_every_command(
    capsys: Capsys, tmp_path: Path, store: Path, content: bytes
) -> None:
    copy = copy_store(store, tmp_path / "copy")
    (copy / "indexes/notes/manifest-000001.json").write_bytes(content)
    (tmp_path / "a.txt").write_text("some text")
    for command in (
        ["search", "cat", "--index", "notes"],
        ["ask", "why", "--index", "notes"],
        ["index", "list"],
        ["index", "info", "notes"],
        ["index", "verify", "notes"],
        ["ingest", "a.txt", "--index", "notes"],
    ):
        run(capsys, *command, "--store", copy).refused("manifest-000001.json", "restore it", code=1)


@pytest.mark.usefixtures("ray_session")
@pytest.mark.parametrize(
    ("more", "fragments"),
    [
        (["--index-type", "Magic"], ["index_type=Magic", "expected 'auto'"]),
        (["--language", "klingon"], ["'klingon'", "english"]),
        (["--chunking.max-tokens", "100000"], ["100000", "at most 256"]),
        (["--store", "/proc/store"], ["/proc/store", "choose another --store"]),
        (["--store", "a.txt"], ["a.txt", "choose another --store"]),
        (["--store", "a.txt/below"], ["a.txt/below", "choose another --store"]),
        (["--embedder.engine", "torch", "--embedder.model", "no/model"], ["'no/model' not found", "looked in"]),
    ],
)
def test_what_cannot_work_is_refused_before_anything_is_read(
    capsys: Capsys, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, more: list[str], fragments: list[str]
) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    (tmp_path / "a.txt").write_text("some text")
    ended = run(capsys, "ingest", "a.txt", "--index", "x", *FAKE, *more)
    ended.refused(*fragments)
    assert "read" not in ended.err.split("error:")[0]
    assert list(tmp_path.glob("tandem-store/**/*.*")) == []


def test_a_named_file_that_no_reader_knows_and_sources_of_one_name_are_refused(capsys: Capsys, tmp_path: Path) -> None:
    (tmp_path / "picture.xyz").write_bytes(b"x")
    run(capsys, "ingest", "picture.xyz", "--index", "x").refused("'picture.xyz'", ".pdf", code=2)
    write_notes(tmp_path / "one" / "notes")
    write_notes(tmp_path / "two" / "notes")
    run(capsys, "ingest", "one/notes", "two/notes", "--index", "x").refused("'notes'", "--id-prefix", code=2)
    (tmp_path / "empty").mkdir()
    run(capsys, "ingest", "empty", "--index", "x").refused("'empty'", "no file", code=2)


def add_notes(capsys: Capsys, store: Path, source: Path, *more: object) -> Ended:
    return run(capsys, "ingest", source, "--index", "notes", "--store", store, *FAKE, *more)


@pytest.mark.usefixtures("ray_session")
def test_a_corpus_without_text_publishes_nothing(capsys: Capsys, tmp_path: Path) -> None:
    (tmp_path / "blank.txt").write_text(" \n")
    add_notes(capsys, tmp_path / "store", tmp_path / "blank.txt").refused("index=notes", "any text", code=1)
    assert not (tmp_path / "store" / "indexes" / "notes" / "manifest-000001.json").exists()


@pytest.mark.usefixtures("ray_session")
def test_files_that_cannot_be_read_are_counted_and_cost_only_themselves(
    capsys: Capsys, tmp_path: Path, store: Path
) -> None:
    copy = copy_store(store, tmp_path / "copy")
    before = rows(copy, "notes")
    mixed = tmp_path / "mixed"
    mixed.mkdir()
    (mixed / "fine.txt").write_text("A sentence that can be read.")
    (mixed / "latin.txt").write_bytes("Ein Satz über Käse, Brötchen und Übermut im Café.".encode("latin-1"))
    (mixed / "binary.txt").write_bytes(random.Random(0).randbytes(4096))
    (mixed / "broken.pdf").write_bytes(b"%PDF-1.7 and then nothing")
    (mixed / "broken.docx").write_bytes(b"PK\x03\x04 no archive")
    (mixed / "cut.jsonl.gz").write_bytes(gzip.compress(b'{"id": "z", "text": "zip"}\n' * 9)[:-20])
    (mixed / "picture.xyz").write_bytes(b"x")
    refused = add_notes(capsys, copy, mixed)
    refused.refused("max_failed=0.01", "first: mixed/", "--max-failed", code=1)
    assert rows(copy, "notes") == before
    shown = add_notes(capsys, copy, mixed, "--max-failed", "1", "--json").succeeded()
    summary = json.loads(shown)
    assert summary["counts"]["sources"] == 7
    assert summary["counts"]["sources_failed"] >= 4
    assert {"binary", "unknown-format"} <= set(summary["reasons"])
    after = rows(copy, "notes")
    assert "Ein Satz über Käse, Brötchen und Übermut im Café." in [row["text"] for row in after]
    assert all(row in after for row in before)


@pytest.mark.usefixtures("ray_session")
def test_two_documents_of_one_id_are_named_and_nothing_is_published(
    capsys: Capsys, tmp_path: Path, store: Path
) -> None:
    copy = copy_store(store, tmp_path / "copy")
    twins = tmp_path / "twins.jsonl"
    twins.write_text('{"id": "twin", "text": "the first"}\n{"id": "twin", "text": "the second"}\n')
    add_notes(capsys, copy, twins).refused("duplicate-id", "'twin'", "unique", code=1)
    assert [path.name for path in copy.glob("indexes/notes/manifest-*")] == ["manifest-000001.json"]


def test_errors_go_to_standard_error_and_answers_to_standard_output(cluster: dict[str, str], store: Path) -> None:
    failed = end(start(cluster, store.parent, "search", "cat", "--index", "nots", "--store", "store"))
    failed.refused("index=nots", code=1)
    assert failed.out == ""
    found = end(start(cluster, store.parent, "search", "cat", "--index", "notes", "--store", "store", "--json"))
    assert json.loads(found.succeeded())["hits"][0]["doc_id"] == "notes/cat.txt"
    assert found.err == ""


def test_more_cpus_than_there_are_do_not_wait_for_ever(capsys: Capsys, tmp_path: Path, ray_session: None) -> None:
    source = write_articles(tmp_path / "articles.jsonl", 4)
    demands = [f"--resources.{name}" for name in ("stage-cpus", "embed-cpus", "build-cpus")]
    more = [part for demand in demands for part in (demand, "64")]
    assert "published" in add_notes(capsys, tmp_path / "store", source, *more).succeeded()
