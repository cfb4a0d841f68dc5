"""Why something could not be indexed: a closed set of words, each with what it means and what mends it.

A word of a whole file, of a row or line of one, or of a document that was read and found no place. Guaranteed: every
dead letter has one of them.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal, TypeAlias

Reason: TypeAlias = Literal[
    "unknown-format",
    "wrong-format",
    "vanished",
    "unreadable",
    "encrypted",
    "binary",
    "bad-encoding",
    "bad-python",
    "too-large",
    "too-long",
    "too-deep",
    "expands",
    "timed-out",
    "out-of-memory",
    "crashed",
    "bad-row",
    "bad-json",
    "not-an-object",
    "no-text",
    "bad-text",
    "bad-id",
    "bad-metadata",
    "misfit",
    "duplicate-id",
]

REASONS: Mapping[Reason, str] = {
    "unknown-format": "no reader knows the suffix: rename the file, or leave it out",
    "wrong-format": "the content is of another format than the suffix says: rename the file",
    "vanished": "the file was listed and then gone: run again",
    "unreadable": "the file is damaged, cut short, or may not be read: restore it",
    "encrypted": "the file asks for a password: save it without one",
    "binary": "the file has the name of a text and is none: rename it, or leave it out",
    "bad-encoding": "no known encoding reads the bytes: save the file as UTF-8",
    "bad-python": "the module is not Python that this interpreter can parse",
    "too-large": "the file or its text is over limits.file_bytes or limits.text_bytes: divide it, or raise them",
    "too-long": "the line or row is over limits.line_bytes: divide it, or raise it",
    "too-deep": "the content is nested deeper than its parser goes",
    "expands": "it unpacks to more than limits.expansion allows, as a decompression bomb does: unpack it, or raise it",
    "timed-out": "its parser took longer than limits.seconds: raise it, and use --retry-dead-letters",
    "out-of-memory": "its parser asked for more than limits.memory_bytes: raise it, and use --retry-dead-letters",
    "crashed": "its parser crashed, for want of memory perhaps: convert the file, or raise limits.memory_bytes",
    "bad-row": "the row does not fit the columns of its file",
    "bad-json": "the line is not JSON",
    "not-an-object": "the line is JSON, and no object",
    "no-text": "there is no 'text': name the column that holds it 'text'",
    "bad-text": "the 'text' is no string",
    "bad-id": "the 'id' is neither a string nor a whole number, or too long",
    "bad-metadata": "a value of its metadata has no column type",
    "misfit": "a value does not fit the type of its metadata column: mend it, or set the type with --metadata",
    "duplicate-id": "another document has the id: make ids unique, or use --id-prefix",
}
