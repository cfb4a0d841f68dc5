"""A store in a bucket, with conditional PUT as the only fence."""

from __future__ import annotations

import hashlib
import shutil
import tempfile
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

from ray_jobs.errors import ConflictError, CorruptError, NotFoundError, StorageError
from ray_jobs.storage import folder_copy, verified
from ray_jobs.storage.objects import BLOCK, ObjectInfo, cache_folder, explain_os_error
from ray_jobs.storage.scratch import own_folder

if TYPE_CHECKING:
    from obstore.store import ObjectStore

_SINGLE_PUT = 64 * BLOCK  # up to which an object is written by one request, with a precondition


class ObjectStorage:
    """A store in a bucket, with conditional PUT as the only fence."""

    def __init__(self, uri: str, cache: Path | None = None) -> None:
        import obstore.store

        self.uri = uri.rstrip("/")
        self._id = hashlib.sha256(self.uri.encode()).hexdigest()[:16]
        self._cache = cache or cache_folder() / "objects"
        with self._explained("open", ""):
            self._store: ObjectStore = obstore.store.from_url(self.uri)

    def read(self, key: str) -> bytes:
        """The bytes of `key`; raises NotFoundError."""
        import obstore

        with self._explained("read", key):
            return bytes(obstore.get(self._store, key).bytes())

    def create(self, key: str, data: bytes) -> None:
        """Write `key` if it is absent; raises ConflictError if it exists."""
        import obstore

        with self._explained("write", key):
            obstore.put(self._store, key, data, mode="create")

    def upload(self, key: str, path: Path) -> None:
        """Write the file `path` at `key`; raises ConflictError if it exists.

        A multipart upload has no precondition, so a large object is checked first: keys of large objects are unique by
        construction and never contended.
        """
        import obstore

        with self._explained("write", key):
            if path.stat().st_size <= _SINGLE_PUT:
                obstore.put(self._store, key, path.read_bytes(), mode="create")
                return
            if self.exists(key):
                raise ConflictError(f"{self.uri}/{key} exists already; another run wrote it first")
            with path.open("rb") as file:
                obstore.put(self._store, key, file, use_multipart=True)

    def exists(self, key: str) -> bool:
        """Whether `key` is there."""
        import obstore

        try:
            with self._explained("read", key):
                obstore.head(self._store, key)
        except NotFoundError:
            return False
        return True

    def list(self, prefix: str) -> Iterator[ObjectInfo]:
        """The objects below the folder `prefix`, in the order of the service."""
        import obstore

        with self._explained("list", prefix):
            for batch in obstore.list(self._store, prefix):
                for item in batch:
                    modified = item["last_modified"].timestamp()
                    yield ObjectInfo(item["path"], item["size"], modified, item["e_tag"] or str(modified))

    def delete(self, key: str) -> None:
        """Remove `key`; absent is fine."""
        import obstore

        with suppress(NotFoundError), self._explained("delete", key):
            obstore.delete(self._store, key)
        with suppress(OSError):
            self._cached(key).unlink()

    def local(self, key: str, sha256: str | None = None) -> Path:
        """A cached copy under the same key, complete or absent.

        A key is not used again but by who has deleted it, and its copy with it; other machines keep theirs until they
        are asked for another hash: a copy that has another one is fetched again.
        """
        path = self._cached(key)
        try:
            if not path.is_file() or (sha256 is not None and not verified.holds(path, sha256)):
                self.download(key, path)
            if sha256 is not None and not verified.holds(path, sha256):
                path.unlink()
                raise CorruptError(
                    f"{self.uri}/{key}: content differs from its sha256 {sha256[:12]}…; restore it from a backup"
                )
        except OSError as error:
            raise StorageError(f"cannot cache {self.uri}/{key} in {self._cache}: {explain_os_error(error)}") from error
        return path

    def local_folder(self, prefix: str) -> Path:
        """A cached copy of what is there now, complete or absent; raises NotFoundError where nothing is.

        What others write under the same keys later is another copy.
        """
        try:
            return folder_copy.newest(self, prefix, self._cache / f"{self._id}-folders")
        except OSError as error:
            raise StorageError(
                f"cannot cache {self.uri}/{prefix} in {self._cache}: {explain_os_error(error)}"
            ) from error

    def forget(self, prefix: str) -> None:
        """Remove the cached copies of `local` below the folder `prefix`; whoever reads one has it open until then."""
        shutil.rmtree(self._cached(prefix), ignore_errors=True)

    def download(self, key: str, path: Path) -> None:
        """Write the bytes of `key` to the file `path`, which appears whole; raises NotFoundError."""
        import obstore

        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex}")
        try:
            with self._explained("read", key), temporary.open("xb") as file:
                for block in obstore.get(self._store, key).stream(min_chunk_size=BLOCK):
                    file.write(block)
            temporary.rename(path)
        finally:
            temporary.unlink(missing_ok=True)

    def _cached(self, key: str) -> Path:
        return self._cache / self._id / key

    @contextmanager
    def scratch(self) -> Iterator[Path]:
        """A folder on the local disk.

        Raises StorageError where the disk takes no folder or no more; other errors of the body stay what they are.
        """
        root = Path(tempfile.gettempdir())
        with own_folder(root, str(root)) as folder:
            yield folder

    @contextmanager
    def _explained(self, verb: str, key: str) -> Iterator[None]:
        from obstore import exceptions

        try:
            yield
        except (FileNotFoundError, exceptions.NotFoundError) as error:
            raise NotFoundError(f"{self.uri}/{key} does not exist; expected an object of the store") from error
        except (exceptions.AlreadyExistsError, exceptions.PreconditionError, FileExistsError) as error:
            raise ConflictError(f"{self.uri}/{key} exists already; another run wrote it first") from error
        except exceptions.BaseError as error:
            reason = str(error).splitlines()[0]
            raise StorageError(
                f"cannot {verb} {self.uri}/{key}: {reason}; check address, credentials and network"
            ) from error
