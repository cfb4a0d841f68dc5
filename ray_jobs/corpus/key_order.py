"""From the order of an object store, which compares names byte by byte, to that of folders, component by component.

They differ where a name goes on with a character that comes before the slash: `a-b` and `a.txt` stand before `a/x` in a
bucket, and after it in a folder. So a name waits until no name can come any more that goes before it: until the bucket
has passed the folder `a`.

Guaranteed: every item comes once, ordered by the components of its name; memory is bounded: where too many items wait
for a folder, that folder alone is listed at once. Not guaranteed: the order where the store does not list by name.
"""

from __future__ import annotations

import heapq
import re
from collections.abc import Callable, Collection, Iterator
from typing import TypeVar

T = TypeVar("T")

HELD = 10_000
"""Items that wait at a time, in each of the folders that are listed within one another."""

_BEFORE_SLASH = re.compile(r"[\x00-.]")


def by_component(
    listing: Callable[[str], Iterator[T]], name: Callable[[T], str], held: int = HELD, prefix: str = ""
) -> Iterator[T]:
    """The items whose names begin with `prefix`, in the order of the components of their names.

    `listing` gives those that begin with what it is called with, ordered by name, each name once.
    """
    waiting: list[tuple[str, str, T]] = []  # by the order of components
    known: set[str] = set()  # folders of which nothing more can come: empty, or listed ahead
    for item in listing(prefix):
        current = name(item)
        known = {folder for folder in known if current.startswith(folder)}
        if any(current.startswith(f"{folder}/") for folder in known):
            continue
        yield from _free(waiting, current, known, prefix)
        heapq.heappush(waiting, (current.replace("/", "\0"), current, item))
        while len(waiting) > held and (folder := _awaited(waiting[0][1], current, known, prefix)) is not None:
            yield from by_component(listing, name, held, f"{folder}/")
            known.add(folder)
            yield from _free(waiting, current, known, prefix)
    while waiting:
        yield heapq.heappop(waiting)[2]


def _free(waiting: list[tuple[str, str, T]], current: str, known: Collection[str], prefix: str) -> Iterator[T]:
    """Take out those before which nothing can come from `current` on."""
    while waiting and _awaited(waiting[0][1], current, known, prefix) is None:
        yield heapq.heappop(waiting)[2]


def _awaited(name: str, current: str, known: Collection[str], prefix: str) -> str | None:
    """The first folder that goes before `name` and that a listing which has come to `current` has not passed."""
    for match in _BEFORE_SLASH.finditer(name, len(prefix)):
        folder = name[: match.start()]
        if not current.startswith(folder) or current > f"{folder}/\U0010ffff":
            return None  # passed, and with it those that are longer
        if folder not in known:
            return folder
    return None
