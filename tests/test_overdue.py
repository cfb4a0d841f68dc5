"""A piece that takes too long is taken from its worker, and made again by another one."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from ray_jobs.errors import RejectedError
from ray_jobs.ingest.overdue import ATTEMPTS, in_time
from ray_jobs.ingest.pieces import once, rows_of
from ray_jobs.ingest.work import PieceLimits, Place, Work
from ray_jobs.runtime import stream
from ray_jobs.storage import LocalStorage

PIECE = """
import re, sys, time
from ray_jobs.ingest.overdue import in_time
from ray_jobs.ingest.work import PieceLimits, Place

def hold_the_interpreter():
    re.match("(a+)+$", "a" * 60 + "b")

with in_time(Place(sys.argv[1], "x", 0, PieceLimits(float(sys.argv[2]))).open(), "staged", "abc"):
    eval(sys.argv[3])
print("finished")
"""


def piece(store: Path, seconds: float, work: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", PIECE, str(store), str(seconds), work]
    return subprocess.run(command, capture_output=True, text=True, timeout=60)


def test_a_process_ends_whose_piece_takes_too_long_and_the_last_attempt_is_an_error(tmp_path: Path) -> None:
    work = Work(LocalStorage(tmp_path), "x", 0, PieceLimits(0.2))
    for attempt in range(ATTEMPTS):
        assert work.late("staged", "abc") == attempt
        done = piece(tmp_path, 0.2, "time.sleep(60)")
        assert (done.returncode, done.stdout) == (75, "")
    told = r"piece_seconds=0\.2: a piece \(staged abc\) .* 3 attempts.*same command"
    with pytest.raises(RejectedError, match=told), in_time(work, "staged", "abc"):
        pytest.fail("it was begun")
    assert work.late("staged", "abc") == 0


def test_native_code_that_holds_the_interpreter_ends_its_process_too(tmp_path: Path) -> None:
    done = piece(tmp_path, 0.2, "hold_the_interpreter()")
    assert done.returncode != 0
    assert "hold_the_interpreter" in done.stderr


def test_a_piece_in_time_leaves_nothing(tmp_path: Path) -> None:
    done = piece(tmp_path, 0.5, "None")
    assert (done.returncode, done.stdout) == (0, "finished\n")
    with in_time(Work(LocalStorage(tmp_path), "x", 0, PieceLimits(0.05)), "staged", "abc"):
        pass
    time.sleep(0.2)
    assert list(tmp_path.rglob("late/*")) == []


def hanging(batch: dict[str, Any], arguments: tuple[Place, str]) -> Iterator[dict[str, Any]]:
    """Whoever makes the first piece for the first time hangs."""
    place, folder = arguments
    mark = Path(folder) / "mark"

    def make() -> str:
        if not mark.exists():
            mark.write_text(str(os.getpid()))
            time.sleep(600)
        return str(os.getpid())

    for number in rows_of(batch, "number"):
        yield once(place.open(), "staged", number[0], f"piece-{number[0]}", make)


@pytest.fixture
def workers(ray_session: None) -> Iterator[None]:
    """Workers do not have this file on their path; what it defines travels with the task."""
    from ray import cloudpickle

    cloudpickle.register_pickle_by_value(sys.modules[__name__])
    yield
    cloudpickle.unregister_pickle_by_value(sys.modules[__name__])


@pytest.mark.usefixtures("workers")
def test_another_worker_of_the_cluster_makes_the_piece(tmp_path: Path) -> None:
    place = Place(str(tmp_path / "store"), "x", 0, PieceLimits(3.0))
    rows = list(stream([{"number": 0}], hanging, arguments=(place, str(tmp_path))))
    assert [(row["number"], row["retries"]) for row in rows] == [(0, 1)]
    assert rows[0]["receipt"] != (tmp_path / "mark").read_text()


def crashing(batch: dict[str, Any], arguments: tuple[Place]) -> Iterator[dict[str, Any]]:
    """Whoever makes the piece is lost."""
    for (number,) in rows_of(batch, "number"):
        yield once(arguments[0].open(), "staged", number, "piece", lambda: os._exit(1))


@pytest.mark.usefixtures("workers")
def test_a_piece_that_ends_every_worker_ends_the_run(tmp_path: Path) -> None:
    """Ray by itself would go on for ever."""
    place = Place(str(tmp_path / "store"), "x", 0, PieceLimits(retries=1))
    told = r"piece_retries=1: 2 workers were lost with a piece \(staged piece\).*what is finished is kept"
    with pytest.raises(RejectedError, match=told):
        list(stream([{"number": 0}], crashing, arguments=(place,)))
