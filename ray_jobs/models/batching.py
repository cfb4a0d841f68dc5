"""Grouping texts into batches that waste little padding: pure planning, no model.

Guaranteed: every index appears in exactly one batch; the padded size of a batch (rows times padded length) is at most
the budget, except that one text longer than the whole budget is a batch of its own; batches come longest first, so
that a batch that does not fit in memory fails at once and not after hours. Not guaranteed: the smallest possible
number of batches.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray


def padded_length(length: int, multiple: int) -> int:
    """The length in tokens to which a batch whose longest text has `length` tokens is padded: at least one token."""
    return max(1, -(-length // multiple)) * multiple


def token_budget_batches(lengths: Sequence[int], batch_tokens: int, pad_multiple: int = 1) -> list[list[int]]:
    """Batches of indices into `lengths` (tokens of each text), longest texts first.

    A batch is closed when one more text would push rows x padded length over `batch_tokens`.
    """
    batches: list[list[int]] = []
    rows: list[int] = []
    width = 0
    for index in sorted(range(len(lengths)), key=lambda i: -lengths[i]):
        if rows and (len(rows) + 1) * width > batch_tokens:
            batches.append(rows)
            rows = []
        if not rows:
            width = padded_length(lengths[index], pad_multiple)
        rows.append(index)
    if rows:
        batches.append(rows)
    return batches


def windows_by_length(texts: Sequence[str], window: int) -> Iterator[list[int]]:
    """Indices of `texts` in windows of at most `window`, longest text first, by characters.

    Characters stand in for tokens, so that texts of like length meet in one window before any is tokenised and a
    window can be tokenised while the one before it runs through the model.
    """
    order = sorted(range(len(texts)), key=lambda i: -len(texts[i]))
    for start in range(0, len(order), window):
        yield order[start : start + window]


def pad(
    rows: Sequence[NDArray[np.int64]], pad_id: int, pad_multiple: int, left: bool
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Token ids and attention mask, both int64 of shape (rows, padded length of the longest row).

    The mask is 1 on a row's own tokens and 0 on padding, which lies on the left if `left`.
    """
    width = padded_length(max(map(len, rows)), pad_multiple)
    ids = np.full((len(rows), width), pad_id, dtype=np.int64)
    mask = np.zeros((len(rows), width), dtype=np.int64)
    for target, row in enumerate(rows):
        span = slice(width - len(row), width) if left else slice(0, len(row))
        ids[target, span] = row
        mask[target, span] = 1
    return ids, mask
