"""List files: of a path, a folder, a glob or a URI.

Guaranteed: files come sorted by path, component by component, wherever they lie, and a listing of the same tree is the
same every time.
Not guaranteed: a frozen view; what changes while it is listed may or may not be seen.
"""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote, unquote, urlsplit

from ray_jobs.corpus.listed import Listed
from ray_jobs.corpus.metadata import clean_text
from ray_jobs.corpus.remote_listing import list_uri
from ray_jobs.errors import NotFoundError, StorageError, UsageError

_WILDCARD = re.compile(r"[*?\[]")
_URI = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+://")
_QUERY = re.compile(r"\?[A-Za-z_]+=[^?*]*\Z")


def name_of(source: str) -> str:
    """Return the last component of a path or URI, of a glob that of the folder it searches."""
    base, _ = _split_glob(source)
    if is_uri(base):
        parts = urlsplit(base)
        return Path(unquote(parts.path)).name or parts.netloc
    return Path(os.path.abspath(base)).name or "root"


def is_uri(source: str) -> bool:
    """Say whether `source` names a filesystem rather than a local path."""
    return _URI.match(source) is not None


def list_files(source: str) -> Iterator[Listed]:
    """List the files of a path, folder, glob or URI.

    Raises NotFoundError if there is nothing of that name, UsageError for a URI that no filesystem understands,
    StorageError where listing is refused.
    """
    base, pattern = _split_glob(source)
    listed = list_uri(base) if is_uri(base) else _local(base)
    if pattern is None:
        yield from listed
        return
    accepts = re.compile(_regex(pattern))
    matched = False
    for file in listed:
        if accepts.fullmatch(file.relative):
            matched = True
            yield file
    if not matched:
        raise NotFoundError(f"source {source!r}: no file matches; '*' stays inside a folder, '**' crosses folders")


def _split_glob(source: str) -> tuple[str, str | None]:
    """Split a glob into the folder it searches and the pattern below it; (source, None) if it is none."""
    query = _QUERY.search(source) if is_uri(source) else None
    path = source if query is None else source[: query.start()]
    if _WILDCARD.search(path) is None or (not is_uri(source) and os.path.lexists(source)):
        return source, None
    parts = path.split("/")
    first = next(i for i, part in enumerate(parts) if _WILDCARD.search(part))
    base = "/".join(parts[:first]) or ("/" if source.startswith("/") else ".")
    return base + (query.group() if query else ""), "/".join(parts[first:])


def _regex(pattern: str) -> str:
    """Translate a glob into a regular expression over relative paths."""
    tokens = {"**/": r"(?:[^/]+/)*", "**": r".*", "*": r"[^/]*", "?": r"[^/]"}
    pieces = re.findall(r"\*\*/|\*\*|\*|\?|\[[^\]]+\]|[^*?\[]+|\[", pattern)
    return "".join(tokens.get(piece) or _literal_or_set(piece) for piece in pieces)


def _literal_or_set(piece: str) -> str:
    if len(piece) < 3 or piece[0] != "[":
        return re.escape(piece)
    inner = piece[1:-1].replace("\\", r"\\")
    return f"[^/{inner[1:]}]" if inner[0] == "!" else f"[{inner}]"


def _local(source: str) -> Iterator[Listed]:
    root = os.path.abspath(os.path.expanduser(source))
    try:
        status = os.stat(root)
    except OSError as error:
        raise NotFoundError(
            f"source {source!r}: there is no such file or folder ({error.strerror}); check the path"
        ) from error
    if stat.S_ISDIR(status.st_mode):
        yield from _walk(root, "", {(status.st_dev, status.st_ino)})
    elif stat.S_ISREG(status.st_mode):
        yield Listed(root, "", status.st_size, str(status.st_mtime_ns))
    else:
        raise UsageError(f"source {source!r}: expected a regular file or a folder, found a socket, pipe or device")


def _walk(folder: str, relative: str, entered: set[tuple[int, int]]) -> Iterator[Listed]:
    try:
        entries = sorted(os.scandir(folder), key=lambda entry: entry.name)
    except OSError as error:
        raise StorageError(f"folder {folder!r} cannot be listed ({error.strerror}): check its permissions") from error
    for entry in entries:
        if entry.name.startswith("."):
            continue
        below = f"{relative}{entry.name}"
        try:
            status = entry.stat()
        except OSError:
            # A dangling link is a file that cannot be read: the reader will say so.
            yield _found(entry.path, below, 0, "")
            continue
        if stat.S_ISREG(status.st_mode):
            yield _found(entry.path, below, status.st_size, str(status.st_mtime_ns))
        elif stat.S_ISDIR(status.st_mode) and (status.st_dev, status.st_ino) not in entered:
            entered.add((status.st_dev, status.st_ino))
            yield from _walk(entry.path, f"{below}/", entered)


def _found(path: str, relative: str, size: int, modified: str) -> Listed:
    """A local file; one whose name is no text is named by its bytes, since a plan is JSON."""
    try:
        path.encode()
    except UnicodeEncodeError:
        path, relative = f"file://{quote(os.fsencode(path))}", clean_text(relative)
    return Listed(path, relative, size, modified)
