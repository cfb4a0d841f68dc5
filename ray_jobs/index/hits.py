"""What a search returns: hits with text, source and span, as one dataclass and as the rows of an output file."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from ray_jobs.corpus.document import chunk_id


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

    @classmethod
    def of(
        cls, row: Mapping[str, Any], score: float = 0.0, rank: int = 0, scores: Mapping[str, float] | None = None
    ) -> Hit:
        """The chunk of a stored row; without a score and a rank where no search found it."""
        return cls(
            doc_id=row["doc_id"],
            chunk_id=chunk_id(row["doc_id"], row["version"], row["ordinal"]),
            score=score,
            rank=rank,
            text=row["text"],
            source=row["source"],
            start=row["start"],
            end=row["end"],
            title=row["title"],
            heading=row["heading"],
            page=row["page"],
            page_breaks=row["page_breaks"],
            metadata={name: value for name, value in row["metadata"].items() if value is not None},
            scores=scores or {},
        )

    def to_dict(self) -> dict[str, object]:
        """The hit as JSON shows it."""
        return asdict(self)
