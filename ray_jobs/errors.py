"""Every error a user can meet, in one tree.

    TandemError                 exit code 1: the work failed
    ├── UsageError              exit code 2: the request itself is wrong (a flag, a key, a value, a filter)
    ├── NotFoundError           an index, snapshot, model, source or file that does not exist
    ├── CorruptError            bytes that do not match their recorded hash, or cannot be what they claim
    ├── ConflictError           another run got there first (a manifest number, an object key)
    ├── StorageError            the store or the disk refused: permission, space, network
    ├── ModelError              a model that cannot be loaded or does not behave as one
    └── RejectedError           too many documents failed; nothing was published

Guaranteed: the message is one line that names key, value, what was expected and what to do, so that the command
line prints it as it stands and no traceback. Not guaranteed: that a bug in Tandem surfaces as one of these; anything
else that escapes is a defect and keeps its traceback.
"""

from __future__ import annotations


def first_line(error: BaseException) -> str:
    """What an error of somebody else's says, as a part of a message of one line."""
    return (str(error).splitlines() or [type(error).__name__])[0]


class TandemError(Exception):
    """The work failed for a reason the user can act on."""

    exit_code = 1


class UsageError(TandemError):
    """The request is wrong: nothing was started."""

    exit_code = 2


class NotFoundError(TandemError):
    """Something that was named does not exist."""


class CorruptError(TandemError):
    """Stored bytes are not what the manifest says they are."""


class ConflictError(TandemError):
    """Another run published first."""


class StorageError(TandemError):
    """The store or the disk refused an operation."""


class ModelError(TandemError):
    """A model cannot be loaded or answers in a shape that it should not."""


class RejectedError(TandemError):
    """More documents failed than the run allows; the old snapshot stays live."""
