"""Masking of personal data: what Presidio's recognisers find in title and text gives way to its kind, as in `[EMAIL]`.

Only kinds that patterns and checksums tell (no names: they need a language model, and a missed one would be taken for
masked). Guaranteed: what is found is in no stored text, chunk or vector; pages keep their borders; masking a masked
text changes nothing. Not guaranteed: that everything personal is found, above all across a page break; metadata and ids
are left alone: do not map personal columns there.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from functools import cached_property
from itertools import accumulate, pairwise
from typing import Any, Literal, get_args

from ray_jobs.corpus.document import Document, RawDocument, make_document
from ray_jobs.errors import UsageError

Kind = Literal["email", "phone", "credit-card", "iban", "ip", "us-ssn", "crypto"]
KINDS: tuple[Kind, ...] = get_args(Kind)
LEAST_SCORE = 0.4  # what only a weak pattern has found, such as any nine digits, is below it
_RECOGNISERS: dict[Kind, str] = {
    "email": "EmailRecognizer",
    "phone": "PhoneRecognizer",
    "credit-card": "CreditCardRecognizer",
    "iban": "IbanRecognizer",
    "ip": "IpRecognizer",
    "us-ssn": "UsSsnRecognizer",
    "crypto": "CryptoRecognizer",
}


class Masker:
    """Masks some kinds; loads nothing before the first document."""

    def __init__(self, kinds: Sequence[Kind]) -> None:
        self._kinds = tuple(kinds)
        self.found: Counter[str] = Counter()
        """How many of each kind were masked so far."""

    def masked(self, document: Document) -> Document:
        """The document without them; raises UsageError where Presidio is not installed."""
        if not self._kinds:
            return document
        starts = [*document.pages, len(document.text)] if document.pages else [0, len(document.text)]
        parts = [self._mask(document.text[start:end]) for start, end in pairwise(starts)]
        pages = tuple(accumulate(map(len, parts[:-1]), initial=0)) if document.pages else ()
        raw = RawDocument(
            text="".join(parts), title=self._mask(document.title), metadata=document.metadata, pages=pages
        )
        return make_document(raw, document.doc_id, document.source, document.format)

    def _mask(self, text: str) -> str:
        """The text with the earliest and longest finds replaced; what overlaps one goes with it."""
        pieces, end = [], 0
        for start, stop, kind in sorted(self._spans(text), key=lambda span: (span[0], -span[1])):
            if start < end:
                continue
            pieces += [text[end:start], f"[{kind.upper()}]"]
            end = stop
            self.found[kind] += 1
        return "".join([*pieces, text[end:]])

    def _spans(self, text: str) -> list[tuple[int, int, Kind]]:
        return [
            (result.start, result.end, kind)
            for kind, recogniser in self._recognisers.items()
            for result in recogniser.analyze(text, recogniser.supported_entities, None)
            if result.score >= LEAST_SCORE
        ]

    @cached_property
    def _recognisers(self) -> dict[Kind, Any]:
        try:
            from presidio_analyzer import predefined_recognizers
            from tldextract import TLDExtract
        except ImportError:
            raise UsageError(
                f"mask={','.join(self._kinds)}: masking needs Presidio, which is not installed; run "
                "pip install 'tandem[pii]'"
            ) from None
        domain = TLDExtract(suffix_list_urls=(), cache_dir=None)

        class EmailRecogniser(predefined_recognizers.EmailRecognizer):  # type: ignore[misc]
            def validate_result(self, pattern_text: str) -> bool:
                # Presidio's own looks for a newer list of domains on the internet.
                return domain(pattern_text).fqdn != ""

        known = {kind: getattr(predefined_recognizers, name) for kind, name in _RECOGNISERS.items()}
        return {kind: (EmailRecogniser if kind == "email" else known[kind])() for kind in self._kinds}
