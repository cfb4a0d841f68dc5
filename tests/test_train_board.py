"""How far a run is, as its driver shows it."""

from __future__ import annotations

import io

from ray_jobs.progress import LineProgress
from ray_jobs.train.board import Board, Seen


def shown(*boards: dict[str, float]) -> list[str]:
    stream, seen = io.StringIO(), Seen()
    with LineProgress(stream, every=0).stage("train", 1) as stage:
        for board in boards:
            seen.advance(stage, board)
    return stream.getvalue().splitlines()


def test_loss_steps_and_tokens_are_shown_with_the_time_left() -> None:
    line, last = shown({"step": 5, "steps": 20, "begun": 0, "tokens": 800, "loss": 2.345678})
    assert line.startswith("train    25% 5 steps (")
    assert "800 tokens (" in line
    assert "loss 2.346, " in line
    assert line.endswith("s left")
    assert "loss 2.346" in last


def test_what_was_done_before_counts_as_done_and_not_as_fast() -> None:
    (line, _) = shown({"step": 10, "steps": 20, "begun": 10}, {"step": 15, "steps": 20, "begun": 10})
    assert line.startswith("train    75% 5 steps (")


def test_steps_that_are_done_again_after_a_loss_of_workers_are_not_counted_twice() -> None:
    lines = shown(
        {"step": 15, "steps": 20, "begun": 0, "tokens": 150},
        {"step": 10, "steps": 20, "begun": 10, "tokens": 0},
        {"step": 20, "steps": 20, "begun": 10, "tokens": 100},
    )
    assert len(lines) == 3
    assert lines[1].startswith("train   100% 20 steps (")
    assert "250 tokens (" in lines[1]


def test_nothing_is_shown_before_the_first_step() -> None:
    assert len(shown({}, {"step": 0, "steps": 20, "begun": 0})) == 1


def test_a_worker_that_comes_after_the_end_is_sent_away() -> None:
    board = Board()
    assert board.join(["a"])
    assert board.close() == ["a"]
    assert not board.join(["b"])
