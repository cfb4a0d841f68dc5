"""The C library's memory of a process that does nothing but train.

Guaranteed: nothing changes but when memory goes back to the system; without glibc nothing changes at all. Not
guaranteed: that it helps; an allocator that is put in glibc's place decides for itself.
"""

from __future__ import annotations

import ctypes
import sys

# The numbers of mallopt(3), from malloc.h.
_M_TRIM_THRESHOLD, _M_TOP_PAD, _M_MMAP_THRESHOLD = -1, -2, -3
_KEPT_BYTES = 1 << 30
_HEAP_BYTES = 64 << 20
"""As much as glibc gives a thread at a time: with so much to spare it never gives one of these pieces back."""


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
