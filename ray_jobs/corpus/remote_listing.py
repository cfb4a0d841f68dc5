"""List the files of a URI: of a bucket of S3 in pages, of any other filesystem that pyarrow knows folder by folder.

Guaranteed: files come sorted by path, component by component, as those of a local folder; the mark of an object of S3
is its entity tag, which changes with its content. Memory is bounded by some thousand objects of a bucket of S3,
elsewhere by the files of one folder. Not guaranteed: that a change is seen elsewhere which leaves size and modification
time, often one of whole seconds, as they were.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from urllib.parse import SplitResult, parse_qs, quote, unquote, urlsplit

from ray_jobs.corpus.key_order import by_component
from ray_jobs.corpus.listed import Listed
from ray_jobs.errors import NotFoundError, StorageError, UsageError
from ray_jobs.storage import s3
from ray_jobs.storage.settings import StorageSettings


def list_uri(source: str) -> Iterator[Listed]:
    """List a file or a folder. Raises NotFoundError, UsageError for a URI that cannot be, StorageError."""
    parts = urlsplit(source)
    if parts.password is not None:
        raise UsageError(
            f"source {parts.scheme}://...: a password in a URI would be recorded in the index; "
            "give credentials through the environment"
        )
    return _s3(source, parts) if parts.scheme == "s3" else _pyarrow(source, parts)


def _s3(source: str, parts: SplitResult) -> Iterator[Listed]:
    service = s3_client(parts)
    bucket, key = parts.netloc.rpartition("@")[2], unquote(parts.path).strip("/")
    with _explained_s3(source):
        if key and (found := _head(service, bucket, key)) is not None:
            yield Listed(source, "", found["ContentLength"], _mark(found))
            return
        folder = f"{key}/" if key else ""
        exists = not key

        def listing(below: str) -> Iterator[dict[str, Any]]:
            nonlocal exists
            pages = service.get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix=folder + below)
            for item in (item for page in pages for item in page.get("Contents", ())):
                exists = True
                if not item["Key"].endswith("/"):  # some tools write an empty object for a folder
                    yield item

        for item in by_component(listing, lambda item: str(item["Key"][len(folder) :])):
            relative = item["Key"][len(folder) :]
            if not _is_hidden(relative):
                yield Listed(_below(parts, relative), relative, item["Size"], _mark(item))
        if not exists:
            raise _missing(source)


def s3_client(parts: SplitResult) -> Any:
    """A client for a URI, which may name region, scheme and endpoint_override as pyarrow's do."""
    options = {name: values[-1] for name, values in parse_qs(parts.query).items()}
    endpoint = options.get("endpoint_override")
    if endpoint is not None and "://" not in endpoint:
        endpoint = f"{options.get('scheme', 'https')}://{endpoint}"
    return s3.client(StorageSettings.from_environment(), endpoint, options.get("region"))


def _head(service: Any, bucket: str, key: str) -> dict[str, Any] | None:
    from botocore.exceptions import ClientError

    try:
        return dict(service.head_object(Bucket=bucket, Key=key))
    except ClientError as error:
        if error.response["ResponseMetadata"]["HTTPStatusCode"] == 404:
            return None
        raise


def _mark(item: dict[str, Any]) -> str:
    return str(item["ETag"]).strip('"')


@contextmanager
def _explained_s3(source: str) -> Iterator[None]:
    from botocore.exceptions import BotoCoreError, ClientError

    try:
        yield
    except ClientError as error:
        if error.response["Error"]["Code"] == "NoSuchBucket":
            raise _missing(source) from error
        raise _unlistable(source, error) from error
    except BotoCoreError as error:
        raise _unlistable(source, error) from error


def _pyarrow(source: str, parts: SplitResult) -> Iterator[Listed]:
    from pyarrow import ArrowException, fs

    try:
        filesystem, path = fs.FileSystem.from_uri(source)
        root = filesystem.get_file_info(path)
        if root.type == fs.FileType.NotFound:
            raise _missing(source)
        if root.type == fs.FileType.File:
            yield Listed(source, "", root.size, str(root.mtime_ns))
            return
        for relative, info in _walk(filesystem, path, ""):
            yield Listed(_below(parts, relative), relative, info.size, str(info.mtime_ns))
    except ArrowException as error:
        raise UsageError(f"source {source!r}: no filesystem understands this URI ({_line(error)})") from error
    except OSError as error:
        raise _unlistable(source, error) from error


def _walk(filesystem: Any, folder: str, relative: str) -> Iterator[tuple[str, Any]]:
    from pyarrow import fs

    found = filesystem.get_file_info(fs.FileSelector(folder))
    # A bucket may hold a file and a folder of one name.
    for info in sorted(found, key=lambda info: (info.base_name, info.type == fs.FileType.Directory)):
        if info.base_name.startswith("."):
            continue
        if info.type == fs.FileType.Directory:
            yield from _walk(filesystem, info.path, f"{relative}{info.base_name}/")
        elif info.type == fs.FileType.File:
            yield f"{relative}{info.base_name}", info


def _below(parts: SplitResult, relative: str) -> str:
    query = f"?{parts.query}" if parts.query else ""
    return f"{parts.scheme}://{parts.netloc}{parts.path.rstrip('/')}/{quote(relative)}{query}"


def _is_hidden(relative: str) -> bool:
    return any(part.startswith(".") for part in relative.split("/"))


def _missing(source: str) -> NotFoundError:
    return NotFoundError(f"source {source!r}: there is no such object or folder")


def _unlistable(source: str, error: Exception) -> StorageError:
    return StorageError(f"source {source!r} cannot be listed ({_line(error)}); check address, credentials and network")


def _line(error: BaseException) -> str:
    return " ".join(str(error).split())[:200]
