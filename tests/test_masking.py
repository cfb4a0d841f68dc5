"""Masking: what is found is gone, everything else is left as it was."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ray_jobs.corpus.document import Document, RawDocument, make_document
from ray_jobs.corpus.masking import KINDS, Kind, Masker

PERSONAL: dict[Kind, list[str]] = {
    "email": ["ada.lovelace@example.com", "x+y@mail.example.org"],
    "phone": ["+1 212-555-0187", "+44 20 7946 0958"],
    "credit-card": ["4111 1111 1111 1111", "5555555555554444"],
    "iban": ["DE89370400440532013000", "GB82 WEST 1234 5698 7654 32"],
    "ip": ["192.168.17.4", "2001:db8::8a2e:370:7334"],
    "us-ssn": ["536-90-4399"],
    "crypto": ["1A1zP1eP5QGefi2DMPTfTL5SLmv7DivfNa"],
}
SENTENCES = [
    "The tide turns at noon.",
    "Version 3.11 has 42 changes.",
    "Call the harbour master.",
    "Ünder Wäter 東京。",
]
everyone = Masker(KINDS)


def document(text: str, pages: tuple[int, ...] = ()) -> Document:
    return make_document(RawDocument(text, title="A page", metadata={"year": 7}, pages=pages), "a", "a", "txt")


@pytest.mark.parametrize(("kind", "value"), [(kind, value) for kind in KINDS for value in PERSONAL[kind]])
def test_each_kind_is_found_and_named(kind: Kind, value: str) -> None:
    masker = Masker([kind])
    masked = masker.masked(document(f"Write to {value} about the boats."))
    assert masked.text == f"Write to [{kind.upper()}] about the boats."
    assert masker.found == {kind: 1}


@given(
    st.lists(st.sampled_from([*SENTENCES, *(value for values in PERSONAL.values() for value in values)]), max_size=8)
)
def test_nothing_personal_is_left_and_masking_again_changes_nothing(parts: list[str]) -> None:
    masked = everyone.masked(document(" ; ".join(parts)))
    assert not any(value in masked.text for values in PERSONAL.values() for value in values)
    assert all(sentence in masked.text for sentence in SENTENCES if sentence in parts)
    assert everyone.masked(masked) == masked


def test_plain_text_and_metadata_are_left_and_nothing_is_asked_for_without_kinds() -> None:
    plain = document(" ".join(SENTENCES))
    assert everyone.masked(plain) == plain
    personal = document(PERSONAL["email"][0])
    assert Masker(()).masked(personal) == personal
    assert everyone.masked(personal).metadata == {"year": 7}
    assert everyone.masked(personal).version != personal.version


def test_pages_keep_their_borders() -> None:
    pages = ["Write to ada.lovelace@example.com.\n", "Nothing here.\n", "Or to x+y@mail.example.org now.\n"]
    starts = (0, len(pages[0]), len(pages[0]) + len(pages[1]))
    masked = everyone.masked(document("".join(pages), starts))
    ends = (*masked.pages[1:], len(masked.text))
    found = [masked.text[start:end] for start, end in zip(masked.pages, ends, strict=True)]
    assert found == ["Write to [EMAIL].\n", "Nothing here.\n", "Or to [EMAIL] now.\n"]
