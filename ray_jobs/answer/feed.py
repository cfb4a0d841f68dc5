"""What one thread makes and another takes, piece by piece.

Guaranteed: pieces come in order; the taker wakes at once when the feed is closed, whether or not a piece ever comes; an
error of the maker is raised to the taker. Not guaranteed: a bound on what waits; an answer's length is one.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from queue import SimpleQueue
from typing import Generic, TypeVar

T = TypeVar("T")


@dataclass(frozen=True)
class _End:
    error: Exception | None = None


class Feed(Generic[T]):
    """One maker, one taker; `on_close` tells the maker, once, that nothing is wanted any more."""

    def __init__(self, on_close: Callable[[], object] = lambda: None) -> None:
        self._queue: SimpleQueue[T | _End] = SimpleQueue()
        self._on_close = on_close
        self._closed = threading.Event()
        self._lock = threading.Lock()

    @property
    def closed(self) -> bool:
        """Whether the taker is gone."""
        return self._closed.is_set()

    def put(self, piece: T) -> None:
        """Give a piece."""
        self._queue.put(piece)

    def end(self, error: Exception | None = None) -> None:
        """There are no more pieces, or an error in their place."""
        self._queue.put(_End(error))

    def close(self) -> None:
        """Take no more; may be called from any thread, and again."""
        with self._lock:
            if self._closed.is_set():
                return
            self._closed.set()
        self._queue.put(_End())
        self._on_close()

    def __iter__(self) -> Iterator[T]:
        while not self._closed.is_set():
            piece = self._queue.get()
            if self._closed.is_set():
                return
            if isinstance(piece, _End):
                if piece.error is not None:
                    raise piece.error
                return
            yield piece
