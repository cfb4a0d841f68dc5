"""How object stores are asked, and how much of them a machine keeps: from the environment, since every process of a
cluster opens the store itself, as it does with credentials.

Guaranteed: a value that cannot be is a UsageError that names the variable. Not guaranteed: anything about variables of
other names; they are not read.
"""

from __future__ import annotations

import os
from datetime import timedelta
from typing import TYPE_CHECKING, cast

from pydantic import Field, ValidationError
from pydantic_settings import BaseSettings, SettingsConfigDict

from ray_jobs.errors import UsageError

if TYPE_CHECKING:
    from obstore.store import ClientConfig, RetryConfig

PREFIX = "TANDEM_STORAGE_"
_MIB = 1 << 20
_FIRST_PAUSE, _LONGEST_PAUSE = timedelta(seconds=0.1), timedelta(seconds=5)
_MOST_TRIES = 1000  # the time is what ends them
_PREFIXES = {"s3": ("aws",), "s3a": ("aws",), "gs": ("google",), "az": ("azure",), "abfs": ("azure",)}
_CLIENT_KEYS = (
    "allow_http",
    "allow_invalid_certificates",
    "default_content_type",
    "http1_only",
    "http2_keep_alive_interval",
    "http2_keep_alive_timeout",
    "http2_keep_alive_while_idle",
    "http2_only",
    "pool_idle_timeout",
    "pool_max_idle_per_host",
    "proxy_url",
    "proxy_ca_certificate",
    "proxy_excludes",
    "randomize_addresses",
    "user_agent",
)


class StorageSettings(BaseSettings):
    """TANDEM_STORAGE_TIMEOUT_S and so on."""

    model_config = SettingsConfigDict(frozen=True, extra="forbid", env_prefix=PREFIX)

    connect_timeout_s: float = Field(5, gt=0, description="seconds until a connection must stand")
    timeout_s: float = Field(60, gt=0, description="seconds that one request may take, of at most part_mb")
    retry_s: float = Field(120, ge=0, description="seconds for which a request that failed is tried again")
    part_mb: int = Field(16, ge=5, le=1024, description="MiB by which larger objects are sent and fetched")
    parallel: int = Field(8, ge=1, le=64, description="parts of one object on their way at a time")
    cache_gb: float | None = Field(
        None, ge=0, description="GB of copies that a machine keeps, besides those in use; None: half of its disk"
    )

    @classmethod
    def from_environment(cls) -> StorageSettings:
        """Of this process; raises UsageError."""
        try:
            return cls()
        except ValidationError as error:
            first = error.errors()[0]
            name = PREFIX + "_".join(str(part) for part in first["loc"]).upper()
            message = first["msg"][:1].lower() + first["msg"][1:]
            raise UsageError(
                f"{name}={os.environ.get(name, '')!r}: {message}; change the variable or unset it"
            ) from None

    @property
    def part_bytes(self) -> int:
        """Bytes of a part."""
        return self.part_mb * _MIB

    def of_the_client(self, scheme: str) -> ClientConfig:
        """What the client of a scheme is told of connections: the timeouts, and the rest as the environment has it.

        It reads the environment itself, AWS_ALLOW_HTTP for example, but not where it is told anything.
        """
        names = {f"{prefix}_{key}".upper(): key for prefix in _PREFIXES.get(scheme, ()) for key in _CLIENT_KEYS}
        found = {key: os.environ[name] for name, key in names.items() if name in os.environ}
        timeouts = {
            "timeout": timedelta(seconds=self.timeout_s),
            "connect_timeout": timedelta(seconds=self.connect_timeout_s),
        }
        return cast("ClientConfig", {**found, **timeouts})

    def tries(self) -> RetryConfig:
        """How the client itself tries again."""
        return {
            "max_retries": _MOST_TRIES if self.retry_s else 0,
            "retry_timeout": timedelta(seconds=self.retry_s),
            "backoff": {"init_backoff": _FIRST_PAUSE, "max_backoff": _LONGEST_PAUSE, "base": 2},
        }
