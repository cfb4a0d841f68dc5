"""The store: immutable objects under keys, on a local disk or an object store, behind one small class.

Guaranteed: `create` and `upload` write a key at most once (the second writer gets `ConflictError`), and a reader sees
the whole object or none of it; on a local disk the bytes and their directory entry are synced before the key exists.
A refusal by the disk or the service (space, permission, network) is a `StorageError` that says what to do.
Not guaranteed: any order between two keys other than the order of the calls; fsync below a network file system.
"""

from __future__ import annotations

import errno
import hashlib
import os
import shutil
import tempfile
import time
import uuid
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Protocol
from urllib.parse import unquote, urlparse

from ray_jobs.errors import ConflictError, CorruptError, NotFoundError, StorageError, UsageError

if TYPE_CHECKING:
    from obstore.store import ObjectStore

REMOTE_SCHEMES = ("s3", "s3a", "gs", "az", "abfs", "memory")
SCRATCH = ".scratch"
_BLOCK = 1 << 20


@dataclass(frozen=True)
class ObjectInfo:
    """One object of a listing."""

    key: str
    size: int  # bytes
    modified: float  # seconds since the epoch


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

    def scratch(self) -> AbstractContextManager[Path]:
        """A folder for files about to be uploaded, removed at the end."""
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


def sha256_of(path: Path) -> str:
    """Hexadecimal SHA-256 of a file, read in blocks."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(_BLOCK):
            digest.update(block)
    return digest.hexdigest()


class LocalStorage:
    """A store in a folder."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.uri = str(root)

    def read(self, key: str) -> bytes:
        """The bytes of `key`; raises NotFoundError."""
        with self._explained("read", key):
            return self._path(key).read_bytes()

    def create(self, key: str, data: bytes) -> None:
        """Write `key` if it is absent; raises ConflictError if it exists."""
        with self._explained("write", key):
            target = self._path(key)
            target.parent.mkdir(parents=True, exist_ok=True)
            temporary = target.with_name(f".{target.name}.{uuid.uuid4().hex}")
            try:
                with temporary.open("xb") as file:
                    file.write(data)
                    file.flush()
                    os.fsync(file.fileno())
                self._publish(temporary, target)
            finally:
                temporary.unlink(missing_ok=True)

    def upload(self, key: str, path: Path) -> None:
        """Write the file `path` at `key` if it is absent; raises ConflictError if it exists."""
        with self._explained("write", key):
            target = self._path(key)
            target.parent.mkdir(parents=True, exist_ok=True)
            with path.open("rb") as file:
                os.fsync(file.fileno())
            try:
                self._publish(path, target)
            except OSError as error:
                if error.errno not in (errno.EXDEV, errno.EPERM, errno.EMLINK):
                    raise
                self._copy(path, target)

    def exists(self, key: str) -> bool:
        """Whether `key` is there."""
        return self._path(key).is_file()

    def list(self, prefix: str) -> Iterator[ObjectInfo]:
        """The objects below the folder `prefix`, in order of key."""
        folder = self._path(prefix)
        if not folder.is_dir():
            return
        with self._explained("list", prefix):
            for path in sorted(folder.rglob("*")):
                if any(part.startswith(".") for part in path.relative_to(folder).parts):
                    continue
                with suppress(FileNotFoundError):  # another process may collect it meanwhile
                    status = path.stat()
                    if path.is_file():
                        yield ObjectInfo(path.relative_to(self.root).as_posix(), status.st_size, status.st_mtime)

    def delete(self, key: str) -> None:
        """Remove `key` and the folders that it leaves empty; absent is fine."""
        with self._explained("delete", key):
            target = self._path(key)
            target.unlink(missing_ok=True)
            for folder in target.parents:
                if folder == self.root:
                    break
                try:
                    folder.rmdir()
                except OSError:  # not empty, or gone already
                    break

    def local(self, key: str, sha256: str | None = None) -> Path:
        """The file itself; raises NotFoundError."""
        path = self._path(key)
        if not path.is_file():
            raise NotFoundError(f"{self.uri}/{key} does not exist; expected an object of the store")
        return path

    @contextmanager
    def scratch(self) -> Iterator[Path]:
        """A folder on the same file system as the store, so that an upload is a link and not a copy."""
        with self._explained("write", SCRATCH):
            folder = self.root / SCRATCH / uuid.uuid4().hex
            folder.mkdir(parents=True)
        try:
            yield folder
        finally:
            shutil.rmtree(folder, ignore_errors=True)

    def _path(self, key: str) -> Path:
        if key.startswith("/") or ".." in key.split("/"):
            raise StorageError(f"key={key!r}: expected a relative key without '..'")
        return self.root / key

    def _publish(self, source: Path, target: Path) -> None:
        try:
            os.link(source, target)
        except FileExistsError:
            raise ConflictError(
                f"{self.uri}/{target.relative_to(self.root)} exists already; another run wrote it first"
            ) from None
        _sync_folder(target.parent)

    def _copy(self, path: Path, target: Path) -> None:
        temporary = target.with_name(f".{target.name}.{uuid.uuid4().hex}")
        try:
            with path.open("rb") as source, temporary.open("xb") as file:
                shutil.copyfileobj(source, file, _BLOCK)
                file.flush()
                os.fsync(file.fileno())
            self._publish(temporary, target)
        finally:
            temporary.unlink(missing_ok=True)

    @contextmanager
    def _explained(self, verb: str, key: str) -> Iterator[None]:
        try:
            yield
        except FileNotFoundError as error:
            raise NotFoundError(f"{self.uri}/{key} does not exist; expected an object of the store") from error
        except OSError as error:
            raise StorageError(f"cannot {verb} {self.uri}/{key}: {explain_os_error(error)}") from error


class ObjectStorage:
    """A store in a bucket, with conditional PUT as the only fence."""

    def __init__(self, uri: str, cache: Path | None = None) -> None:
        import obstore.store

        self.uri = uri.rstrip("/")
        self._cache = cache or Path(os.environ.get("TANDEM_CACHE", "~/.cache/tandem")).expanduser() / "objects"
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
            if path.stat().st_size <= 64 * _BLOCK:
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
                    yield ObjectInfo(item["path"], item["size"], item["last_modified"].timestamp())

    def delete(self, key: str) -> None:
        """Remove `key`; absent is fine."""
        import obstore

        with suppress(NotFoundError), self._explained("delete", key):
            obstore.delete(self._store, key)

    def local(self, key: str, sha256: str | None = None) -> Path:
        """A cached copy under the same key (keys are never reused), complete or absent."""
        import obstore

        path = self._cache / hashlib.sha256(self.uri.encode()).hexdigest()[:16] / key
        if path.is_file():
            return path
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex}")
            try:
                with self._explained("read", key), temporary.open("xb") as file:
                    for block in obstore.get(self._store, key).stream(min_chunk_size=_BLOCK):
                        file.write(block)
                if sha256 and sha256_of(temporary) != sha256:
                    raise CorruptError(
                        f"{self.uri}/{key}: content differs from its sha256 {sha256[:12]}…; restore it from a backup"
                    )
                temporary.rename(path)
            finally:
                temporary.unlink(missing_ok=True)
        except OSError as error:
            raise StorageError(f"cannot cache {self.uri}/{key} in {self._cache}: {explain_os_error(error)}") from error
        return path

    @contextmanager
    def scratch(self) -> Iterator[Path]:
        """A folder on the local disk."""
        with tempfile.TemporaryDirectory(prefix="tandem-") as folder:
            yield Path(folder)

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


def explain_os_error(error: OSError) -> str:
    """One line for a refusal of the operating system, with what to do about it."""
    remedies = {
        errno.ENOSPC: "no space left on the device; free some or choose another --store",
        errno.EDQUOT: "disk quota exceeded; free some space or choose another --store",
        errno.EACCES: "permission denied; choose a --store that you may write",
        errno.EPERM: "operation not permitted; choose a --store that you may write",
        errno.EROFS: "the file system is read-only; choose another --store",
        errno.ENOTDIR: "a part of the path is a file; choose another --store",
        errno.EEXIST: "a part of the path is a file; choose another --store",
        errno.EMFILE: "too many open files; raise the limit (ulimit -n)",
    }
    return remedies.get(error.errno or 0, f"{error.strerror or error}; check the path and the disk")


def new_id() -> str:
    """A unique id that sorts by time: seconds since the epoch in hexadecimal, then 64 random bits."""
    return f"{int(time.time()):08x}-{uuid.uuid4().hex[:16]}"


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
