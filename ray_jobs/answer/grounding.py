"""Does an answer say only what its citations show? Checks that need no model.

Guaranteed: ``problems`` is empty only if every ``[n]`` in the text has a citation, every citation has its ``[n]`` and
cuts its quote exactly from the passage of that number. Not guaranteed: that the quote supports the sentence before its
marker; ``unquoted`` tells which sentences are not quotes at all, which is no fault in a generator that paraphrases.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from ray_jobs.answer.quotable import sentence_spans

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ray_jobs.answer.protocol import Citation, Passage

_MARKER = re.compile(r"\[(\d{1,4})\]")
_MARKED = re.compile(r"\[\d{1,4}\]")
_NUMBER = re.compile(r"\d{1,4}")
_PART_OF_A_MARKER = re.compile(r"\[\d{0,4}\]?|\d{0,4}\]")


def cited_numbers(text: str) -> list[int]:
    """The passage numbers in the ``[n]`` markers of ``text``, in reading order, each once."""
    return list(dict.fromkeys(int(number) for number in _MARKER.findall(text)))


def hides_markers(quote: str) -> bool:
    """Whether a quote reads as a marker or as a part of one, so that markers beside it could not be told from it.

    A number alone does not: it stands outside brackets.
    """
    return bool(_PART_OF_A_MARKER.fullmatch(" ".join(quote.split())))


def problems(text: str, citations: Sequence[Citation], passages: Sequence[Passage]) -> list[str]:
    """What is wrong with the markers and citations of an answer, one line each; [] when nothing is."""
    by_number = {passage.number: passage for passage in passages}
    cited = {citation.number for citation in citations}
    marked = cited_numbers(_without_quotes(text, citations))
    found = [f"[{number}] has no citation" for number in marked if number not in cited]
    found += [f"citation {number} is not marked in the text" for number in sorted(cited.difference(marked))]
    for citation in citations:
        passage = by_number.get(citation.number)
        if passage is None or passage.chunk_id != citation.chunk_id:
            found.append(
                f"citation {citation.number} names {citation.chunk_id}, which is not the passage of that number"
            )
        elif not _cuts_its_quote(citation, passage):
            found.append(
                f"citation {citation.number} does not quote {citation.start}:{citation.end} of {citation.doc_id}"
            )
    return found


def unquoted(text: str, citations: Sequence[Citation]) -> list[str]:
    """Sentences of ``text``, without their markers, that stand in no quote, white space and case aside."""
    quotes = [_plain(citation.quote) for citation in citations]
    # A marker ends a statement even where no full stop does.
    statements = _MARKED.split(text)
    spoken = [_plain(part[start:end]) for part in statements for start, end in sentence_spans(part, 0, len(part))]
    return [sentence for sentence in spoken if sentence and not any(sentence in quote for quote in quotes)]


def _without_quotes(text: str, citations: Sequence[Citation]) -> str:
    """Quoted text may hold numbers in brackets of its own."""
    remaining = " ".join(text.split())
    for quote in sorted((" ".join(citation.quote.split()) for citation in citations), key=len, reverse=True):
        # A number that is quoted is none of those in markers.
        found = rf"(?<![\[\d]){quote}(?![\]\d])" if _NUMBER.fullmatch(quote) else re.escape(quote)
        remaining = re.sub(found, " ", remaining)
    return remaining


def _cuts_its_quote(citation: Citation, passage: Passage) -> bool:
    start, end = citation.start - passage.start, citation.end - passage.start
    return 0 <= start < end <= len(passage.text) and passage.text[start:end] == citation.quote


def _plain(text: str) -> str:
    return " ".join(_MARKER.sub(" ", text).casefold().split())
