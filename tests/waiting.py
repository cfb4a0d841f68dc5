"""Waiting for something that happens in another thread or process: polled, with a deadline."""

from __future__ import annotations

import time
from collections.abc import Callable


def wait_for(happened: Callable[[], object], seconds: float = 30.0) -> None:
    """Return once `happened` gives something true; fail after `seconds`."""
    until = time.monotonic() + seconds
    while not happened():
        assert time.monotonic() < until, f"did not happen within {seconds} s"
        time.sleep(0.01)
