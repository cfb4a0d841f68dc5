"""A store in a bucket, with conditional PUT as the only fence.

Guaranteed: what `storage` says of every store. A request that fails for a reason that may pass is tried again, for as
long as `StorageSettings` allow; then a StorageError names the object. Not guaranteed: that a write which is reported as
failed does not happen a moment later.
"""

from __future__ import annotations

import tempfile
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlparse

from ray_jobs.errors import ConflictError, CorruptError, NotFoundError, StorageError
from ray_jobs.storage import download, folder_copy
from ray_jobs.storage.cache import ObjectCache
from ray_jobs.storage.large import put_large
from ray_jobs.storage.objects import ObjectInfo, cache_folder, explain_os_error
from ray_jobs.storage.retry import Attempts, may_pass, persistently
from ray_jobs.storage.scratch import own_folder
from ray_jobs.storage.settings import StorageSettings
from ray_jobs.storage.write_once import write_once

if TYPE_CHECKING:
    from obstore import Attributes, ObjectMeta
    from obstore.store import ObjectStore

_PAGE = 1000  # objects of a listing at a time
_GB = 10**9


class ObjectStorage:
    """A store in a bucket, with conditional PUT as the only fence."""

    def __init__(self, uri: str, cache: Path | None = None, settings: StorageSettings | None = None) -> None:
        self.uri = uri.rstrip("/")
        self._settings = settings or StorageSettings.from_environment()
        bound = self._settings.cache_gb
        folder = cache or cache_folder() / "objects"
        self._cache = ObjectCache(folder, self.uri, None if bound is None else int(bound * _GB))
        with self._explained("open", ""):
            self._store = _open(self.uri, self._settings)

    def read(self, key: str) -> bytes:
        """The bytes of `key`; raises NotFoundError."""
        import obstore

        with self._explained("read", key):
            return persistently(lambda: bytes(obstore.get(self._store, key).bytes()), self._settings.retry_s)

    def create(self, key: str, data: bytes) -> None:
        """Write `key` if it is absent; raises ConflictError if it exists."""
        import obstore

        def put(attributes: Attributes) -> None:
            obstore.put(self._store, key, data, mode="create", attributes=attributes)

        with self._explained("write", key):
            self._claim(key, write_once(self._store, key, put, self._settings.retry_s))

    def upload(self, key: str, path: Path) -> None:
        """Write the file `path` at `key`; raises ConflictError if it exists.

        A large file goes in parts, which has no precondition, so that its key is looked up first: keys of large objects
        are unique by construction and never contended.
        """
        if path.stat().st_size <= self._settings.part_bytes:
            self.create(key, path.read_bytes())
            return
        if self.exists(key):
            self._claim(key, False)
        with self._explained("write", key):
            put = partial(put_large, self._store, key, path, settings=self._settings)
            self._claim(key, write_once(self._store, key, put, self._settings.retry_s))

    def exists(self, key: str) -> bool:
        """Whether `key` is there."""
        import obstore

        try:
            with self._explained("read", key):
                persistently(lambda: obstore.head(self._store, key), self._settings.retry_s)
        except NotFoundError:
            return False
        return True

    def list(self, prefix: str) -> Iterator[ObjectInfo]:
        """The objects below the folder `prefix`, in the order of the service; cut short, it goes on where it was."""
        from obstore.exceptions import BaseError

        attempts = Attempts(self._settings.retry_s)
        last: str | None = None
        with self._explained("list", prefix):
            while True:
                try:
                    for item in self._listed(prefix, last):
                        last = item["path"]
                        modified = item["last_modified"].timestamp()
                        yield ObjectInfo(last, item["size"], modified, item["e_tag"] or str(modified))
                    return
                except BaseError as error:
                    if not may_pass(error) or not attempts.again():
                        raise

    def _listed(self, prefix: str, after: str | None) -> Iterator[ObjectMeta]:
        import obstore

        for batch in obstore.list(self._store, prefix, offset=after, chunk_size=_PAGE):
            yield from batch

    def delete(self, key: str) -> None:
        """Remove `key`; absent is fine."""
        import obstore

        with suppress(NotFoundError), self._explained("delete", key):
            persistently(lambda: obstore.delete(self._store, key), self._settings.retry_s)
        self._cache.drop(key)

    def local(self, key: str, sha256: str | None = None) -> Path:
        """A cached copy, complete or absent: by the hash of its bytes, or under the same key where that is not given.

        A key is not used again but by who has deleted it, and its copy by key with it.
        """
        path = self._cache.by_key(key) if sha256 is None else self._cache.by_hash(sha256, key)
        with self._cached(key):
            if not self._cache.copy(path, partial(self._fetch, key), sha256):
                raise CorruptError(
                    f"{self.uri}/{key}: content differs from its sha256 {str(sha256)[:12]}…; restore it from a backup"
                )
        return path

    def fingerprint(self, key: str) -> tuple[int, str]:
        """Size and sha256 of the bytes in the bucket, which are all fetched; raises NotFoundError."""
        with self._cached(key), self._cache.arriving() as path:
            self._fetch(key, path)
            return self._cache.adopt(path, key)

    def local_folder(self, prefix: str) -> Path:
        """A cached copy of what is there now, complete or absent; raises NotFoundError where nothing is.

        What others write under the same keys later is another copy.
        """
        with self._cached(prefix):
            return folder_copy.newest(self, prefix, self._cache.folders)

    def forget(self, prefix: str) -> None:
        """Remove the copies of `local` by key below the folder `prefix`; whoever reads one has it open until then."""
        self._cache.forget(prefix)

    def download(self, key: str, path: Path) -> None:
        """Write the bytes of `key` to the file `path`, which appears whole; raises NotFoundError."""
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex}")
        try:
            self._fetch(key, temporary)
            temporary.rename(path)
        finally:
            temporary.unlink(missing_ok=True)

    @contextmanager
    def scratch(self) -> Iterator[Path]:
        """A folder on the local disk.

        Raises StorageError where the disk takes no folder or no more; other errors of the body stay what they are.
        """
        root = Path(tempfile.gettempdir())
        with own_folder(root, str(root)) as folder:
            yield folder

    def _claim(self, key: str, written: bool) -> None:
        if not written:
            raise ConflictError(f"{self.uri}/{key} exists already; another run wrote it first")

    def _fetch(self, key: str, path: Path) -> None:
        with self._explained("read", key):
            download.fetch(self._store, key, path, self._settings)

    @contextmanager
    def _cached(self, key: str) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            where = self._cache.folder
            raise StorageError(f"cannot cache {self.uri}/{key} in {where}: {explain_os_error(error)}") from error

    @contextmanager
    def _explained(self, verb: str, key: str) -> Iterator[None]:
        from obstore import exceptions

        try:
            yield
        except (FileNotFoundError, exceptions.NotFoundError) as error:
            raise NotFoundError(f"{self.uri}/{key} does not exist; expected an object of the store") from error
        except exceptions.PreconditionError as error:
            raise StorageError(f"{self.uri}/{key} changes while it is read; try again when it is written") from error
        except exceptions.BaseError as error:
            reason = str(error).splitlines()[0]
            raise StorageError(
                f"cannot {verb} {self.uri}/{key}: {reason}; check address, credentials and network"
            ) from error


def _open(uri: str, settings: StorageSettings) -> ObjectStore:
    import obstore.store

    scheme = urlparse(uri).scheme
    if scheme == "memory":
        return obstore.store.from_url(uri)
    return obstore.store.from_url(uri, client_options=settings.of_the_client(scheme), retry_config=settings.tries())
