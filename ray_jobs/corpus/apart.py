"""Read parts under limits: those of formats whose parsers cannot be trusted by a helper process.

The parsers of PDF, HTML, Word and Parquet are native code, or take time beyond all proportion for some content. They
run in one helper process, started when it is first needed and used for one document after another.

Guaranteed: a document whose parser hangs, asks for too much memory or crashes costs itself alone: what its file held
before it is kept, its file ends in a Reject with the reason, and the next part gets a new helper. The helper ends with
this process, however that ends. Not guaranteed: protection from a document that takes its parser over; the helper runs
as the same user.
"""

from __future__ import annotations

import os
import resource
import signal
import socket
import subprocess
import sys
import weakref
from collections.abc import Iterator
from contextlib import suppress

from ray_jobs.corpus.channel import Channel
from ray_jobs.corpus.document import Document, Reject
from ray_jobs.corpus.limits import Limits
from ray_jobs.corpus.messages import PART, Begun, Ended, Message, decode
from ray_jobs.corpus.planning import SourcePart
from ray_jobs.corpus.readers import READERS, read_part
from ray_jobs.corpus.reasons import Reason
from ray_jobs.errors import TandemError

TRUSTED = frozenset({"txt", "md", "csv", "jsonl", "pydoc"})
"""Formats that are read in this process: their parsers take time and memory in proportion, and are no native code."""

MODULE = "ray_jobs.corpus.helper"
START_SECONDS = 300.0
"""How long a helper may take to load a parser, on a machine that is busy."""
_NONSENSE = "its parser answers nonsense"


class Reader:
    """Reads parts, one after another."""

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._helper: _Helper | None = None

    def read(self, part: SourcePart) -> Iterator[Document | Reject]:
        """Read the documents of a part; raises TandemError where no helper can be started."""
        if part.file.format in TRUSTED or part.file.format not in READERS:
            yield from read_part(part, self._limits)
        else:
            yield from self._read_apart(part)

    def close(self) -> None:
        """End the helper, if there is one."""
        if self._helper is not None:
            self._helper.end()
            self._helper = None

    def _read_apart(self, part: SourcePart) -> Iterator[Document | Reject]:
        lost: Reject | None = None
        usable = False
        try:
            helper = self._begun(part)
            while not isinstance(message := helper.next(self._limits.seconds), Ended):
                if isinstance(message, Begun):
                    raise _LostError("crashed", _NONSENSE)
                yield message
            usable = not message.spent
        except _LostError as error:
            lost = Reject("file", error.reason, str(error))
        finally:
            if not usable:
                self.close()
        if lost is not None:
            yield lost

    def _begun(self, part: SourcePart) -> _Helper:
        """A helper that has begun with the part: the one there is, or a new one where that was lost meanwhile."""
        if self._helper is not None:
            with suppress(_LostError):
                self._helper.begin(part)
                return self._helper
            self.close()
        self._helper = _Helper(self._limits)
        try:
            self._helper.begin(part)
        except _LostError as error:
            raise TandemError(
                f"helper={MODULE}: the process that reads {part.file.format} files does not start ({error}); check the "
                f"installation and the memory of the machine"
            ) from None
        return self._helper


class _LostError(Exception):
    """The helper does not go on with its part."""

    def __init__(self, reason: Reason, message: str) -> None:
        super().__init__(message)
        self.reason = reason


class _Helper:
    """One helper process."""

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._resident = 0
        # The system counts the peak of whoever starts a process as that process's own.
        self._inherited = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
        ours, theirs = socket.socketpair()
        with theirs:
            self._process = subprocess.Popen(
                [sys.executable, "-P", "-m", MODULE, str(theirs.fileno()), limits.model_dump_json()],
                pass_fds=[theirs.fileno()],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=None if os.environ.get("TANDEM_DEBUG") else subprocess.DEVNULL,
                env={**os.environ, **_environment()},
            )
        self._channel = Channel(ours)
        self._end = weakref.finalize(self, _end, self._process, self._channel)

    def begin(self, part: SourcePart) -> None:
        """Hand a part over; raises _LostError."""
        try:
            self._channel.send(PART.dump_json(part))
        except OSError:
            raise self._lost() from None
        begun = self.next(START_SECONDS)
        if not isinstance(begun, Begun):
            raise _LostError("crashed", _NONSENSE)
        self._resident = begun.resident

    def next(self, seconds: float) -> Message:
        """What it says next; raises _LostError."""
        try:
            return decode(self._channel.receive(seconds))
        except TimeoutError:
            raise _LostError("timed-out", f"its parser took more than {seconds:g} s") from None
        except (EOFError, OSError):
            raise self._lost() from None
        except ValueError:
            raise _LostError("crashed", _NONSENSE) from None

    def end(self) -> None:
        """End the process, whatever it does."""
        self._end()

    def _lost(self) -> _LostError:
        """Why the process has ended."""
        self._process.kill()  # it says nothing any more
        code, peak = _ended(self._process)
        memory = peak > max(self._inherited, self._resident + self._limits.memory_bytes // 2)
        if code == -signal.SIGKILL or (code < 0 and memory):
            return _LostError("out-of-memory", f"its parser took more than {self._limits.memory_bytes} bytes of memory")
        how = signal.Signals(-code).name if code < 0 else f"exit code {code}"
        return _LostError("crashed", f"its parser crashed ({how})")


def _environment() -> dict[str, str]:
    """What a helper is told by its environment: where modules are, and to take memory as it is needed."""
    return {
        "PYTHONPATH": os.pathsep.join(path or os.getcwd() for path in sys.path),
        "ARROW_DEFAULT_MEMORY_POOL": "system",
        "MALLOC_ARENA_MAX": "1",
        "OMP_NUM_THREADS": "1",
    }


def _ended(process: subprocess.Popen[bytes]) -> tuple[int, int]:
    """The exit code of a process that ends, and the most memory that it has held, in bytes."""
    try:
        _, status, usage = os.wait4(process.pid, 0)
    except ChildProcessError:  # somebody else has waited for it
        return process.wait(), 0
    process.returncode = os.waitstatus_to_exitcode(status)
    return process.returncode, usage.ru_maxrss * 1024


def _end(process: subprocess.Popen[bytes], channel: Channel) -> None:
    channel.close()
    process.kill()
    with suppress(subprocess.TimeoutExpired):  # the system holds it; it is nobody's any more
        process.wait(START_SECONDS)
