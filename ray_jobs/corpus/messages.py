"""What a helper process and the one that it helps say to each other: parts one way, what they hold the other way.

Guaranteed: JSON, so that a parser which a document has taken over can say nothing that runs; a document and a reject
come back as they went. One message an item, so that what was read before the damage is not lost with it.
"""

from __future__ import annotations

import json
from dataclasses import dataclass

from pydantic import TypeAdapter

from ray_jobs.corpus import metadata
from ray_jobs.corpus.document import Document, Reject
from ray_jobs.corpus.planning import SourcePart

PART: TypeAdapter[SourcePart] = TypeAdapter(SourcePart)
_REJECT: TypeAdapter[Reject] = TypeAdapter(Reject)


@dataclass(frozen=True, slots=True)
class Begun:
    """The parser is loaded and begins with the part; `resident` bytes are what the helper holds before it."""

    resident: int


@dataclass(frozen=True, slots=True)
class Ended:
    """All of the part was read; `spent` if the helper has kept so much memory that another one should follow."""

    spent: bool


Message = Document | Reject | Begun | Ended


def encode(message: Message) -> bytes:
    """Return the bytes of a message."""
    match message:
        case Document():
            fields = {name: getattr(message, name) for name in ("doc_id", "title", "text", "source", "format", "pages")}
            packed = {"version": message.version.hex(), "metadata": metadata.encode(message.metadata)}
            return json.dumps(["document", {**fields, **packed}], ensure_ascii=False).encode()
        case Reject():
            # What a message quotes may hold halves of surrogate pairs; escaped they survive.
            return json.dumps(["reject", [message.locator, message.reason, message.message]]).encode()
        case Begun():
            return json.dumps(["begun", message.resident]).encode()
        case Ended():
            return json.dumps(["ended", message.spent]).encode()


def decode(data: bytes) -> Message:
    """Return what `encode` was given. Raises ValueError for anything else."""
    try:
        match json.loads(data):
            case ["document", dict(fields)]:
                version, pages = bytes.fromhex(fields.pop("version")), tuple(fields.pop("pages"))
                values = metadata.decode(fields.pop("metadata"))
                return Document(version=version, pages=pages, metadata=values, **fields)
            case ["reject", [locator, reason, message]]:
                return _REJECT.validate_python({"locator": locator, "reason": reason, "message": message})
            case ["begun", int(resident)]:
                return Begun(resident)
            case ["ended", bool(spent)]:
                return Ended(spent)
    except (TypeError, KeyError, AttributeError, RecursionError) as error:
        raise ValueError(f"no message: {error}") from error
    raise ValueError("no message")
