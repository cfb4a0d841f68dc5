"""A call in a thread of its own: waited for, interrupted while it is waited for, and what it raised."""

from __future__ import annotations

import signal
import threading
from types import FrameType

import pytest

from ray_jobs.beside import Beside

_LONG = 30.0


def test_what_is_under_way_is_not_over_and_what_is_over_stays_so() -> None:
    may_end = threading.Event()
    call = Beside(may_end.wait, "call")
    assert not call.wait(0)
    assert not call.wait(0.1)
    may_end.set()
    assert call.wait(_LONG)
    assert call.wait(0)
    assert call.error is None


@pytest.mark.parametrize("raised", [ValueError("no"), SystemExit(3)])
def test_it_keeps_what_the_call_raised(raised: BaseException) -> None:
    def fail() -> None:
        raise raised

    call = Beside(fail, "call")
    assert call.wait(_LONG)
    assert call.error is raised


def test_an_interrupted_wait_leaves_the_call_under_way() -> None:
    may_end = threading.Event()

    def interrupt(number: int, frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    previous = signal.signal(signal.SIGALRM, interrupt)
    call = Beside(may_end.wait, "call")
    try:
        signal.setitimer(signal.ITIMER_REAL, 0.2)
        with pytest.raises(KeyboardInterrupt):
            call.wait(_LONG)
        assert not call.wait(0.1)
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, previous)
        may_end.set()
    assert call.wait(_LONG)
