"""Rows of like length side by side, so that little of a batch is padding.

Guaranteed: the same rows, each as often as before; a row moves within a stretch of STRETCH batches only, so that what
an epoch is stays true but at its edge; batches come in no order of length; the result depends on nothing but rows,
lengths, batch and seed, so that a run that resumes goes on with the very next row.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

STRETCH = 64  # batches


def alike(
    indices: npt.NDArray[np.int64], lengths: npt.NDArray[np.int64], batch: int, seed: int
) -> npt.NDArray[np.int64]:
    """The same indices, moved so that rows of one batch are of like length.

    `lengths` are of all rows, by index; a last batch that is not whole stays the last.
    """
    found = []
    for number, begin in enumerate(range(0, len(indices), STRETCH * batch)):
        stretch = indices[begin : begin + STRETCH * batch]
        stretch = stretch[np.argsort(lengths[stretch], kind="stable")]
        whole = len(stretch) // batch
        shuffled = np.random.default_rng([seed, number]).permutation(whole)
        found += [stretch[place * batch : (place + 1) * batch] for place in shuffled]
        found.append(stretch[whole * batch :])
    return np.concatenate(found) if found else indices
