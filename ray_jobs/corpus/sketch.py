"""Sketches of texts: MinHash signatures, and the bands by which near ones find each other.

A text is the set of its runs of SHINGLE characters (case and white space apart), which suits every language. Signatures
are datasketch's MinHash of PERMUTATIONS values, (128,) uint32; the share of equal values estimates the Jaccard
similarity of the sets with a standard error of at most 0.045. Its own index keeps dictionaries of sets for each row;
here a band is one number of 64 bits, so that the bands of all rows are columns. Guaranteed: a text has the same sketch
on every machine.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

PERMUTATIONS = 128
SHINGLE = 5  # characters
_SEED = 1
_SHINGLES_AT_ONCE = 8192  # of 4 bytes times PERMUTATIONS each
FOUND = 0.9  # of the pairs just at the threshold
_PRIME = np.uint64(0x9E3779B97F4A7C15)

Signature = npt.NDArray[np.uint32]
Bands = npt.NDArray[np.uint64]


def normalised(text: str) -> str:
    """A text as comparisons see it: case and white space do not count."""
    return " ".join(text.casefold().split())


@dataclass(frozen=True, slots=True)
class Banding:
    """How a signature is cut: `bands` bands of `rows` values."""

    bands: int
    rows: int

    @classmethod
    def of(cls, threshold: float) -> Banding:
        """The longest bands that still find a share of FOUND of the pairs of similarity `threshold`."""
        # Rows that share a band by chance are compared and cost time; near rows that share none are lost for good.
        lengths = range(PERMUTATIONS, 0, -1)
        bandings = (cls(PERMUTATIONS // rows, rows) for rows in lengths)
        return next(banding for banding in bandings if banding.chance(threshold) >= FOUND)

    def keys(self, signatures: npt.NDArray[np.uint32]) -> Bands:
        """One number a band: (n, PERMUTATIONS) to (n, bands)."""
        used = signatures[:, : self.bands * self.rows].reshape(len(signatures), self.bands, self.rows)
        keys = np.zeros((len(signatures), self.bands), np.uint64)
        for column in range(self.rows):
            keys = (keys ^ used[:, :, column]) * _PRIME
            keys ^= keys >> np.uint64(29)
        return keys

    def chance(self, similarity: float) -> float:
        """The probability that two sets of this similarity share a band."""
        return float(1 - (1 - similarity**self.rows) ** self.bands)


def signatures(texts: Sequence[str]) -> npt.NDArray[np.uint32]:
    """The signatures of texts, (n, PERMUTATIONS)."""
    from datasketch import MinHash

    empty: Any = MinHash(num_perm=PERMUTATIONS, seed=_SEED, hashfunc=_itself, scheme="affine32")
    found = np.empty((len(texts), PERMUTATIONS), np.uint32)
    for number, text in enumerate(texts):
        sketch = empty.copy()
        hashes = shingles(text).tolist()
        for first in range(0, len(hashes), _SHINGLES_AT_ONCE):
            sketch.update_batch(hashes[first : first + _SHINGLES_AT_ONCE])
        found[number] = sketch.hashvalues
    return found


def shingles(text: str) -> npt.NDArray[np.uint32]:
    """The distinct hashes of all runs of SHINGLE characters; of a shorter text, of the whole."""
    encoded = normalised(text).encode("utf-32-le")
    characters = np.frombuffer(encoded, "<u4").astype(np.uint64) if encoded else np.empty(0, np.uint64)
    length = min(SHINGLE, len(characters))
    runs = max(0, len(characters) - length + 1)
    hashes = np.full(runs, length, np.uint64)
    for place in range(length):
        hashes = (hashes ^ characters[place : place + runs]) * _PRIME
        hashes ^= hashes >> np.uint64(31)
    return np.unique((hashes >> np.uint64(32)).astype(np.uint32))


def similarity(many: npt.NDArray[np.uint32], one: Signature) -> npt.NDArray[np.float64]:
    """The estimated Jaccard similarity of each of (n, PERMUTATIONS) to `one`."""
    return np.asarray((many == one).mean(axis=1))


def _itself(value: int) -> int:
    return value
