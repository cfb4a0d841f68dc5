"""Recipes: inputs made of public data, and steps that the commands take."""

from __future__ import annotations

import json
import os
import re
from collections import Counter
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from cluster import cli, recipe
from ray_jobs.errors import NotFoundError, UsageError
from ray_jobs.train.recipes.inputs import write_inputs

NAMES = ("squadshifts-questions.jsonl", "squadshifts-corpus.jsonl", "squad-v1-dev.jsonl")
CLAIMS = ("scifact-train.jsonl", "scifact-test.jsonl", "scifact-corpus.jsonl")
WIKI = {"id": "w-0", "title": "The_Owl", "text": "An owl sees in the dark.", "source": "new_wiki"}
REVIEW = {"id": "r-0", "title": "Reviews_3", "text": "A good lamp.", "source": "amazon_reviews"}


def table(folder: Path, name: str, rows: list[dict[str, Any]]) -> None:
    file = folder / f"{name}.parquet"
    file.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.Table.from_pylist(rows), file)


@pytest.fixture
def data(tmp_path: Path) -> Path:
    folder = tmp_path / "data"
    asked = {"answers": ["owl"], "answer_starts": [3]}
    table(folder, "squadshifts/passages", [WIKI, REVIEW])
    table(
        folder,
        "squadshifts/questions",
        [
            {"id": "q1", "question": "What sees?", "passage_id": "w-0", **asked},
            {"id": "q2", "question": "What lamp?", "passage_id": "r-0", "answers": ["good"], "answer_starts": [2]},
        ],
    )
    table(folder, "squad_v1_dev/passages", [{key: WIKI[key] for key in ("id", "title", "text")}])
    table(folder, "squad_v1_dev/questions", [{"id": "d1", "question": "Who sees?", "passage_id": "w-0", **asked}])
    table(folder, "beir_scifact/corpus", [{"id": d, "title": f"T{d}", "text": f"Text {d}."} for d in "123"])
    table(folder, "beir_scifact/queries", [{"id": q, "text": f"Claim {q}."} for q in "ab"])
    table(
        folder,
        "beir_scifact/qrels",
        [
            {"query_id": "a", "doc_id": "1", "score": 1, "split": "train"},
            {"query_id": "a", "doc_id": "2", "score": 1, "split": "train"},
            {"query_id": "b", "doc_id": "3", "score": 1, "split": "test"},
        ],
    )
    return folder


def rows(file: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in file.read_text().splitlines()]


def test_questions_come_with_passage_answers_and_what_stays_together(data: Path, tmp_path: Path) -> None:
    questions, corpus, dev = map(rows, write_inputs(data, NAMES, tmp_path / "inputs"))
    assert [row["source"] for row in questions] == ["The Owl", "r-0"]
    for row in (*questions, *dev):
        for answer, start in zip(row["answers"], row["starts"], strict=True):
            assert row["passage"].startswith(answer, start)
    assert [row["title"] for row in corpus] == ["The Owl", ""]


def test_claims_to_train_on_are_none_of_those_to_test_on(data: Path, tmp_path: Path) -> None:
    train, test, corpus = map(rows, write_inputs(data, CLAIMS, tmp_path / "inputs"))
    assert [(row["query"], row["positive_id"]) for row in train] == [("Claim a.", ["1", "2"])]
    assert train[0]["positive"] == ["T1\nText 1.", "T2\nText 2."]
    assert [row["query"] for row in test] == ["Claim b."]
    assert len(corpus) == 3


def test_inputs_are_made_once_and_whole(data: Path, tmp_path: Path) -> None:
    (file,) = write_inputs(data, NAMES[:1], tmp_path / "inputs")
    before = file.stat().st_mtime_ns
    write_inputs(data, NAMES[:1], tmp_path / "inputs")
    assert file.stat().st_mtime_ns == before
    with pytest.raises(NotFoundError, match=r"TANDEM_DATA=.*squadshifts/passages.parquet is missing"):
        write_inputs(tmp_path, NAMES[:1], tmp_path / "others")
    assert list((tmp_path / "others").glob("*.jsonl")) == []
    with pytest.raises(UsageError, match="inputs=other: expected one of"):
        write_inputs(data, ("other",), tmp_path)


@pytest.mark.parametrize("name", ["reader", "reranker", "embedder-scifact"])
def test_every_step_of_a_recipe_is_one_that_its_command_takes(name: str, tmp_path: Path) -> None:
    from importlib import import_module

    found = recipe.read(name)
    steps = recipe.steps_of(found, tmp_path)
    made = Counter(command for command, _ in steps)
    assert (made["train"], steps[-1][0]) == (1, "train")
    for command, keys in steps:
        module = import_module(f"cluster.commands.{command}")
        model = getattr(module, cli.COMMANDS[command][0])
        model.model_validate(keys)
        assert "{" not in json.dumps([keys.get("inputs"), keys.get("sources"), keys.get("evaluation_sets")]).replace(
            '{"', ""
        )


@pytest.mark.parametrize("name", ["reader", "reranker", "embedder-scifact"])
def test_no_recipe_learns_from_what_is_evaluated_on(name: str, tmp_path: Path) -> None:
    for command, keys in recipe.steps_of(recipe.read(name), tmp_path):
        learned = json.dumps({key: value for key, value in keys.items() if key != "evaluation_sets"})
        assert not re.search(r"dev\.jsonl|test\.jsonl", learned), command
        if command == "prepare":
            assert keys["evaluation_sets"], "leakage is looked for"


def test_a_recipe_that_is_not_there_is_refused_in_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert recipe.main(["soup"]) == 1
    assert capsys.readouterr().err == "error: no recipe 'soup': expected one of embedder-scifact, reader, reranker\n"
    assert recipe.main([]) == 2


@pytest.mark.parametrize(
    ("store", "folder"),
    [
        (None, "tandem-store/inputs"),
        ("mine", "mine/inputs"),
        ("s3://bucket/store", "tandem-store/inputs"),
    ],
)
def test_inputs_lie_on_this_machine_whatever_the_store(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, store: str | None, folder: str
) -> None:
    (tmp_path / "recipes").mkdir()
    (tmp_path / "recipes" / "toy.yaml").write_text("makes: nothing\ninputs: []\nsteps:\n  - index: {action: list}\n")
    written: list[Path] = []
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(recipe, "FOLDER", tmp_path / "recipes")
    monkeypatch.setattr(cli, "run", lambda arguments: 0)
    monkeypatch.setattr("ray_jobs.train.recipes.inputs.write_inputs", lambda data, names, into: written.append(into))
    monkeypatch.delenv("TANDEM_STORE", raising=False)
    if store is not None:
        monkeypatch.setenv("TANDEM_STORE", store)
    assert recipe.main(["toy"]) == 0
    assert written == [tmp_path / folder]


def test_the_steps_run_as_commands_until_one_fails(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    recipes, ran = tmp_path / "recipes", []
    recipes.mkdir()
    (recipes / "toy.yaml").write_text(
        "makes: nothing\ninputs: [squadshifts-corpus.jsonl]\n"
        "steps:\n  - ingest: {sources: ['{inputs}/squadshifts-corpus.jsonl'], index: toy}\n"
        "  - index: {action: list}\n  - ask: {question: who}\n"
    )

    def fails_at_index(arguments: list[str]) -> int:
        assert "TANDEM_DATA" not in os.environ  # it would be their key `data`
        ran.append((arguments[0], Path(arguments[2]).read_text()))
        return 3 if arguments[0] == "index" else 0

    monkeypatch.setattr(recipe, "FOLDER", recipes)
    monkeypatch.setattr(cli, "run", fails_at_index)
    monkeypatch.setenv("TANDEM_DATA", str(data))
    monkeypatch.setenv("TANDEM_STORE", str(tmp_path / "store"))
    assert recipe.main(["toy"]) == 3
    assert [command for command, _ in ran] == ["ingest", "index"]
    assert f"{tmp_path}/store/inputs/squadshifts-corpus.jsonl" in ran[0][1]
    assert "$ tandem ingest" in capsys.readouterr().out
