"""What the columns of a table mean, for every format that has rows: `id`, `text`, `title`; the rest is metadata."""

from __future__ import annotations

from collections.abc import Collection, Mapping

from ray_jobs.corpus.document import RawDocument, Reject

_OWN = frozenset({"id", "text", "title"})
LONGEST_ID = 2048
"""Characters: an id is in every row of the index."""


def raw_document(row: Mapping[str, object], locator: str) -> RawDocument | Reject:
    """Return the document of a row, or a Reject if it has no text or an id that cannot be one.

    A number as id is written in decimal; a null, absent or empty id is left for the caller to make up.
    """
    text = row.get("text")
    if text is None:
        return Reject(locator, "no-text", missing_text(row))
    if not isinstance(text, str):
        return Reject(locator, "bad-text", f"'text' is of type {type(text).__name__}: expected a string")
    identity = row.get("id")
    if isinstance(identity, float) and identity.is_integer():
        # A column of whole numbers with gaps is stored as floats by pandas.
        identity = int(identity)
    if identity is not None and (isinstance(identity, bool | float) or not isinstance(identity, str | int)):
        return Reject(locator, "bad-id", f"'id' is {str(identity)[:80]!r}: expected a string or a whole number")
    if isinstance(identity, str) and len(identity) > LONGEST_ID:
        return Reject(locator, "bad-id", f"'id' has {len(identity)} characters: expected {LONGEST_ID} at most")
    title = row.get("title")
    return RawDocument(
        text=text,
        id=str(identity) if identity not in (None, "") else None,
        title="" if title is None else str(title),
        metadata={key: value for key, value in row.items() if key not in _OWN},
    )


def missing_text(columns: Collection[str]) -> str:
    """Say that there is no text, and what there is instead."""
    found = ", ".join(sorted(map(str, columns))[:20]) or "nothing"
    return f"there is no 'text'; found {found}: name the one that holds the text 'text'"
