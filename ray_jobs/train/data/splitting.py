"""Which split a row goes to: a hash of its group's name and the seed, nothing else.

Guaranteed: a group is never divided, and neither rows nor groups that are added later move one that was there. Not
guaranteed: shares of rows that are exactly as wished; they are those of the groups, up to chance.
"""

from __future__ import annotations

import hashlib

from ray_jobs.train.data.config import SplitConfig

SPLITS = ("train", "validation", "test")
_RANGE = 1 << 64


def split_of(group: str, config: SplitConfig) -> int:
    """The number of the split in SPLITS.

    The test split takes the first stretch of the range of hashes, so that it stays what it is when the shares of
    training and validation change.
    """
    digest = hashlib.blake2b(f"{config.seed}\0{group}".encode(), digest_size=8).digest()
    place = int.from_bytes(digest, "little") / _RANGE
    if place < config.test:
        return SPLITS.index("test")
    # A rounding error of the sum must not make a validation split where none is wished.
    validation = config.validation > 0 and (place < config.test + config.validation or config.train == 0)
    return SPLITS.index("validation" if validation else "train")
