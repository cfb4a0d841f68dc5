"""Trying again what a service or the network has failed at, for so long and no longer.

Guaranteed: nothing new is begun once the time is over, so that a call takes at most that time, one more round of the
client's own tries and one request's timeout; what the service refuses (permission, a wrong name) is not tried again.
"""

from __future__ import annotations

import random
import re
import time
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")

_FIRST_PAUSE = 0.1  # seconds
_LONGEST_PAUSE = 5.0
_REFUSED = re.compile(r"status code: 4(?!08|29)\d\d")
_SLOW_SENDER = "RequestTimeout"  # S3 says 400 to who sends too slowly


class Attempts:
    """The tries of one call; pauses grow, each drawn at random so that many callers do not come at once."""

    def __init__(self, seconds: float) -> None:
        self._until = time.monotonic() + seconds
        self._pause = _FIRST_PAUSE

    def again(self) -> bool:
        """Wait before the next try; False where there is no time for one."""
        pause = random.uniform(0, self._pause)
        if time.monotonic() + pause >= self._until:
            return False
        time.sleep(pause)
        self._pause = min(2 * self._pause, _LONGEST_PAUSE)
        return True


def persistently(call: Callable[[], T], seconds: float) -> T:
    """The result of `call`, tried again for `seconds` where it fails for a reason that may pass."""
    from obstore.exceptions import BaseError

    attempts = Attempts(seconds)
    while True:
        try:
            return call()
        except BaseError as error:
            if not may_pass(error) or not attempts.again():
                raise


def may_pass(error: Exception) -> bool:
    """Whether an error of the client may be gone at the next try: the network, or a service that is busy or broken."""
    from obstore import exceptions

    if not isinstance(error, exceptions.GenericError):
        return False
    return _REFUSED.search(str(error)) is None or _SLOW_SENDER in str(error)
