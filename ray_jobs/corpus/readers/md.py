"""Read Markdown: one document a file; YAML front matter becomes metadata, `title` or the first top heading the title.

Guaranteed: front matter is parsed as plain data (no tags, no aliases). Not guaranteed: that front matter which is not
a YAML object is understood; it then stays in the text.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import BinaryIO

from ray_jobs.corpus.document import RawDocument, Reject
from ray_jobs.corpus.limits import Limits
from ray_jobs.corpus.planning import SourcePart
from ray_jobs.corpus.readers.decoding import UndecodableError, decode
from ray_jobs.corpus.structure import headings

_FRONT_MATTER = re.compile(r"\A---[ \t]*\r?\n(?P<yaml>.{0,65536}?)^---[ \t]*(?:\r?\n|\Z)", re.DOTALL | re.MULTILINE)


def read(stream: BinaryIO, part: SourcePart, limits: Limits) -> Iterator[RawDocument | Reject]:
    """Yield the Markdown of the file, or one Reject if it is no text."""
    try:
        text = decode(stream.read())
    except UndecodableError as error:
        yield Reject("file", error.reason, str(error))
        return
    metadata, text = split_front_matter(text)
    title = metadata.pop("title", None)
    yield RawDocument(text=text, title=str(title) if title else first_heading(text), metadata=metadata)


def first_heading(text: str) -> str:
    """Return the first level-1 heading, "" if there is none."""
    return next((heading.text for heading in headings(text) if heading.level == 1), "")


def split_front_matter(text: str) -> tuple[dict[str, object], str]:
    """Return the front matter and the text after it; ({}, text) if there is no front matter."""
    match = _FRONT_MATTER.match(text)
    if match is None:
        return {}, text
    values = _parse(match["yaml"])
    return (values, text[match.end() :]) if values is not None else ({}, text)


def _parse(front_matter: str) -> dict[str, object] | None:
    import yaml

    class Loader(yaml.SafeLoader):
        def compose_node(self, parent: yaml.Node | None, index: int) -> yaml.Node | None:
            if self.check_event(yaml.AliasEvent):
                # A few aliases can stand for gigabytes.
                raise yaml.YAMLError("aliases are not read")
            return super().compose_node(parent, index)

    try:
        values = yaml.load(front_matter, Loader)
    except (yaml.YAMLError, ValueError):
        return None
    if values is None:
        return {}
    return {str(key): value for key, value in values.items()} if isinstance(values, dict) else None
