"""The C library's memory of a process that does nothing but train.

Guaranteed: nothing changes but when memory goes back to the system; without glibc nothing changes at all. Not
guaranteed: that it helps; an allocator that is put in glibc's place decides for itself. Memory that is kept can be cut
in pieces of other sizes than are asked for next: the process takes up to a third more of it.
"""

from __future__ import annotations

import ctypes
import sys

# The numbers of mallopt(3), from malloc.h.
_M_TRIM_THRESHOLD, _M_TOP_PAD, _M_MMAP_THRESHOLD = -1, -2, -3
_KEPT_BYTES = 1 << 30
_HEAP_BYTES = 64 << 20
"""As much as glibc gives a thread at a time: with so much to spare it never gives one of these pieces back."""
ENVIRONMENT = {"MALLOC_ARENA_MAX": "1"}
"""For a process before it starts: its threads share one heap. In a heap of its own a thread keeps no block larger than
_HEAP_BYTES, and a worker of Ray Train trains in a thread."""


def keep_freed_memory() -> bool:
    """Let this process keep what it frees for what it allocates next; returns whether that can be told.

    A step of training frees all its activations and takes them again in the next. glibc gives large blocks back at
    once, and the system has to clear every page of them anew.
    """
    if not sys.platform.startswith("linux"):
        return False
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is None:
        return False
    told = [
        mallopt(_M_MMAP_THRESHOLD, _KEPT_BYTES),
        mallopt(_M_TRIM_THRESHOLD, _KEPT_BYTES),
        mallopt(_M_TOP_PAD, _HEAP_BYTES),
    ]
    return all(told)
