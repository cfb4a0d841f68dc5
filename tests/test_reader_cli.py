"""`tandem ask --reader NAME`, through the command line."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from command_line import Ended, run
from small_index import SmallDocument, build_index
from tiny_readers import fitted_to_find
from tiny_rerankers import plain

from ray_jobs.answer.quoting import ABSTENTION
from ray_jobs.index.manifest import commit
from ray_jobs.models.embedder import Embedder, EmbedderConfig
from ray_jobs.storage import LocalStorage

pytestmark = pytest.mark.usefixtures("elsewhere")

Capsys = pytest.CaptureFixture[str]
TEXTS = {
    "zoo": "The fox sleeps all day. An owl sees in the dark.",
    "farm": "A hen and a pig live here. 猫在房子里睡觉。",
}


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store with an index `notes`, embedded by the fake, and a fitted reader `finder` among its models."""
    folder = tmp_path_factory.mktemp("made")
    storage = LocalStorage(folder / "store")
    embedder = Embedder.load(EmbedderConfig(engine="fake"))
    documents = [
        SmallDocument(name, [(text, embedder.encode_documents([text])[0].tolist())]) for name, text in TEXTS.items()
    ]
    manifest = build_index(storage, folder / "build", documents, 1, name="notes")
    commit(storage, manifest.model_copy(update={"embedder": embedder.identity}))
    shutil.copytree(fitted_to_find(tmp_path_factory.getbasetemp()), folder / "store" / "models" / "finder")
    return folder / "store"


def asked(capsys: Capsys, store: Path, *arguments: object, question: str = "Where is the owl?") -> Ended:
    return run(capsys, "ask", question, "--index", "notes", "--store", store, *arguments)


def answered(capsys: Capsys, store: Path, *arguments: object, **named: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(asked(capsys, store, "--json", *arguments, **named).succeeded())
    return found


def test_ask_gives_the_exact_span_that_the_reader_finds(capsys: Capsys, store: Path) -> None:
    found = answered(capsys, store, "--reader", "finder")
    number = found["citations"][0]["number"]
    assert found["answer"] == f"owl [{number}]\nAn owl sees in the dark. [{number}]"
    assert found["grounded"]
    for citation in found["citations"]:
        assert TEXTS[citation["doc_id"]][citation["start"] : citation["end"]] == citation["quote"]


def test_ask_answers_in_another_script(capsys: Capsys, store: Path) -> None:
    found = answered(capsys, store, "--reader", "finder", "--mode", "dense", question="猫在哪里？")
    assert [citation["quote"] for citation in found["citations"]] == ["猫", "猫在房子里睡觉。"]


def test_ask_abstains_where_no_passage_answers(capsys: Capsys, store: Path) -> None:
    ended = asked(capsys, store, "--reader", "finder", "--mode", "dense", question="Where is the zebra?")
    assert ended.succeeded().splitlines()[0] == ABSTENTION
    assert ended.err == ""
    raised = answered(capsys, store, "--reader", "finder", "--reader-options.threshold", "1000")
    assert not raised["grounded"]


def test_without_a_reader_ask_quotes_as_before(capsys: Capsys, store: Path) -> None:
    plainly, limited = answered(capsys, store), answered(capsys, store, "--reader.max-quotes", 1)
    assert plainly["answer"].startswith("An owl sees in the dark. [")
    assert len(limited["citations"]) == 1


def test_a_reader_may_be_named_by_path_in_a_file_and_in_the_environment(
    capsys: Capsys, store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    by_name = answered(capsys, store, "--reader", "finder")["answer"]
    assert answered(capsys, store, "--reader", store / "models" / "finder")["answer"] == by_name
    (tmp_path / "c.yaml").write_text("reader: finder\nreader_options: {threads: 1}\n")
    assert answered(capsys, store, "--config", "c.yaml")["answer"] == by_name
    monkeypatch.setenv("TANDEM_READER", "finder")
    assert answered(capsys, store)["answer"] == by_name


def test_a_server_takes_the_name_of_a_reader(capsys: Capsys, store: Path) -> None:
    shown = run(capsys, "serve", "--index", "notes", "--store", store, "--generator.reader", "finder", "--dry-run")
    assert "    generator:\n      reader: finder\n" in shown.succeeded()


def refused(capsys: Capsys, store: Path, arguments: list[object], code: int, fragments: list[str]) -> None:
    asked(capsys, store, *arguments).refused(*fragments, code=code)


@pytest.mark.parametrize(
    ("arguments", "code", "fragments"),
    [
        (["--reader", " "], 2, ["reader=' '", "name or path of a reader"]),
        (["--reader", "no/model"], 1, ["'no/model' not found", "looked in", "models/no/model"]),
        (["--reader", "sentence-transformers/all-MiniLM-L6-v2"], 1, ["is no reader", "BertModel"]),
        (["--reader", "finder", "--reader-options.precision", "int3"], 2, ["reader_options.precision", "'int3'"]),
        (["--reader", "finder", "--reader-options.max-tokens", "999"], 2, ["max_tokens=999", "80 positions"]),
        (["--reader", "finder", "--reader-options.max-tokens", "8"], 2, ["takes 8 tokens", "shorten the question"]),
        (["--reader.max-quotes", "0"], 2, ["reader.max_quotes='0'"]),
    ],
)
def test_a_reader_that_cannot_be_is_refused_in_one_line(
    capsys: Capsys, store: Path, arguments: list[object], code: int, fragments: list[str]
) -> None:
    refused(capsys, store, arguments, code, fragments)


def test_a_reranker_is_refused_as_a_reader(capsys: Capsys, store: Path, tmp_path: Path) -> None:
    refused(capsys, store, ["--reader", plain(tmp_path)], 1, ["is no reader", "BertForSequenceClassification"])


def test_help_names_the_reader(capsys: Capsys) -> None:
    with pytest.raises(SystemExit):
        run(capsys, "ask", "--help")
    shown = capsys.readouterr().out
    for part in ("--reader NAME", "--reader.max-quotes", "--reader-options.threshold"):
        assert part in shown
