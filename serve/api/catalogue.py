"""The names of what is served, as far as a tenant may know them.

Guaranteed: to a tenant an index that it may not see does not exist, in errors as well. Names are remembered, so that
no request waits for a description; a name that is not known is looked up anew before it is refused. What does not
answer when it is asked, being busy or on its way back, keeps the names it had.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from dataclasses import replace

from serve.api.errors import UnknownError
from serve.api.keys import Tenant
from serve.backend import Backend
from serve.errors import ForbiddenError, UnavailableError
from serve.messages import Description, IndexDescription


class Catalogue:
    """Remembers what a backend says it serves."""

    def __init__(self, backend: Backend, fresh_s: float) -> None:
        self._backend = backend
        self._fresh_s = fresh_s
        self._known: Description | None = None
        self._learned = 0.0
        self._asking: asyncio.Task[Description] | None = None

    async def now(self) -> Description:
        """What answers now; those who ask at the same time share one answer."""
        return await asyncio.shield(self._ask())

    async def latest(self) -> Description:
        """What is served, with the names of what does not answer now."""
        await self.now()
        assert self._known is not None
        return self._known

    async def known(self) -> Description:
        """As `latest`, but as it was when it was last asked for; if that is long ago, the next caller knows better."""
        if self._known is None:
            return await self.latest()
        if time.monotonic() - self._learned > self._fresh_s:
            self._ask()
        return self._known

    async def index(self, name: str | None, tenant: Tenant, param: str = "index") -> str:
        """The index of this name, or the tenant's default.

        Raises UnknownError, naming `param`; ForbiddenError when the tenant may see none, UnavailableError when there
        is none.
        """
        description = await self.known()
        if not description.indexes or name not in (None, *_names(description, tenant)):
            description = await self.latest()
        names = _names(description, tenant)
        if not description.indexes:
            raise UnavailableError("no index is served yet; try again in some seconds")
        if not names:
            raise ForbiddenError(f"tenant {tenant.name} may see none of the indices here; ask the operator for one")
        if name not in (None, *names):
            raise UnknownError(f"index={name}: there is no such index; expected one of {', '.join(names)}", param)
        return name or names[0]

    async def generator(self, name: str) -> Description:
        """What is served, the generator of this name being part of it.

        Raises UnknownError; UnavailableError when none has answered yet.
        """
        description = await self.known()
        if name not in description.generators:
            description = await self.latest()
        check_model(name, description.generators)
        return description

    async def close(self) -> None:
        """Stop asking."""
        if self._asking is not None:
            self._asking.cancel()
            await asyncio.gather(self._asking, return_exceptions=True)

    def _ask(self) -> asyncio.Task[Description]:
        if self._asking is None or self._asking.done():
            self._asking = asyncio.create_task(self._learn())
            # Nobody may be waiting for it.
            self._asking.add_done_callback(lambda task: task.cancelled() or task.exception())
        return self._asking

    async def _learn(self) -> Description:
        found = await self._backend.describe()
        self._known = found if self._known is None else _completed(found, self._known)
        self._learned = time.monotonic()
        return found


def visible(description: Description, tenant: Tenant) -> list[IndexDescription]:
    """The indices that a tenant may see, its default first."""
    return [index for index in description.indexes if tenant.may_see(index.name)]


def check_model(name: str | None, served: Sequence[str]) -> None:
    """Raise UnknownError when a model is named that is not one of `served`, UnavailableError when these are unknown."""
    if not served:
        raise UnavailableError("the model does not answer yet; try again in some seconds")
    if name is not None and name not in served:
        raise UnknownError(
            f"model={name}: there is no such model for this; expected one of {', '.join(served)}", "model"
        )


def _completed(found: Description, before: Description) -> Description:
    """What was found, and what was there before of that which did not answer."""
    generating = found if found.generators else before
    return replace(
        found,
        indexes=found.indexes or before.indexes,
        embedder=found.embedder or before.embedder,
        generators=generating.generators,
        needs_passages=generating.needs_passages,
        reranker=found.reranker or before.reranker,
    )


def _names(description: Description, tenant: Tenant) -> list[str]:
    return [index.name for index in visible(description, tenant)]
