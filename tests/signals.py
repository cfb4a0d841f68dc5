"""Signals at the worst of moments."""

from __future__ import annotations

import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any


@contextmanager
def at_every_line() -> Iterator[None]:
    """A signal a little later, and one more at every line of Python that this thread runs in the block."""
    main = threading.get_ident()

    def trace(frame: Any, event: str, argument: Any) -> Any:
        if event == "line":
            signal.raise_signal(signal.SIGTERM)
        return trace

    previous = {number: signal.signal(number, lambda *_: None) for number in (signal.SIGINT, signal.SIGTERM)}
    first = threading.Timer(0.2, signal.pthread_kill, (main, signal.SIGINT))
    first.start()
    tracing = sys.gettrace()
    sys.settrace(trace)
    try:
        yield
    finally:
        sys.settrace(tracing)
        first.join()
        for number, handler in previous.items():
            signal.signal(number, handler)
