"""Writing a key that must be absent, over a network that may lose the answer.

A write whose answer is lost may have happened, and tried again it meets its own object, which looks like a lost race.
So each carries a mark of its own as metadata: whoever meets an object with that mark has written it.

Guaranteed: of many writers of a key one is told that it has written it; a write that happened is never taken for
another's. Not guaranteed: that a write which is reported as failed does not happen a moment later, when the network
delivers it late.
"""

from __future__ import annotations

import uuid
from collections.abc import Callable
from typing import TYPE_CHECKING

from ray_jobs.storage.retry import Attempts, may_pass, persistently

if TYPE_CHECKING:
    from obstore import Attributes
    from obstore.store import ObjectStore

_MARK = "tandemwrite"  # without a hyphen, which Azure does not take


def write_once(store: ObjectStore, key: str, put: Callable[[Attributes], object], seconds: float) -> bool:
    """Write `key` by `put`, which gets the metadata to give it; False where another writer was first.

    Raises what the client raises, once it has been tried again for `seconds`.
    """
    from obstore.exceptions import AlreadyExistsError, BaseError

    mark = uuid.uuid4().hex
    attempts = Attempts(seconds)
    while True:
        try:
            put({_MARK: mark})
            return True
        except (AlreadyExistsError, FileExistsError):
            found = _mark_of(store, key, seconds)
            if found is not None:
                return found == mark
            if not attempts.again():  # S3 says so of a write beside a deletion, too
                raise
        except BaseError as error:
            if not may_pass(error):
                raise
            if _mark_of(store, key, seconds) == mark:
                return True
            if not attempts.again():
                raise


def _mark_of(store: ObjectStore, key: str, seconds: float) -> str | None:
    """The mark of what has `key`, "" for an object without one; None where there is none."""
    import obstore

    try:
        found = persistently(lambda: obstore.get(store, key, options={"head": True}), seconds)
    except FileNotFoundError:
        return None
    return found.attributes.get(_MARK, "")
