"""A call in a thread of its own, for a main thread that signals may interrupt at any moment.

Guaranteed: an exception raised in the main thread by a signal while it waits leaves the call known as what it is,
under way or over. `threading.Thread` does not: where a signal handler raises inside `join(timeout)`, CPython 3.11 takes
the thread for ended. Not guaranteed: that the call ends; a thread cannot be stopped.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

_STEP_SECONDS = 0.05


class Beside:
    """`call`, under way in a daemon thread called `name`."""

    def __init__(self, call: Callable[[], object], name: str) -> None:
        self._call = call
        # Filled at the end; without a lock, which a signal could leave held.
        self._ended: list[BaseException | None] = []
        threading.Thread(target=self._run, name=name, daemon=True).start()

    def wait(self, seconds: float) -> bool:
        """Whether the call is over, now or within so many seconds."""
        deadline = time.monotonic() + seconds
        while not self._ended and (left := deadline - time.monotonic()) > 0:
            time.sleep(min(_STEP_SECONDS, left))
        return bool(self._ended)

    @property
    def error(self) -> BaseException | None:
        """What the call raised; None when it returned or is still under way."""
        return self._ended[0] if self._ended else None

    def _run(self) -> None:
        try:
            self._call()
        except BaseException as error:
            self._ended.append(error)
        else:
            self._ended.append(None)
