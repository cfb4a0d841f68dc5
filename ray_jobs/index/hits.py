"""What a search returns: hits with text, source and span, as one dataclass and as the rows of an output file."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass


@dataclass(frozen=True)
class Hit:
    """One result of a search."""

    doc_id: str
    chunk_id: str
    score: float
    rank: int  # from 1
    text: str
    source: str
    start: int  # code points into the stored text of the document
    end: int
    title: str
    heading: str
    page: int | None  # on which the chunk starts
    page_breaks: Sequence[int]  # where further pages start inside it, code points into the stored text
    metadata: Mapping[str, object]
    scores: Mapping[str, float]  # a score a stage that found it: "dense", "lexical"

    def to_dict(self) -> dict[str, object]:
        """The hit as JSON shows it."""
        return asdict(self)
