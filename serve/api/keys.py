"""Keys and the tenants they belong to.

Guaranteed: the time of a look-up tells nothing about any key's hash; a key is never kept, logged or shown. A key is 32
random bytes, so a plain hash of it cannot be guessed back.
"""

from __future__ import annotations

import hashlib
import hmac
import secrets
from collections.abc import Mapping
from dataclasses import dataclass

from ray_jobs.index.filters import Filter, parse
from serve.api.config import ApiConfig
from serve.errors import UnauthorizedError


@dataclass(frozen=True)
class Tenant:
    """Who calls, and what they may see."""

    name: str
    indexes: frozenset[str] | None = None  # None: all
    where: Filter | None = None

    def may_see(self, index: str) -> bool:
        """Whether an index of this name exists for the tenant."""
        return self.indexes is None or index in self.indexes


EVERYBODY = Tenant("everybody")
"""The tenant of every caller of an open server."""


def new_key() -> tuple[str, str]:
    """A new random key, to be given to its owner, and its hash, to be configured."""
    key = f"tdm_{secrets.token_urlsafe(32)}"
    return key, hash_of(key.encode())


def hash_of(key: bytes) -> str:
    """The hash by which a key is configured: SHA-256, in hex."""
    return hashlib.sha256(key).hexdigest()


class KeyRing:
    """The keys of all tenants."""

    def __init__(self, config: ApiConfig) -> None:
        self._open = config.open
        self._tenants: Mapping[str, Tenant] = {
            key: Tenant(
                name=name,
                indexes=None if tenant.indexes is None else frozenset(tenant.indexes),
                where=None if tenant.where is None else parse(tenant.where),
            )
            for name, tenant in config.tenants.items()
            for key in tenant.keys
        }

    def tenant(self, authorization: bytes | None) -> Tenant:
        """The tenant whose key is in an Authorization header.

        Raises UnauthorizedError.
        """
        if self._open:
            return EVERYBODY
        scheme, _, key = (authorization or b"").strip().partition(b" ")
        if scheme.lower() != b"bearer" or not key.strip():
            raise UnauthorizedError("no key: expected the header 'Authorization: Bearer KEY'")
        given = hash_of(key.strip())
        # Every hash is compared, whichever it is.
        matching = [tenant for known, tenant in self._tenants.items() if hmac.compare_digest(known, given)]
        if not matching:
            raise UnauthorizedError("nobody has this key: check it, or ask the operator for one")
        return matching[0]
