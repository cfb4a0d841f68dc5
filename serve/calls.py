"""Calls between deployments: a deadline on every one, one retry when a replica dies, errors as Tandem's own.

Guaranteed: `call` and `events` end within their time, whatever the other side does (with no live replica Ray Serve's
router would wait for ever), and a call that is given up is cancelled. A stream begins anew only while none of it was
seen. Replicas answer with an error of Tandem's as a value, so that none is wrapped on its way. Not guaranteed: that a
cancelled call did nothing.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator
from typing import Any

from ray_jobs.errors import TandemError
from serve.errors import BusyError, DeadlineError, UnavailableError

_RETRIES = 1


async def call(handle: Any, method: str, *arguments: object, timeout_s: float) -> Any:
    """What `method` of one replica of `handle` returns.

    Raises DeadlineError after `timeout_s`, BusyError when the deployment's queue is full, UnavailableError when the
    replica died twice, and any TandemError that the replica answered with.
    """
    until = time.monotonic() + timeout_s
    for attempt in range(_RETRIES + 1):
        response = getattr(handle, method).remote(*arguments)
        try:
            found = await asyncio.wait_for(_result(response), max(0.0, until - time.monotonic()))
        except asyncio.CancelledError:
            response.cancel()
            raise
        except TimeoutError:
            response.cancel()
            raise DeadlineError(f"{_name(handle)}: no answer within {timeout_s:.2f} s") from None
        except Exception as error:
            if attempt < _RETRIES and _is_dead(error) and time.monotonic() < until:
                continue
            raise translated(error, _name(handle)) from error
        if isinstance(found, TandemError):
            raise found
        return found
    raise AssertionError("unreachable")


async def events(handle: Any, method: str, *arguments: object, timeout_s: float) -> AsyncGenerator[Any, None]:
    """The items that `method` of one replica of `handle` streams; closing the iterator early cancels the stream.

    Raises as `call` does; `timeout_s` is for the whole stream. The replica may die once before its first item.
    """
    until = time.monotonic() + timeout_s
    retries = _RETRIES
    begin = getattr(handle.options(stream=True), method).remote
    response = begin(*arguments)
    ended = False
    try:
        while True:
            try:
                item = await asyncio.wait_for(anext(response), max(0.0, until - time.monotonic()))
            except StopAsyncIteration:
                ended = True
                return
            except TimeoutError:
                raise DeadlineError(f"{_name(handle)}: not finished within {timeout_s:.2f} s") from None
            except asyncio.CancelledError:
                raise
            except Exception as error:
                if retries and _is_dead(error) and time.monotonic() < until:
                    retries -= 1
                    response = begin(*arguments)
                    continue
                raise translated(error, _name(handle)) from error
            if isinstance(item, TandemError):
                raise item
            retries = 0
            yield item
    finally:
        if not ended:
            response.cancel()


async def everywhere(handle: Any, method: str, *arguments: object, timeout_s: float) -> list[Any]:
    """What `method` returns on every running replica; those that fail are left out.

    Raises UnavailableError when there is no replica, DeadlineError after `timeout_s`.
    """
    try:
        response = handle.broadcast(method, *arguments)
        found = await asyncio.wait_for(
            response.results_async(timeout_s=timeout_s, return_exceptions=True), timeout_s + 0.1
        )
    except TimeoutError:
        raise DeadlineError(f"{_name(handle)}: no answer within {timeout_s:.2f} s") from None
    except Exception as error:
        raise translated(error, _name(handle)) from error
    return [item for item in found if not isinstance(item, BaseException)]


async def _result(response: Any) -> Any:
    return await response


def translated(error: Exception, name: str) -> TandemError:
    """An error of Ray's as one of Tandem's; one that is neither is raised as it is."""
    from ray.exceptions import RayError
    from ray.serve.exceptions import BackPressureError, RayServeException

    cause = getattr(error, "cause", None)
    if isinstance(cause, TandemError):
        return cause
    if isinstance(error, BackPressureError) or isinstance(cause, BackPressureError):
        return BusyError(f"{name}: its queue is full; try again")
    if _is_dead(error) or isinstance(error, RayServeException):
        return UnavailableError(f"{name}: no replica answers; try again in some seconds")
    if isinstance(error, RayError):
        return UnavailableError(f"{name}: failed ({type(error).__name__}); see its log")
    raise error


def _is_dead(error: Exception) -> bool:
    from ray.exceptions import ActorDiedError, ActorUnavailableError, NodeDiedError, RayActorError, WorkerCrashedError

    return isinstance(
        error, ActorDiedError | ActorUnavailableError | NodeDiedError | RayActorError | WorkerCrashedError
    )


def _name(handle: Any) -> str:
    return str(getattr(handle, "deployment_name", handle))
