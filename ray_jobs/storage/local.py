"""A store in a folder of this machine or of a shared file system."""

from __future__ import annotations

import errno
import os
import shutil
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from ray_jobs.errors import ConflictError, CorruptError, NotFoundError, StorageError
from ray_jobs.storage import verified
from ray_jobs.storage.objects import BLOCK, ObjectInfo, explain_os_error, sha256_of
from ray_jobs.storage.scratch import own_folder

SCRATCH = ".scratch"
_ATTEMPTS = 100  # to write into a folder that others take away again and again


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
            _in_folder(target, lambda: self._create(data, target))

    def upload(self, key: str, path: Path) -> None:
        """Write the file `path` at `key` if it is absent; raises ConflictError if it exists."""
        with self._explained("write", key):
            target = self._path(key)
            _in_folder(target, lambda: self._upload(path, target))

    def exists(self, key: str) -> bool:
        """Whether `key` is there."""
        return self._path(key).is_file()

    def list(self, prefix: str) -> Iterator[ObjectInfo]:
        """The objects below the folder `prefix`, in order of key."""
        folder = self._path(prefix)
        with self._explained("list", prefix):
            if not folder.is_dir():
                return
            for path in sorted(folder.rglob("*")):
                if any(part.startswith(".") for part in path.relative_to(folder).parts):
                    continue
                with suppress(FileNotFoundError):  # another process may collect it meanwhile
                    status = path.stat()
                    if path.is_file():
                        key, version = path.relative_to(self.root).as_posix(), str(status.st_mtime_ns)
                        yield ObjectInfo(key, status.st_size, status.st_mtime, version)

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
        """The file itself; raises NotFoundError, and CorruptError where it has another hash.

        A file is hashed once and again whenever its size, its modification time or its place on the disk changes.
        """
        path = self._path(key)
        with self._explained("read", key):
            if not path.is_file():
                raise NotFoundError(f"{self.uri}/{key} does not exist; expected an object of the store")
            if sha256 is not None and not verified.holds(path, sha256):
                raise CorruptError(
                    f"{self.uri}/{key}: content differs from its sha256 {sha256[:12]}…; restore it from a backup"
                )
        return path

    def fingerprint(self, key: str) -> tuple[int, str]:
        """Size and sha256 of the file, all of it read; raises NotFoundError."""
        path = self._path(key)
        with self._explained("read", key):
            return path.stat().st_size, sha256_of(path)

    def local_folder(self, prefix: str) -> Path:
        """The folder itself; raises NotFoundError."""
        folder = self._path(prefix)
        if not folder.is_dir():
            raise NotFoundError(f"{self.uri}/{prefix} does not exist; expected a folder of the store")
        return folder

    def forget(self, prefix: str) -> None:
        """Nothing: files are read where they lie."""

    @contextmanager
    def scratch(self) -> Iterator[Path]:
        """A folder on the same file system as the store, so that an upload is a link and not a copy.

        Raises StorageError where the disk takes no folder or no more; other errors of the body stay what they are.
        """
        with own_folder(self.root / SCRATCH, f"{self.uri}/{SCRATCH}") as folder:
            yield folder

    def _path(self, key: str) -> Path:
        if key.startswith("/") or ".." in key.split("/"):
            raise StorageError(f"key={key!r}: expected a relative key without '..'")
        return self.root / key

    def _create(self, data: bytes, target: Path) -> None:
        temporary = target.with_name(f".{target.name}.{uuid.uuid4().hex}")
        try:
            with temporary.open("xb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            self._publish(temporary, target)
        finally:
            temporary.unlink(missing_ok=True)

    def _upload(self, path: Path, target: Path) -> None:
        with path.open("rb") as file:
            os.fsync(file.fileno())
        try:
            self._publish(path, target)
        except OSError as error:
            if error.errno not in (errno.EXDEV, errno.EPERM, errno.EMLINK):
                raise
            self._copy(path, target)

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
                shutil.copyfileobj(source, file, BLOCK)
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


def _in_folder(target: Path, write: Callable[[], None]) -> None:
    """Write `target` into its folder, which whoever deletes the last file of it takes away."""
    for attempt in range(_ATTEMPTS):
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
            return write()
        except (FileNotFoundError, FileExistsError):  # the latter from a folder that was there for a moment
            if attempt == _ATTEMPTS - 1:
                raise
    return None


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
