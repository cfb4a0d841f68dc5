"""Windows of several lengths as one rectangle, and where their tokens lie in it.

Guaranteed: what a window says of its tokens stays with them on whichever side the padding lies; padding is never
readable.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ray_jobs.models.batching import pad
from ray_jobs.models.pairs import PairBatch
from ray_jobs.models.reader_windows import Window


@dataclass(frozen=True, slots=True)
class PaddedWindows:
    """What a model takes, and beside it: `offsets`, int64 (rows,), the padding before each window; `readable`, bool
    (rows, tokens); `null`, int64 (rows,), the place of each null token in its padded row.
    """

    batch: PairBatch
    offsets: NDArray[np.int64]
    readable: NDArray[np.bool_]
    null: NDArray[np.int64]


def pad_windows(windows: Sequence[Window], pad_id: int, multiple: int, left: bool) -> PaddedWindows:
    """Pad windows to the longest, rounded up to a multiple of `multiple` tokens; on the left if `left`."""
    ids, mask = pad([window.ids for window in windows], pad_id, multiple, left)
    segments, _ = pad([window.segments for window in windows], 0, multiple, left)
    readable, _ = pad([window.readable.astype(np.int64) for window in windows], 0, multiple, left)
    lengths = mask.sum(axis=1)
    offsets = ids.shape[1] - lengths if left else np.zeros_like(lengths)
    null = np.array([window.null for window in windows], dtype=np.int64) + offsets
    return PaddedWindows(PairBatch(ids, mask, segments), offsets, readable == 1, null)
