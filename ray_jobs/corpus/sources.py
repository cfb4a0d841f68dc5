"""What a corpus is made of: from the SOURCE arguments of a command to files, and from files to groups of work.

A SOURCE is a file, a folder, a glob (`*`, `?`, `[..]`, `**`), a URI of a filesystem that pyarrow knows (`s3://`,
`gs://`, `file://`, ...), or `pydoc:PACKAGE`. Its name is its last path component (of a glob: of the folder before the
first wildcard); `NAME=SOURCE` gives it another. The identity of a file is `<name of SOURCE>/<path relative to it>`, or
just the name where SOURCE is a single file; an `id_prefix` is put before it.

Guaranteed: files come in the order of the sources, each source sorted by path; every regular file that is not hidden
is listed, one of an unknown kind with format "", so that the ingest job can count it as failed. Not guaranteed: that
a listed file can be read, or still exists when it is. Hidden files and folders (a leading dot), sockets, pipes and
devices are left out. Folders behind symbolic links are entered once.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from ray_jobs.corpus import listing, pydoc_listing
from ray_jobs.corpus.formats import FORMATS, format_of
from ray_jobs.corpus.listed import Listed
from ray_jobs.corpus.metadata import clean_text
from ray_jobs.errors import UsageError

_PYDOC = "pydoc:"
_NAMED = re.compile(r"(?P<name>[\w.-]+)=(?P<source>.+)", re.DOTALL)


@dataclass(frozen=True, slots=True)
class SourceFile:
    """One file of a source.

    `source` is the source's name, prefix included; `relative` the path below it, "" where the source is this file;
    `uri` an absolute path or a URI; `size` in bytes; `modified` changes when the file does (mtime in nanoseconds);
    `format` a key of READERS, or "" where no reader knows the suffix.
    """

    source: str
    uri: str
    relative: str
    size: int
    modified: str
    format: str

    @property
    def doc_id(self) -> str:
        """The identity of the file in the corpus: names differ in normalisation from one system to the next."""
        name = f"{self.source}/{self.relative}" if self.relative else self.source
        return unicodedata.normalize("NFC", clean_text(name))


@dataclass(frozen=True, slots=True)
class Source:
    """One SOURCE argument, resolved: its name and what it expands to."""

    name: str
    argument: str

    def files(self) -> Iterator[SourceFile]:
        """List the files, sorted by path. Raises NotFoundError, StorageError, UsageError."""
        if _is_pydoc(self.argument):
            for file in pydoc_listing.list_modules(self.argument.removeprefix(_PYDOC)):
                yield self._source_file(file, "pydoc")
        else:
            for file in listing.list_files(self.argument):
                yield self._source_file(file, format_of(file.uri))

    def _source_file(self, file: Listed, format: str) -> SourceFile:
        if not format and not file.relative:
            raise UsageError(
                f"source {self.argument!r}: no reader knows this kind of file; "
                f"expected one of {', '.join(sorted(FORMATS))}"
            )
        return SourceFile(self.name, file.uri, file.relative, file.size, file.modified, format)


def list_sources(arguments: Sequence[str], id_prefix: str | None = None) -> Iterator[SourceFile]:
    """List the files of the SOURCE arguments, streaming; the arguments themselves are checked before the first file.

    Raises UsageError for two sources of one name, a named file of an unknown kind, a malformed argument, or when there
    is no file at all; NotFoundError for a missing path or package and for a glob that matches nothing; StorageError
    for a folder that cannot be listed.
    """
    sources = resolve(arguments, id_prefix)
    return _files(sources)


def resolve(arguments: Sequence[str], id_prefix: str | None = None) -> list[Source]:
    """Name the sources, and check that no two share a name. Raises UsageError."""
    if not arguments:
        raise UsageError("no source given: name a file, a folder, a glob, a URI or pydoc:PACKAGE")
    if id_prefix is not None and not id_prefix.strip("/"):
        raise UsageError(f"id prefix {id_prefix!r}: expected at least one character other than a slash")
    sources: dict[str, Source] = {}
    for argument in arguments:
        name, source = _name(argument)
        if id_prefix is not None:
            name = f"{id_prefix.rstrip('/')}/{name}"
        if name in sources:
            raise UsageError(
                f"sources {sources[name].argument!r} and {source!r} are both named {name!r}, so their documents would "
                f"share ids: name one apart, as in other={source}, or ingest it in a run of its own with --id-prefix"
            )
        sources[name] = Source(name, source)
    return list(sources.values())


def _files(sources: Sequence[Source]) -> Iterator[SourceFile]:
    empty = True
    for source in sources:
        for file in source.files():
            empty = False
            yield file
    if empty:
        raise UsageError(
            f"sources {', '.join(repr(s.argument) for s in sources)}: there is no file in them; "
            "hidden files and folders are not read"
        )


def _name(argument: str) -> tuple[str, str]:
    """Split NAME=SOURCE; a path that exists as it stands is never taken for one."""
    if _is_pydoc(argument):
        return argument.removeprefix(_PYDOC).replace(".", "/"), argument
    match = _NAMED.fullmatch(argument)
    if match is None or Path(argument).exists():
        return listing.name_of(argument), argument
    if _is_pydoc(match["source"]):
        raise UsageError(
            f"source {argument!r}: a package keeps its own name; write {match['source']!r}, "
            "and --id-prefix to set it apart"
        )
    return match["name"], match["source"]


def _is_pydoc(source: str) -> bool:
    return source.startswith(_PYDOC)
