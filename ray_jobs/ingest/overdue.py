"""A piece that takes too long is taken from its worker and made again by another one, a few times.

Guaranteed: no piece holds up a run for longer than ATTEMPTS times its bound, and none that ends its worker each time,
by a crash or for want of memory, is made for ever, as Ray would do; then the run ends with an error that names
the piece, and the same command tries again. Not guaranteed: that the attempts are counted where native code holds the
interpreter; such a process ends all the same, a little later.
"""

from __future__ import annotations

import faulthandler
import os
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager

from ray_jobs.errors import RejectedError
from ray_jobs.ingest.work import Work
from ray_jobs.runtime import retries

ATTEMPTS = 3
_STATUS = 75  # of a process that gave up; EX_TEMPFAIL
_HELD_UP = 1.25  # times the bound, after which a process ends that cannot even say that it gives up


@contextmanager
def in_time(work: Work, kind: str, key: str) -> Iterator[None]:
    """End this process when what is inside takes too long; raises RejectedError after the last attempt."""
    seconds = work.limits.seconds
    if (lost := retries()) > work.limits.retries:
        raise RejectedError(
            f"resources.piece_retries={work.limits.retries}: {lost} workers were lost with a piece ({kind} {key[:8]}); "
            f"nothing was published, what is finished is kept: look for crashes and want of memory in Ray's logs, "
            f"lower group_bytes or shard_bytes, or raise it, and run the same command again"
        )
    if work.late(kind, key) >= ATTEMPTS:
        work.forgive(kind, key)
        raise RejectedError(
            f"resources.piece_seconds={seconds:g}: a piece ({kind} {key[:8]}) took longer on {ATTEMPTS} attempts; "
            f"nothing was published, what is finished is kept: raise it, lower group_bytes or shard_bytes, or look at "
            f"what the workers wait for, and run the same command again"
        )
    timer = threading.Timer(seconds, _give_up, (work, kind, key))
    timer.daemon = True
    timer.start()
    faulthandler.dump_traceback_later(_HELD_UP * seconds, exit=True, file=sys.__stderr__ or 2)
    try:
        yield
    finally:
        faulthandler.cancel_dump_traceback_later()
        timer.cancel()


def _give_up(work: Work, kind: str, key: str) -> None:
    work.was_late(kind, key)
    os._exit(_STATUS)
