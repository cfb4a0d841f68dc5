"""What becomes of rows on their way to a trainer is counted, and told."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import train_bases
from evaluation_tasks import task
from train_runs import outcome, settings, train_alone

from ray_jobs.train.job import TrainSummary
from ray_jobs.train.methods import method_of
from ray_jobs.train.methods.tally import Tally, lines

# At twelve tokens two are cut, and the prompt of one fills them.
ROWS = [{"prompt": "ant", "completion": " bee"}] * 9
CUT = [{"prompt": "ant bee", "completion": " cat" * 12}] * 2
FULL = [{"prompt": "ant" + " ant" * 11, "completion": " bee"}]


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return train_bases.language_model(tmp_path_factory.mktemp("tally"))


def completions(folder: Path) -> Path:
    rows = {"train": [*CUT, *ROWS, *FULL], "validation": [*ROWS, *CUT]}
    return train_bases.prepared(folder, rows, train_bases.COMPLETION)


@pytest.mark.parametrize("packing", [False, True])
def test_rows_that_are_cut_and_left_out_are_counted_also_when_they_are_found_again(
    tmp_path: Path, base: Path, packing: bool
) -> None:
    data = completions(tmp_path / "data")
    for _ in range(2):
        few = {"global_batch": 4, "micro_batch": 2}
        asked = task(tmp_path, "sft", base, data, sequence={"max_length": 12, "packing": packing}, optimisation=few)
        trainer = method_of("sft").trainer(asked)
        why = "nothing to learn within 12 tokens"
        assert asked.tallies.splits == {"train": Tally(12, 1, why, 2, 12), "validation": Tally(11, 0, why, 2, 12)}
        assert not {"cut", "last_alone"} & set(trainer.train_dataset.column_names)


# With their special tokens: a query of 1 word and a passage of 7 are 11 tokens together, 3 and 9 apart.
SHORT = {"query": "ant", "positive": "bee cat", "negatives": ["cat", "bee " * 30]}
LONG = {"query": "ant", "positive": "bee " * 7, "negatives": ["cat"]}
HARD = {"query": "ant", "positive": "bee", "negatives": ["cat " * 8]}


@pytest.mark.parametrize(
    ("method", "length", "cut"), [("reranker", 11, 1), ("reranker", 10, 2), ("embedder", 9, 1), ("embedder", 8, 2)]
)
def test_rows_that_are_not_read_to_their_end_are_counted(tmp_path: Path, method: str, length: int, cut: int) -> None:
    rows = [*[SHORT] * 6, LONG, HARD]
    data = train_bases.prepared(tmp_path / "data", {"train": rows, "validation": [SHORT] * 8}, train_bases.RETRIEVAL)
    base = train_bases.embedder(tmp_path / "base") if method == "embedder" else train_bases.encoder(tmp_path / "base")
    changes = {"sequence": {"max_length": length}, method: {"negatives": 1}}
    for _ in range(2):
        asked = task(tmp_path, method, base, data, **changes)
        method_of(method).trainer(asked)
        told = [asked.tallies.splits[split] for split in ("train", "validation")]
        assert told == [Tally(8, 0, "no negative", cut, length), Tally(8, 0, "no negative", 0, length)]


@pytest.mark.parametrize(("loss", "left_out"), [("lambda", 2), ("bce", 0)])
def test_lists_without_negatives_are_left_out_and_counted(tmp_path: Path, loss: str, left_out: int) -> None:
    rows = {"train": [*[LONG] * 10, *[{**LONG, "negatives": []}] * 2], "validation": [LONG] * 8}
    data = train_bases.prepared(tmp_path / "data", rows, train_bases.RETRIEVAL)
    asked = task(tmp_path, "reranker", train_bases.encoder(tmp_path / "base"), data, reranker={"loss": loss})
    method_of("reranker").trainer(asked)
    found = asked.tallies.splits["train"]
    assert (found.rows, found.left_out, found.why) == (12, left_out, "no negative")


def test_questions_that_fill_a_window_are_counted(tmp_path: Path) -> None:
    row = {"question": "ant", "passage": "bee cat " * 20, "answers": ["bee"], "starts": [0]}
    rows = {"train": [*[row] * 9, {**row, "question": "ant " * 40}], "validation": [row] * 8}
    data = train_bases.prepared(tmp_path / "data", rows, train_bases.QA)
    base = train_bases.looking(tmp_path / "base")
    asked = task(tmp_path, "reader", base, data, sequence={"max_length": 24}, reader={"stride": 4})
    trainer = method_of("reader").trainer(asked)
    why = "the question leaves no room for a passage"
    assert asked.tallies.splits == {"train": Tally(10, 1, why), "validation": Tally(8, 0, why)}
    assert "first" not in trainer.train_dataset.column_names


def test_a_finished_run_tells_what_became_of_its_rows(tmp_path: Path, base: Path) -> None:
    changes: dict[str, Any] = {"sequence": {"max_length": 12}, "optimisation": {"max_steps": 1}}
    config = settings("sft", base, completions(tmp_path / "data"), tmp_path / "store", "m", **changes)
    found = lines(outcome(train_alone(config)))
    assert found == (
        "train: 2 rows cut at max_length=12, 1 left out (nothing to learn within 12 tokens), of 12 rows",
        "validation: 2 rows cut at max_length=12, of 11 rows",
    )
    about: dict[str, Any] = {"run": "r", "model": "m", "steps": 1, "best_step": 1, "metrics": {}, "restarts": 0}
    summary = TrainSummary(name="m", **about, trained=True, seconds=1.0, rows=found)
    assert set(found) < set(summary.lines())


def test_a_run_of_an_earlier_version_tells_nothing_of_its_rows() -> None:
    assert lines({"steps": 8}) == lines({"rows": {"train": {"rows": 8}}}) == ()
    assert lines({"rows": {"train": {"rows": 8, "last_alone": 3}}}) == (
        "train: 3 learned from their last answer alone, of 8 rows",
    )
