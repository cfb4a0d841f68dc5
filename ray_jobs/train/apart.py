"""Micro-batches whose rows share no text: what is right for one row would be wrong for another.

Guaranteed: the same rows, each as often as before; no text stands in two rows of a micro-batch where each row shares
texts with PATIENCE others at most and there are 2 + 2 x as many micro-batches; the result depends on nothing but rows,
texts and the size of a micro-batch, so that any number of workers sees the same and a run that resumes goes on with the
very next row. Not guaranteed: the same where texts are in more rows; those that find no place stand with others that
have a text of theirs, and none is left out. The time grows with the rows, not with their square.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Iterator
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

PATIENCE = 8  # micro-batches of rows that may wait for one without their texts
_REACH = 64  # the last micro-batches, among which rows that still wait at the end change places
_ROWS = 4096  # looked up at a time

Row: TypeAlias = tuple[int, list[int]]
"""The index of a row and the hashes of its texts."""


def apart(indices: npt.NDArray[np.int64], texts: npt.NDArray[np.int64], micro_batch: int) -> npt.NDArray[np.int64]:
    """The same indices, moved so that no two rows of a micro-batch share a text, where the rows allow it.

    `texts` are hashes of all rows' texts, of shape (rows, texts of a row). A row that shares one with an earlier row of
    its micro-batch waits for the next.
    """
    found = np.empty_like(indices)
    last: deque[list[Row]] = deque(maxlen=_REACH)
    end = 0
    for batch in _gathered(_rows(indices, texts), micro_batch):
        found[end : end + len(batch)] = [index for index, _ in batch]
        end += len(batch)
        last.append(batch)
    tail = [index for batch in _mended(list(last)) for index, _ in batch]
    found[end - len(tail) :] = tail
    return found


def _rows(indices: npt.NDArray[np.int64], texts: npt.NDArray[np.int64]) -> Iterator[Row]:
    for start in range(0, len(indices), _ROWS):
        part = indices[start : start + _ROWS]
        yield from zip(part.tolist(), texts[part].tolist(), strict=True)


def _gathered(rows: Iterator[Row], micro_batch: int) -> Iterator[list[Row]]:
    """Micro-batches, each of the first rows that fit together; the last ones take what is left."""
    waiting: deque[Row] = deque()
    while True:
        seen: set[int] = set()
        chosen: list[Row] = []
        late: list[Row] = []
        while len(chosen) < micro_batch and len(late) <= PATIENCE * micro_batch:
            row = waiting.popleft() if waiting else next(rows, None)
            if row is None:
                break
            if seen.isdisjoint(row[1]):
                seen.update(row[1])
                chosen.append(row)
            else:
                late.append(row)
        missing = micro_batch - len(chosen)
        if not chosen:
            return
        yield chosen + late[:missing]
        waiting.extendleft(reversed(late[missing:]))


def _mended(batches: list[list[Row]]) -> list[list[Row]]:
    """The micro-batches after each row that shares a text has changed places with one of another, where one fits."""
    held = [Counter(text for _, texts in batch for text in set(texts)) for batch in batches]
    for number, batch in enumerate(batches):
        for place, row in enumerate(batch):
            held[number].subtract(set(row[1]))
            if _shares(held[number], row) and (found := _partner(batches, held, number, row)) is not None:
                other, there = found
                batch[place], batches[other][there] = batches[other][there], row
                held[other].subtract(set(batch[place][1]))
                held[other].update(set(row[1]))
            held[number].update(set(batch[place][1]))
    return batches


def _partner(batches: list[list[Row]], held: list[Counter[int]], number: int, row: Row) -> tuple[int, int] | None:
    """Where a row stands that fits in the micro-batch `number`, which `row` has left, and leaves a place for it."""
    for other in sorted(range(len(batches)), key=lambda other: abs(other - number)):
        if other == number or _shares(held[other], row):
            continue
        for there, candidate in enumerate(batches[other]):
            if not _shares(held[number], candidate):
                return other, there
    return None


def _shares(held: Counter[int], row: Row) -> bool:
    return any(held[text] > 0 for text in row[1])
