"""`tandem prepare` and `tandem mine` on the command line: what they print, and one clear line for every mistake."""

from __future__ import annotations

import gzip
import hashlib
import json
from pathlib import Path

import pytest
from command_line import FAKE, Ended, run

pytestmark = pytest.mark.usefixtures("elsewhere")

pytest_plugins = ["in_process"]
Capsys = pytest.CaptureFixture[str]


def row(number: int) -> dict[str, object]:
    """A row that is near no other."""
    word = hashlib.sha256(str(number).encode()).hexdigest()
    return {"prompt": f"What is {word}?", "completion": f"{word[:20]} is {number} and {word[20:40]}."}


def write(name: str, rows: list[object]) -> str:
    Path(name).write_text("".join((item if isinstance(item, str) else json.dumps(item)) + "\n" for item in rows))
    return name


def prepare(capsys: Capsys, *arguments: object) -> Ended:
    return run(capsys, "prepare", *arguments, "--name", "toy")


NEEDS_NOTHING: list[tuple[list[str], int, list[str]]] = [
    (["prepare"], 2, ["name is missing", "--name"]),
    (["prepare", "--name", "x"], 2, ["inputs is empty", "at least one JSON Lines or Parquet file"]),
    (["prepare", "absent.jsonl", "--name", "x"], 1, ["'absent.jsonl'", "no such file or folder"]),
    (["prepare", "a.jsonl", "--name", "../x"], 2, ["name='../x'", "expected letters"]),
    (["prepare", "a.jsonl", "--name", "x", "--kind", "poem"], 2, ["kind='poem'", "'messages'", "'qa'"]),
    (["prepare", "a.jsonl", "--name", "x", "--split.train", "0.5"], 2, ["train + validation + test = 0.6", "sum to 1"]),
    (["prepare", "a.jsonl", "--name", "x", "--near-threshold", "0.2"], 2, ["near_threshold='0.2'", "0.5"]),
    (["prepare", "a.jsonl", "--name", "x", "--max-rejected", "1%"], 2, ["max_rejected='1%'"]),
    (["prepare", "a.jsonl", "--name", "x", "--colour", "red"], 2, ["--colour", "tandem prepare --help"]),
    (["prepare", "a.jsonl", "--name", "x", "--kind", "qa", "--split.by", "query"], 2, ["split.by=query with kind=qa"]),
    (["prepare", "a.jsonl", "--name", "x", "--store", "ftp://host"], 2, ["store=ftp://host"]),
    (["mine", "--data", "d", "--index", "i"], 2, ["name is missing", "--name"]),
    (["mine", "--data", "d", "--index", "i", "--name", "a b"], 2, ["name='a b'", "expected letters"]),
    (["mine", "--data", "d@1", "--index", "i", "--name", "d"], 2, ["name='d' is that of the data", "another name"]),
    (["mine", "--data", "d", "--index", "i", "--name", "m"], 1, ["data=d", "of this name: none"]),
    (["mine", "--data", "d", "--index", "i", "--name", "m", "--as", "poem"], 2, ["output_kind='poem'", "'qa'"]),
    (["mine", "--data", "d", "--index", "i", "--name", "m", "--search.k", "5"], 2, ["search.k=5", "range_max"]),
    (["mine", "--data", "d", "--index", "i", "--name", "m", "--range-max", "2"], 2, ["num_negatives=4", "range_max=2"]),
    (["mine", "--data", "d", "--index", "i", "--name", "m", "--relative-margin", "-1"], 2, ["relative_margin='-1'"]),
]


@pytest.mark.parametrize(("arguments", "code", "fragments"), NEEDS_NOTHING)
def test_a_wrong_request_is_refused_before_any_work(
    capsys: Capsys, arguments: list[str], code: int, fragments: list[str]
) -> None:
    run(capsys, *arguments).refused(*fragments, code=code)
    assert not Path("tandem-store").exists()


@pytest.mark.parametrize("command", ["prepare", "mine"])
def test_help_names_every_key(capsys: Capsys, command: str) -> None:
    with pytest.raises(SystemExit) as ended:
        run(capsys, command, "--help")
    assert ended.value.code == 0
    text = capsys.readouterr().out
    keys = ("--source-column", "--near-threshold") if command == "prepare" else ("--as", "--relative-margin")
    assert all(key in text for key in (*keys, "--config", "--json", "--name", "--store"))
    assert f"tandem {command}" in text


BAD_INPUTS: list[tuple[str, list[object], list[str], int, list[str]]] = [
    ("empty file", [], [], 2, ["inputs", "no kind of training rows", "(none was found)"]),
    ("empty file of a kind", [], ["--kind", "completion"], 2, ["name=toy", "no row in the inputs"]),
    ("unknown columns", [{"colour": "red"}], [], 2, ["has the columns colour", "prompt", "name columns to rename"]),
    ("a column that is not there", [row(0)] * 3, ["--source-column", "book"], 1, ["3 of 3 rows", "no 'book'"]),
    ("a renamed column that is not there", [row(0)], ["--columns", '{"prompt": "ask"}'], 2, ["columns", "completion"]),
    ("no JSON at all", ["{", "{"], ["--kind", "completion"], 1, ["2 of 2 rows", "row 1 of bad.jsonl", "not JSON"]),
    ("too few rows", [row(0), row(1)], [], 2, ["no row falls into it", "of 2 groups"]),
    (
        "one label",
        [{**row(number), "label": True} for number in range(80)],
        ["--split.train", "0.6", "--split.validation", "0.2", "--split.test", "0.2"],
        1,
        ["training rows have label true", "needs both"],
    ),
]


@pytest.mark.usefixtures("in_process")
@pytest.mark.parametrize(
    ("rows", "settings", "code", "fragments"),
    [case[1:] for case in BAD_INPUTS],
    ids=[case[0] for case in BAD_INPUTS],
)
def test_inputs_that_cannot_be_prepared_are_told_in_one_line(
    capsys: Capsys, rows: list[object], settings: list[str], code: int, fragments: list[str]
) -> None:
    prepare(capsys, write("bad.jsonl", rows), *settings).refused(*fragments, code=code)
    assert not Path("tandem-store/datasets").exists()


@pytest.mark.usefixtures("in_process")
def test_a_damaged_file_is_named_and_nothing_is_prepared(capsys: Capsys) -> None:
    write("a.jsonl", [row(number) for number in range(2000)])
    Path("a.jsonl.gz").write_bytes(gzip.compress(Path("a.jsonl").read_bytes())[:-4000])
    prepare(capsys, "a.jsonl.gz").refused("a.jsonl.gz")
    Path("b.parquet").write_bytes(b"PAR1 and then nothing of the kind")
    prepare(capsys, "b.parquet").refused("b.parquet")
    assert not Path("tandem-store/datasets").exists()


@pytest.mark.usefixtures("ray_session")
def test_what_was_prepared_is_told_for_people_and_for_machines(capsys: Capsys) -> None:
    Path("a.jsonl.gz").write_bytes(
        gzip.compress("".join(json.dumps(row(number)) + "\n" for number in range(300)).encode())
    )
    split = ("--split.train", 0.8, "--split.validation", 0.1, "--split.test", 0.1)
    text = prepare(capsys, "a.jsonl.gz", *split).succeeded()
    assert text.startswith("prepared ")
    assert "read       300 rows of 1 files: 0 rejected" in text
    assert "train" in text
    again = json.loads(prepare(capsys, "a.jsonl.gz", *split, "--json").succeeded())
    assert again["outcome"] == "unchanged"
    assert again["card"]["rows"] == 300
    assert again["data"] == f"toy@{again['card']['hash']}"
    assert Path(again["uri"].removeprefix("file://"), "card.md").is_file()


@pytest.mark.usefixtures("in_process")
def test_tiny_splits_and_a_large_group_are_warned_of(capsys: Capsys) -> None:
    rows: list[object] = [
        {**row(number), "source": "all of it" if number < 150 else f"s{number}"} for number in range(300)
    ]
    split = ("--split.train", 0.9, "--split.validation", 0.05, "--split.test", 0.05)
    text = prepare(capsys, write("a.jsonl", rows), *split).succeeded()
    assert "warning    group 'all of it' has 150 of 300 rows (50.0%), all in" in text
    assert "name another source_column" in text
    assert "validation has" in text
    (card,) = Path("tandem-store/datasets/toy").glob("*/card.md")
    assert "group 'all of it' has 150 of 300 rows" in card.read_text()


@pytest.mark.usefixtures("ray_session", "in_process")  # ingest runs on Ray
def test_mining_from_the_command_line_and_from_a_file(capsys: Capsys) -> None:
    words = [hashlib.sha256(str(number).encode()).hexdigest() for number in range(60)]
    texts = [f"{word[:9]} {word[10:19]} {word[20:29]} says what {n} is." for n, word in enumerate(words)]
    write("corpus.jsonl", [{"id": f"p{n}", "text": text} for n, text in enumerate(texts)])
    questions = [f"{word[:9]} {word[10:19]} {words[(n + 1) % 60][:9]}" for n, word in enumerate(words)]
    write(
        "rows.jsonl",
        [{"query": questions[n], "positive": texts[n], "positive_id": f"p{n}"} for n in range(60)],
    )
    run(capsys, "ingest", "corpus.jsonl", "--index", "notes", *FAKE).succeeded()
    split = ("--split.train", 0.8, "--split.validation", 0.2, "--split.test", 0, "--split.by", "query")
    prepare(capsys, "rows.jsonl", *split).succeeded()
    Path("mine.yaml").write_text(
        "data: toy\nindex: notes\nname: mined\nnum_negatives: 1\nsearch: {mode: lexical}\nmin_score: 0.001\n"
    )
    text = run(capsys, "mine", "--config", "mine.yaml").succeeded()
    assert text.startswith("mined ")
    assert "60 of 60 are in the index; first for 60 of 60 rows" in text
    again = json.loads(run(capsys, "mine", "--config", "mine.yaml", "--json").succeeded())
    assert again["outcome"] == "unchanged"
    assert sum(split["negatives"] for split in again["card"]["mining"]["splits"].values()) == 60
    run(capsys, "mine", "--config", "mine.yaml", "--as", "qa").refused("retrieval rows have no answers", code=2)
    run(capsys, "mine", "--config", "mine.yaml", "--index", "none").refused("index=none", "no such index", code=1)
