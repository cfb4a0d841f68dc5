"""Rows of earlier learning among the training rows: how many, in which order, and never those that are measured."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import hypothesis
import pyarrow.parquet as pq
import pytest
import train_bases
from evaluation_tasks import task
from hypothesis import given
from hypothesis import strategies as st
from local_runs import KillAfter, Killed, train
from train_runs import losses, plan_of, settings

from ray_jobs.errors import NotFoundError, UsageError
from ray_jobs.train.config import TrainConfig
from ray_jobs.train.methods import Splits
from ray_jobs.train.methods.rows import mixed, read_splits
from ray_jobs.train.methods.sft import SupervisedFineTuning
from ray_jobs.train.training_data import splits_of


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A base, two sets of prompts with completions that share no row, and one of conversations."""
    made = tmp_path_factory.mktemp("replay")
    train_bases.language_model(made / "base")
    train_bases.completions(made / "new", train=48)
    rows = [{"prompt": f"ant {n}", "completion": f" bee {n}"} for n in range(40)]
    train_bases.prepared(
        made / "old", {"train": rows[:30], "validation": rows[30:34], "test": rows[34:]}, train_bases.COMPLETION
    )
    train_bases.conversations(made / "conversations")
    return made


def config(folder: Path, name: str = "mixed", **changes: Any) -> TrainConfig:
    chosen: dict[str, Any] = {"replay": {"data": str(folder / "old"), "share": 0.25}, **changes}
    return settings("sft", folder / "base", folder / "new", folder / "store", name, **chosen)


def table(texts: list[str]) -> Any:
    from datasets import Dataset

    return Dataset.from_dict({"prompt": texts, "completion": texts})


@hypothesis.settings(max_examples=25)
@given(st.integers(1, 60), st.integers(1, 20), st.floats(0.01, 0.9), st.integers(0, 3))
def test_the_mix_has_the_share_to_the_nearest_row_and_each_training_row_once(
    own: int, other: int, share: float, seed: int
) -> None:
    train_rows, replay = table([f"new {n}" for n in range(own)]), table([f"old {n}" for n in range(other)])
    found = mixed(train_rows, replay, "completion", share, seed)["prompt"]
    counted = Counter(found)
    drawn = {text: count for text, count in counted.items() if text.startswith("old")}
    assert [counted[f"new {n}"] for n in range(own)] == [1] * own
    assert abs(sum(drawn.values()) - share * len(found)) <= 0.5
    # None comes again before all have come.
    assert not drawn or max(drawn.values()) - (min(drawn.values()) if len(drawn) == other else 0) <= 1
    assert list(found) == list(mixed(train_rows, replay, "completion", share, seed)["prompt"])


def test_a_worker_reads_the_mix(folder: Path) -> None:
    chosen = task(folder, "sft", folder / "base", folder / "new", replay={"data": str(folder / "old"), "share": 0.25})
    splits = Splits(
        chosen.splits.train, chosen.splits.validation, "1" * 64, folder / "cache", folder / "old" / "train.parquet"
    )
    rows, validation, kind = read_splits(
        type(chosen)(**{**{name: getattr(chosen, name) for name in chosen.__slots__}, "splits": splits}),
        SupervisedFineTuning(),
    )
    assert (len(rows), len(validation), kind) == (64, 8, "completion")
    assert sum(prompt.startswith("ant ") and prompt[4:].isdigit() for prompt in rows["prompt"]) == 16


def test_a_run_with_replay_goes_on_with_the_very_next_row(folder: Path) -> None:
    whole, killed = config(folder, "whole"), config(folder, "broken")
    train(whole)
    with pytest.raises(Killed):
        train(killed, KillAfter(6))
    train(killed)
    assert losses(killed) == pytest.approx(losses(whole), rel=1e-5)


def test_what_is_replayed_and_how_much_of_it_makes_another_run(folder: Path) -> None:
    from ray_jobs.storage import open_storage

    chosen = (
        config(folder),
        config(folder, replay={"data": str(folder / "old"), "share": 0.5}),
        config(folder).model_copy(update={"replay": None}),
    )
    plans = [plan_of(one) for one in chosen]
    storage = open_storage(chosen[0].store)
    assert len({plan.run for plan in plans}) == 3
    assert len({splits_of(storage, plan).hash for plan in plans}) == 3
    assert len({plan.data_hash for plan in plans}) == 1


def test_what_is_measured_is_no_part_of_what_a_run_is(folder: Path) -> None:
    measured = config(folder, evaluation={"test": True, "retained": {"old": str(folder / "old")}})
    assert plan_of(measured).run == plan_of(config(folder)).run


def test_the_rows_that_are_measured_are_not_replayed(folder: Path) -> None:
    same = str(folder / "old" / "train.parquet")
    with pytest.raises(UsageError, match=r"evaluation.retained.old and replay.data are the same rows"):
        plan_of(config(folder, evaluation={"retained": {"old": same}}))


def test_a_set_that_shares_rows_with_what_is_replayed_is_refused(folder: Path) -> None:
    rows = pq.read_table(folder / "old" / "train.parquet").to_pylist()
    shared = [{"prompt": row["prompt"], "completion": row["completion"]} for row in rows[:2]]
    other = [{"prompt": "elk", "completion": " fox"}]
    data = train_bases.prepared(folder / "shared", {"test": [*shared, *other]}, train_bases.COMPLETION)
    with pytest.raises(UsageError, match=r"evaluation.retained.old and replay.data share 2 of 3 rows"):
        plan_of(config(folder, evaluation={"retained": {"old": str(data)}}))


def test_the_rows_by_which_the_checkpoint_is_chosen_are_not_replayed(folder: Path) -> None:
    rows = pq.read_table(folder / "old" / "train.parquet").to_pylist()
    chosen_by = pq.read_table(folder / "new" / "validation.parquet").to_pylist()
    mixed_up = [{"prompt": row["prompt"], "completion": row["completion"]} for row in [*rows, chosen_by[3]]]
    replayed = train_bases.prepared(folder / "mixed-up", {"train": mixed_up}, train_bases.COMPLETION)
    with pytest.raises(
        UsageError, match=r"data=.*new \(validation\) and replay.data share 1 of \d rows: rows that are l"
    ):
        plan_of(config(folder, replay={"data": str(replayed)}))


def test_other_splits_of_the_set_that_is_replayed_may_be_measured(folder: Path) -> None:
    assert plan_of(config(folder, evaluation={"retained": {"old": str(folder / "old")}})).replay is not None


def test_rows_of_another_kind_are_not_replayed(folder: Path) -> None:
    with pytest.raises(UsageError, match=r"its rows are of kind messages, those of data=.* of kind completion"):
        plan_of(config(folder, replay={"data": str(folder / "conversations")}))


def test_a_retained_set_of_another_kind_is_refused_before_training(folder: Path) -> None:
    data = train_bases.retrieval(folder / "retrieval")
    with pytest.raises(UsageError, match=r"evaluation.retained.far: its rows are of kind retrieval, and method=sft"):
        plan_of(config(folder, evaluation={"retained": {"far": str(data)}}))


def test_a_set_that_is_not_there_is_refused_before_training(folder: Path) -> None:
    with pytest.raises(NotFoundError, match=r"nowhere"):
        plan_of(config(folder, evaluation={"retained": {"old": "nowhere"}}))


def test_a_set_without_rows_is_refused(folder: Path) -> None:
    data = train_bases.prepared(folder / "empty", {}, train_bases.COMPLETION)
    with pytest.raises(UsageError, match=r"evaluation.retained.old=.*: no rows in test or validation"):
        plan_of(config(folder, evaluation={"retained": {"old": str(data)}}))


def test_a_set_that_is_a_file_of_another_format_is_refused_before_training(folder: Path, tmp_path: Path) -> None:
    file = tmp_path / "rows.jsonl"
    file.write_text('{"prompt": "ant", "completion": "bee"}\n')
    with pytest.raises(UsageError, match=r"rows.jsonl' is no Parquet file .*; prepare other files first: tandem"):
        plan_of(config(folder, evaluation={"retained": {"old": str(file)}}))
