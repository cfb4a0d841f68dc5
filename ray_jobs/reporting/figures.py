"""Amounts as people read them."""

from __future__ import annotations


def duration(seconds: float) -> str:
    """A time: seconds, then minutes, then hours."""
    if seconds < 119.95:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    hours, left = divmod(minutes, 60)
    return f"{hours:,} h {left:02d} min" if hours else f"{minutes} min {rest:02d} s"


def size(count: float) -> str:
    """Bytes, in units of a thousand."""
    for unit in ("B", "kB", "MB", "GB"):
        if count < 1000:
            return f"{count:.0f} B" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1000
    return f"{count:.1f} TB"
