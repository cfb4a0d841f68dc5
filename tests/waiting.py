"""Waiting for something that happens in another thread or process: polled, with a deadline."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Callable


def wait_for(happened: Callable[[], object], seconds: float = 30.0) -> None:
    """Return once `happened` gives something true; fail after `seconds`."""
    until = time.monotonic() + seconds
    while not happened():
        assert time.monotonic() < until, f"did not happen within {seconds} s"
        time.sleep(0.01)


def wait_beside(process: subprocess.Popen[str], happened: Callable[[], object], seconds: float = 240.0) -> None:
    """As `wait_for`, but that it fails at once, with what was printed, when `process` ends before that."""
    until = time.monotonic() + seconds
    while not happened():
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < until, f"did not happen within {seconds} s"
        time.sleep(0.005)
