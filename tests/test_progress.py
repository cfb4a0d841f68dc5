"""Progress goes to standard error in lines, or draws a bar on a terminal."""

from __future__ import annotations

import io

import pytest

from ray_jobs.progress import BarProgress, Counter, LineProgress, for_terminal


def test_lines_show_rates_and_what_is_left() -> None:
    stream = io.StringIO()
    with LineProgress(stream, every=0).stage("embed", 10) as stage:
        stage.advance(5, documents=2, chunks=40)
    first, last = stream.getvalue().splitlines()
    assert first.startswith("embed    50% 2 documents (")
    assert "40 chunks (" in first
    assert first.endswith("s left")
    assert last.startswith("embed   done in ")


def test_the_time_left_assumes_the_speed_so_far(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = iter([0.0, 30.0])
    monkeypatch.setattr("time.monotonic", lambda: next(clock))
    counter = Counter(4)
    counter.add(3, {})
    assert counter.left == 10.0


def test_a_stage_that_fails_does_not_say_done() -> None:
    stream = io.StringIO()
    with pytest.raises(RuntimeError), LineProgress(stream).stage("embed", 1):
        raise RuntimeError
    assert stream.getvalue() == ""


def test_a_terminal_gets_bars_and_a_file_gets_lines() -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    assert isinstance(for_terminal(Terminal()), BarProgress)
    assert isinstance(for_terminal(io.StringIO()), LineProgress)


def test_a_bar_leaves_standard_output_alone(capsys: pytest.CaptureFixture[str]) -> None:
    with BarProgress().stage("embed", 2) as stage:
        stage.advance(2, documents=3)
    captured = capsys.readouterr()
    assert captured.out == ""
    assert "embed" in captured.err
