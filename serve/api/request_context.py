"""What is known of one request, from its first byte to its line in the access log."""

from __future__ import annotations

import re
import time
from dataclasses import dataclass, field
from typing import Annotated
from uuid import uuid4

from fastapi import Depends, Header, Request
from starlette.datastructures import Headers
from starlette.types import Scope

from serve.api.deadline import Deadline
from serve.api.keys import Tenant

_KEY = "tandem.request"
_SAFE_ID = re.compile(r"[\x20-\x7e]{1,128}")


@dataclass
class RequestContext:
    """One request; what is not known yet is None."""

    request_id: str
    longest_s: float  # the time that a request has unless it asks for less
    started: float = field(default_factory=time.monotonic)
    tenant: Tenant | None = None
    degraded: tuple[str, ...] = ()
    error: str | None = None  # its code
    gone: bool = False  # the client has left

    def deadline(self, wanted_s: float | None = None) -> Deadline:
        """When the request must be answered."""
        return Deadline.after(min(self.longest_s, wanted_s or self.longest_s), self.started)


@dataclass(frozen=True)
class Caller:
    """What a route needs to know of who calls."""

    tenant: Tenant
    deadline: Deadline
    context: RequestContext


def begin(scope: Scope, longest_s: float) -> RequestContext:
    """Start the context of a request and keep it with its scope."""
    given = Headers(scope=scope).get("x-request-id", "")
    request_id = given if _SAFE_ID.fullmatch(given) else uuid4().hex
    context = scope[_KEY] = RequestContext(request_id, longest_s)
    return context


def context_of(scope: Scope) -> RequestContext:
    """The context that `begin` started."""
    context: RequestContext = scope[_KEY]
    return context


async def _caller(
    request: Request,
    x_request_timeout: Annotated[
        float | None,
        Header(
            gt=0, allow_inf_nan=False, description="seconds after which the answer is of no use; at most the server's"
        ),
    ] = None,
) -> Caller:
    context = context_of(request.scope)
    if context.tenant is None:
        raise RuntimeError("a route that needs a caller is not behind the gate")
    return Caller(context.tenant, context.deadline(x_request_timeout), context)


CallerOf = Annotated[Caller, Depends(_caller)]
"""A parameter of a route: who calls, and how much time they have."""
