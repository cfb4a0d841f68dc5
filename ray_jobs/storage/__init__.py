"""The store: immutable objects under keys, on a local disk or an object store, behind one small class.

Guaranteed: `create` and `upload` write a key at most once (the second writer gets `ConflictError`), and a reader sees
the whole object or none of it; on a local disk the bytes and their directory entry are synced before the key exists.
A refusal by the disk or the service (space, permission, network) is a `StorageError` that says what to do.
Not guaranteed: any order between two keys other than the order of the calls; fsync below a network file system.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Protocol
from urllib.parse import unquote, urlparse

from ray_jobs.errors import UsageError
from ray_jobs.storage.local import LocalStorage
from ray_jobs.storage.objects import ObjectInfo, explain_os_error, new_id, now, sha256_of
from ray_jobs.storage.remote import ObjectStorage

__all__ = [
    "DEFAULT_STORE",
    "LocalStorage",
    "ObjectInfo",
    "ObjectStorage",
    "Storage",
    "explain_os_error",
    "new_id",
    "now",
    "open_storage",
    "sha256_of",
]

DEFAULT_STORE = "tandem-store"
REMOTE_SCHEMES = ("s3", "s3a", "gs", "az", "abfs", "memory")


class Storage(Protocol):
    """What every job and every server needs of a store."""

    uri: str

    def read(self, key: str) -> bytes:
        """The bytes of `key`; raises NotFoundError."""
        ...

    def create(self, key: str, data: bytes) -> None:
        """Write `key` if it is absent; raises ConflictError if it exists."""
        ...

    def upload(self, key: str, path: Path) -> None:
        """Write the file `path` at `key` if it is absent; raises ConflictError if it exists."""
        ...

    def exists(self, key: str) -> bool:
        """Whether `key` is there."""
        ...

    def list(self, prefix: str) -> Iterator[ObjectInfo]:
        """The objects below the folder `prefix`, in order of key."""
        ...

    def delete(self, key: str) -> None:
        """Remove `key`; absent is fine."""
        ...

    def local(self, key: str, sha256: str | None = None) -> Path:
        """A local file with the bytes of `key`, for memory mapping; a remote one is cached, its hash checked."""
        ...

    def fingerprint(self, key: str) -> tuple[int, str]:
        """Size and sha256 of the bytes that the store holds now, all of them read; raises NotFoundError."""
        ...

    def local_folder(self, prefix: str) -> Path:
        """A local folder with the files below `prefix`, to be read only; raises NotFoundError where there are none."""
        ...

    def forget(self, prefix: str) -> None:
        """Remove this machine's copies of what is below the folder `prefix`; what they are copies of stays."""
        ...

    def scratch(self) -> AbstractContextManager[Path]:
        """A folder for files about to be uploaded, removed at the end; StorageError where its disk takes no more."""
        ...


def open_storage(uri: str) -> Storage:
    """Open the store at `uri`: a path, `file://`, `s3://`, `gs://` or `az://`.

    Raises UsageError for a scheme that is not known.
    """
    parsed = urlparse(uri)
    if parsed.scheme in ("", "file"):
        path = unquote(parsed.path) if parsed.scheme else uri
        return LocalStorage(Path(path).expanduser().absolute())
    if parsed.scheme in REMOTE_SCHEMES:
        return ObjectStorage(uri)
    raise UsageError(
        f"store={uri}: unknown scheme {parsed.scheme!r}; expected a path or one of {', '.join(REMOTE_SCHEMES)}://"
    )
