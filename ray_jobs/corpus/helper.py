"""The helper process: reads the parts that it is sent, under a limit on memory, and says what they hold.

Guaranteed: it ends with the process that it helps, in the middle of a document, too; it takes no more memory for one
document than the limit says beyond what it holds once the parsers are loaded. Not guaranteed: a limit on time; who
waits for it has one.
"""

from __future__ import annotations

import ctypes
import os
import resource
import signal
import socket
import sys
from contextlib import suppress
from pathlib import Path

import pyarrow as pa

from ray_jobs.corpus.channel import Channel
from ray_jobs.corpus.document import Document, Reject
from ray_jobs.corpus.limits import Limits
from ray_jobs.corpus.messages import PART, Begun, Ended, encode
from ray_jobs.corpus.readers import READERS, read_part, reader_of

IDLE_SECONDS = 60.0  # without a part, after which it ends: later stages need the memory
_DIE_WITH_PARENT = 1  # PR_SET_PDEATHSIG
_RESIDENT, _DATA = 1, 5  # columns of /proc/self/statm, in pages
_RESET_PEAK = "5"  # of the memory that is resident
_SPENT_SHARE = 0.25  # of the memory for one document, kept after its end: then what is left is too little


def main() -> None:
    """Serve parts over the socket that the first argument names; the second one are the limits."""
    ctypes.CDLL(None).prctl(_DIE_WITH_PARENT, signal.SIGKILL)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    # Threads that a large machine would bring are memory, too.
    pa.set_cpu_count(1)
    serve(Channel(socket.socket(fileno=int(sys.argv[1]))), Limits.model_validate_json(sys.argv[2]))
    # Libraries that wait for their threads are not waited for.
    os._exit(0)


def serve(channel: Channel, limits: Limits) -> None:
    """Read one part after another until the other side is gone, or has had none for a while."""
    memory = _Memory(limits.memory_bytes)
    while True:
        try:
            part = PART.validate_json(channel.receive(IDLE_SECONDS))
            memory.begin(part.file.format)
            channel.send(encode(Begun(memory.resident)))
            for item in read_part(part, limits):
                channel.send(_encoded(memory.explained(item)))
            channel.send(encode(Ended(memory.spent())))
        except (EOFError, OSError):
            return


def _encoded(item: Document | Reject) -> bytes:
    try:
        return encode(item)
    except MemoryError:
        return encode(Reject("file", "out-of-memory", "its text leaves no memory to hand it over"))


class _Memory:
    """The limit on memory, which moves as parsers are loaded: they count for no document."""

    def __init__(self, bound: int) -> None:
        self._bound = bound
        self._own = _held_bytes(_DATA)
        self.resident = 0
        self._loaded: set[str] = set()

    def begin(self, format: str) -> None:
        """Load the parser of a format, set the limit, and measure from here."""
        if format not in self._loaded and format in READERS:
            self._load(format)
        with suppress(OSError):  # a system that keeps the peak of before tells more documents that it was memory
            Path("/proc/self/clear_refs").write_text(_RESET_PEAK)
        self.resident = _held_bytes(_RESIDENT)

    def explained(self, item: Document | Reject) -> Document | Reject:
        """The item; where a parser that got no more memory says something else, with the reason."""
        if isinstance(item, Reject) and item.reason == "unreadable" and self._was_short():
            return Reject(
                item.locator, "out-of-memory", f"its parser asked for more memory than it may have: {item.message}"
            )
        return item

    def _was_short(self) -> bool:
        status = Path("/proc/self/status").read_text()
        peak = int(status.partition("VmHWM:")[2].split()[0]) * 1024
        return peak - self.resident > self._bound // 2

    def _load(self, format: str) -> None:
        before = _held_bytes(_DATA)
        _set_limit(resource.RLIM_INFINITY)
        reader_of(format)
        self._own += _held_bytes(_DATA) - before
        self._loaded.add(format)
        _set_limit(self._own + self._bound)

    def spent(self) -> bool:
        """Whether what documents have left behind takes too much of what the next one may take."""
        return _held_bytes(_DATA) - self._own > _SPENT_SHARE * self._bound


def _set_limit(wished: int) -> None:
    _, most = resource.getrlimit(resource.RLIMIT_DATA)
    allowed = [bound for bound in (wished, most) if bound != resource.RLIM_INFINITY]
    resource.setrlimit(resource.RLIMIT_DATA, (min(allowed, default=resource.RLIM_INFINITY), most))


def _held_bytes(column: int) -> int:
    return int(Path("/proc/self/statm").read_text().split()[column]) * resource.getpagesize()


if __name__ == "__main__":
    main()
