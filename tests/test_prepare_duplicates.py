"""What the preparation job takes for a duplicate, for a contradiction, and for neither."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest
from prepare_runs import card_of, question, retrieval_rows, rows_of, run, write

pytest_plugins = ["in_process"]
on_ray = pytest.mark.usefixtures("ray_session")
here = pytest.mark.usefixtures("in_process")


@here
def test_equal_answers_of_different_questions_are_no_duplicates(tmp_path: Path) -> None:
    answer = "As the manual says, everything is made again from what was left behind, and nobody notices. " * 4
    rows = [{**question(number), "completion": answer} for number in range(120)]
    assert card_of(run(tmp_path, write(tmp_path / "a.jsonl", rows))).duplicates.near == 0


@here
def test_near_duplicates_go_and_the_first_one_stays(tmp_path: Path) -> None:
    rows = [question(number) for number in range(120)]
    long = "Explain at length, with an example from practice, why a reader never sees half of a snapshot of the index"
    near = [{"prompt": f"{long}{end}", "completion": f"Because of the manifest{end}"} for end in ("", "!", ".")]
    source = write(tmp_path / "a.jsonl", [*rows, *({**row, "doc_id": "near"} for row in near)])
    card = card_of(run(tmp_path, source))
    assert (card.duplicates.exact, card.duplicates.near) == (0, 2)
    assert run(tmp_path, source, near_duplicates=False).card.duplicates.near is None


@here
def test_near_duplicates_that_say_something_else_are_counted(tmp_path: Path) -> None:
    rows = [question(number) for number in range(120)]
    long = "Explain at length, with an example from practice, why a reader never sees half of a snapshot of the index"
    near = [
        {"prompt": long, "completion": "Because of the manifest, which is created once"},
        {"prompt": f"{long}?", "completion": "Because of the manifest, which is created once"},
        {"prompt": long, "completion": "Because of the manifest, which is created once."},
    ]
    source = write(tmp_path / "a.jsonl", [*rows, *({**row, "doc_id": "near"} for row in near)])
    prepared = run(tmp_path, source)
    found = card_of(prepared).duplicates
    assert (found.near, found.near_asked, found.near_target) == (2, 1, 1)
    assert "2 near (1 asked in other words, 1 with another target)" in "\n".join(prepared.card.lines())


@here
def test_a_praised_and_a_blamed_answer_are_two_however_near_they_are(tmp_path: Path) -> None:
    rows = [{**question(number), "label": number % 2 == 0} for number in range(120)]
    long = "It is made again by another worker, from what was left behind, and nobody who asks will notice any of it"
    near = [
        {**question(500), "doc_id": "near", "completion": completion, "label": label}
        for completion, label in ((long, True), (f"{long}.", False), (f"{long}!", True), (f"{long}?", False))
    ]
    prepared = run(tmp_path, write(tmp_path / "a.jsonl", [*rows, *near]))
    assert card_of(prepared).duplicates.near == 2
    kept = [(row["completion"], row["label"]) for rows in rows_of(prepared).values() for row in rows]
    assert [found for found in kept if str(found[0]).startswith(long)] == [(long, True), (f"{long}.", False)]


@here
def test_positives_that_share_many_negatives_are_no_near_duplicates(tmp_path: Path) -> None:
    words = [hashlib.sha256(str(number).encode()).hexdigest() for number in range(2_000)]
    rows = [
        {"query": str(question(n)["prompt"]), "positive": own[:4], "negatives": own[4:]}
        for n in range(100)
        for own in [words[20 * n : 20 * n + 20]]
    ]
    prepared = run(tmp_path, write(tmp_path / "a.jsonl", rows))
    assert sum(split.rows for split in prepared.card.splits.values()) == 400


@here
def test_a_positive_with_another_full_stop_is_a_near_duplicate_whatever_its_negatives(tmp_path: Path) -> None:
    asked, passage = str(question(0)["prompt"]), " ".join(str(question(n)["prompt"]) for n in range(8))
    other = [hashlib.sha256(str(number).encode()).hexdigest() for number in range(9)]
    rows = [{"query": asked, "positive": passage + end, "negatives": other} for end in (".", "!")]
    prepared = run(tmp_path, write(tmp_path / "a.jsonl", [*rows, *retrieval_rows(60)]))
    assert sum(split.rows for split in prepared.card.splits.values()) == 61


@here
def test_answers_that_change_places_contradict_and_are_no_duplicates(tmp_path: Path) -> None:
    texts = [" ".join(hashlib.sha256(f"{n} {part}".encode()).hexdigest() for part in range(3)) for n in range(120)]
    rows = []
    for n in range(60):
        asked, one, other = question(n)["prompt"], texts[2 * n], texts[2 * n + 1]
        rows += [
            {"prompt": asked, "chosen": one, "rejected": other},
            {"prompt": asked, "chosen": other, "rejected": one},
        ]
        rows.append({"prompt": asked, "chosen": f"{one}.", "rejected": f"{other}."})
    prepared = run(tmp_path, write(tmp_path / "a.jsonl", rows))
    assert sum(split.rows for split in prepared.card.splits.values()) == 120
