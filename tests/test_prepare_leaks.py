"""No question and no document is in two splits of prepared data, nor in a set to evaluate on."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest
from prepare_runs import card_of, question, rows_of, run, write

from ray_jobs.errors import UsageError
from ray_jobs.train.data.config import SplitConfig
from ray_jobs.train.data.splitting import SPLITS, split_of

pytest_plugins = ["in_process"]
on_ray = pytest.mark.usefixtures("ray_session")
here = pytest.mark.usefixtures("in_process")


@here
def test_a_row_that_is_removed_makes_no_other_row_a_leak(tmp_path: Path) -> None:
    words = [hashlib.sha256(f"word {number}".encode()).hexdigest()[:8] for number in range(60)]
    split = SplitConfig(train=0.6, validation=0.2, test=0.2)
    group = {name: next(f"g{n}" for n in range(99) if SPLITS[split_of(f"g{n}", split)] == name) for name in SPLITS}
    asked, again, once_more = words[:40], words[:35] + words[40:45], words[45:50] + words[5:35] + words[40:45]
    leaking = [
        {"prompt": " ".join(again), "completion": "It is asked again.", "doc_id": group["validation"]},
        {"prompt": " ".join(once_more), "completion": "And once more, in other words.", "doc_id": group["train"]},
    ]
    source = write(tmp_path / "a.jsonl", [*map(question, range(120)), *leaking])
    held = write(tmp_path / "held.jsonl", [{"question": " ".join(asked)}])
    alone = run(tmp_path, source, near_threshold=0.7)
    assert [(leak.split, leak.place) for leak in card_of(alone).leaks] == [("train", "validation")]
    prepared = run(tmp_path, source, near_threshold=0.7, evaluation_sets={"held": str(held)})
    assert [(leak.split, leak.place) for leak in card_of(prepared).leaks] == [("validation", "held")]
    assert leaking[1]["prompt"] in {row["prompt"] for row in rows_of(prepared)["train"]}


@here
def test_what_an_evaluation_set_asks_is_removed_unless_leaks_are_kept(tmp_path: Path) -> None:
    source = write(tmp_path / "a.jsonl", [question(number) for number in range(200)])
    asked = write(tmp_path / "held.jsonl", [{"question": str(question(n)["prompt"]).upper()} for n in (3, 50)])
    sets = {"evaluation_sets": {"held": str(asked)}}
    prepared = run(tmp_path, source, **sets)
    assert card_of(prepared).leaked == 2
    assert sum(leak.same for leak in prepared.card.leaks) == 2
    prompts = {row["prompt"] for rows in rows_of(prepared).values() for row in rows}
    assert not prompts & {question(3)["prompt"], question(50)["prompt"]}
    kept = run(tmp_path, source, keep_leaks=True, **sets)
    assert (kept.card.leaked, sum(leak.same for leak in kept.card.leaks)) == (0, 2)


@here
def test_one_question_asked_in_two_splits_is_removed_from_training(tmp_path: Path) -> None:
    rows = [{**question(n), "completion": f"{side} {n}", "doc_id": f"{side}{n}"} for n in range(80) for side in "ab"]
    prepared = run(tmp_path, write(tmp_path / "a.jsonl", rows))
    assert card_of(prepared).leaked > 0
    prompts = [{row["prompt"] for row in rows} for rows in rows_of(prepared).values()]
    assert not prompts[0] & (prompts[1] | prompts[2])


@here
def test_the_positives_of_one_row_are_in_one_split_and_none_is_a_leak(tmp_path: Path) -> None:
    words = [hashlib.sha256(str(number).encode()).hexdigest() for number in range(400)]
    rows = [{"query": str(question(n)["prompt"]), "positive": words[4 * n : 4 * n + 4]} for n in range(100)]
    prepared = run(tmp_path, write(tmp_path / "a.jsonl", rows))
    assert card_of(prepared).leaks == ()
    asked = [row["query"] for found in rows_of(prepared).values() for row in {r["row"]: r for r in found}.values()]
    assert len(asked) == len(set(asked)) == 100
    assert sum(split.rows for split in prepared.card.splits.values()) == 400


@here
def test_splits_share_no_document_of_lists_of_positives_unless_they_are_of_queries(tmp_path: Path) -> None:
    texts = [hashlib.sha256(str(number).encode()).hexdigest() for number in range(150)]
    rows = [{"query": str(question(n)["prompt"]), "positive": texts[n : n + 2]} for n in range(100)]
    source = write(tmp_path / "a.jsonl", rows)
    prepared = run(tmp_path, source)
    documents = [{str(row["positive"]) for row in found} for found in rows_of(prepared).values()]
    assert sum(map(len, documents)) == len(set.union(*documents))
    card = card_of(prepared)
    assert card.strayed == 200 - sum(split.rows for split in card.splits.values()) > 0
    assert any("their document is in another split too" in warning for warning in card.warnings)
    shares = {"train": 0.6, "validation": 0.2, "test": 0.2}
    by_query = run(tmp_path, source, name="by-query", split={**shares, "by": "query"})
    assert (by_query.card.strayed, sum(split.rows for split in by_query.card.splits.values())) == (0, 200)


def one_question(place: str, number: int) -> dict[str, object]:
    """A row that asks what others ask, of a group of a split."""
    split = SplitConfig(train=0.6, validation=0.2, test=0.2)
    groups = [f"g{n}" for n in range(999) if SPLITS[split_of(f"g{n}", split)] == place]
    return {**question(0), "completion": hashlib.sha256(groups[number].encode()).hexdigest(), "doc_id": groups[number]}


@here
def test_many_removed_leaks_are_warned_of(tmp_path: Path) -> None:
    asked_again = [one_question("test", 0), *(one_question("train", n) for n in range(10))]
    few = run(tmp_path, write(tmp_path / "a.jsonl", [*map(question, range(1, 300)), *asked_again]))
    assert (card_of(few).leaked, few.card.warnings) == (10, ())
    many = run(tmp_path, write(tmp_path / "a.jsonl", [*map(question, range(1, 190)), *asked_again]))
    (warning,) = [line for line in many.card.warnings if "leaks" in line]
    assert "10 of 200 rows (5.0%) were removed as leaks, asked again in test; keep rows that ask the same" in warning


@here
def test_a_split_of_which_all_rows_were_removed_says_why(tmp_path: Path) -> None:
    leaking = [one_question("train", number) for number in range(3)]
    rows = [one_question("test", 0), one_question("validation", 0) | {"prompt": "Why?"}, *leaking, leaking[0]]
    source = write(tmp_path / "a.jsonl", rows)
    with pytest.raises(UsageError, match=r"all 4 rows .* removed: 3 leaks \(asked again in test\), 1 exact") as found:
        run(tmp_path, source)
    assert "split.train=0.6" in str(found.value)
    assert "source_column=row" in str(found.value)
    assert "near_duplicates" not in str(found.value)
