"""Quality filters: named rules over the text of a document, each with a threshold.

The preset "web" has the thresholds that were published for pages of the web: Gopher's (Rae et al. 2021, "Scaling
language models", tables A1 and A2) and C4's (Raffel et al. 2020, "Exploring the limits of transfer learning"); C4's ban
on curly brackets is left out, since technical documentation has them. Guaranteed: whether a document passes depends on
its text and the thresholds alone; the rule that is named is the first one that it breaks, in the order of RULES; code
passes. Not guaranteed: that a rule which was made for prose fits tables, lists or verse: look at the examples in the
report before you trust a threshold.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from ray_jobs.corpus.document import Document
from ray_jobs.corpus.language import LANGUAGES, language_of
from ray_jobs.corpus.measures import Measured

CODE_FORMATS = frozenset({"pydoc"})
"""Formats whose text is no prose: no rule applies."""

Share = Annotated[float, Field(ge=0, le=1)]
Words = Annotated[int, Field(ge=1)]
NGRAMS = range(2, 11)  # words of the runs whose repetition is measured

PRESETS: Mapping[str, Mapping[str, Any]] = {
    "off": {},
    "web": {
        "min_words": 50,
        "max_words": 100_000,
        "min_word_length": 3.0,
        "max_word_length": 10.0,
        "max_symbols": 0.1,
        "min_alphabetic": 0.8,
        "max_bullets": 0.9,
        "max_ellipses": 0.3,
        "min_stop_words": 2,
        "min_sentences": 3,
        "max_repeated_lines": 0.3,
        "max_repeated_paragraphs": 0.3,
        "max_repeated_ngrams": {2: 0.2, 3: 0.18, 4: 0.16, 5: 0.15, 6: 0.14, 7: 0.13, 8: 0.12, 9: 0.11, 10: 0.1},
        "max_boilerplate": 0.3,
    },
}


class Filters(BaseModel):
    """Thresholds that a document must keep to be indexed; a key that is set, to null too, overrides the preset."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    preset: Literal["off", "web"] = Field("off", description="'web': the published thresholds of Gopher and C4")
    languages: tuple[str, ...] = Field((), description="languages to keep, as codes of ISO 639 such as en; none: all")
    min_words: Words | None = Field(None, description="words at least")
    max_words: Words | None = Field(None, description="words at most")
    min_word_length: float | None = Field(None, ge=0, description="mean characters a word at least")
    max_word_length: float | None = Field(None, ge=0, description="mean characters a word at most")
    max_symbols: float | None = Field(None, ge=0, description="hash signs and ellipses a word at most")
    min_alphabetic: Share | None = Field(None, description="share of words with a letter at least")
    max_bullets: Share | None = Field(None, description="share of lines that begin with a bullet at most")
    max_ellipses: Share | None = Field(None, description="share of lines that end in an ellipsis at most")
    min_stop_words: int | None = Field(None, ge=0, description="distinct English stop words at least, of English text")
    min_sentences: int | None = Field(None, ge=0, description="sentences at least")
    max_repeated_lines: Share | None = Field(None, description="share of lines that came before at most")
    max_repeated_paragraphs: Share | None = Field(None, description="share of paragraphs that came before at most")
    max_repeated_ngrams: dict[int, Share] | None = Field(
        None, description="by words: share of characters in the commonest run of 2 to 4, in repeated ones of 5 to 10"
    )
    max_boilerplate: Share | None = Field(None, description="share of lines about cookies, scripts, terms at most")

    @field_validator("languages")
    @classmethod
    def _known(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        unknown = sorted(set(value) - set(LANGUAGES))
        if unknown:
            raise ValueError(
                f"{unknown[0]!r} is no language that is told apart: expected some of {' '.join(LANGUAGES)}"
            )
        return value

    @model_validator(mode="after")
    def _possible(self) -> Self:
        unknown = sorted(set(self.max_repeated_ngrams or ()) - set(NGRAMS))
        if unknown:
            raise ValueError(f"max_repeated_ngrams has runs of {unknown[0]} words: expected 2 to 10")
        for low, high in (("min_words", "max_words"), ("min_word_length", "max_word_length")):
            if (least := self.value(low)) is not None and (most := self.value(high)) is not None and least > most:
                raise ValueError(f"{low}={least} is above {high}={most}: no document passes")
        return self

    def value(self, key: str) -> Any:
        """The threshold that counts: as it was set, else that of the preset; None where there is none."""
        return getattr(self, key) if key in self.model_fields_set else PRESETS[self.preset].get(key)

    @property
    def on(self) -> bool:
        """Whether any rule applies."""
        return bool(self.languages) or any(self.value(key) is not None for key in PRESETS["web"])

    def broken_by(self, document: Document) -> str | None:
        """The first rule that a document breaks; None where it passes."""
        if not self.on or document.format in CODE_FORMATS or not document.text.strip():
            return None
        measured = Measured(document.text)
        return next((name for name, breaks in RULES.items() if breaks(measured, self)), None)


def _below(key: str, measure: Callable[[Measured], float]) -> Callable[[Measured, Filters], bool]:
    def breaks(measured: Measured, filters: Filters) -> bool:
        least = filters.value(key)
        return least is not None and measure(measured) < least

    return breaks


def _above(key: str, measure: Callable[[Measured], float]) -> Callable[[Measured, Filters], bool]:
    def breaks(measured: Measured, filters: Filters) -> bool:
        most = filters.value(key)
        return most is not None and measure(measured) > most

    return breaks


def _words_of_odd_length(measured: Measured, filters: Filters) -> bool:
    # A word of a script without spaces is a character here.
    if measured.unspaced:
        return False
    least, most = filters.value("min_word_length"), filters.value("max_word_length")
    return (least is not None and measured.word_length < least) or (most is not None and measured.word_length > most)


def _few_stop_words(measured: Measured, filters: Filters) -> bool:
    least = filters.value("min_stop_words")
    return least is not None and measured.stop_words < least and language_of(measured.text) == "en"


def _repeats(measured: Measured, filters: Filters) -> bool:
    bounds = filters.value("max_repeated_ngrams") or {}
    return any(measured.repeated(words) > most for words, most in sorted(bounds.items()))


def _of_another_language(measured: Measured, filters: Filters) -> bool:
    return bool(filters.languages) and language_of(measured.text) not in filters.languages


RULES: Mapping[str, Callable[[Measured, Filters], bool]] = {
    "too-short": _below("min_words", lambda text: text.words),
    "too-long": _above("max_words", lambda text: text.words),
    "word-length": _words_of_odd_length,
    "symbols": _above("max_symbols", lambda text: text.symbols),
    "few-letters": _below("min_alphabetic", lambda text: text.alphabetic),
    "bullets": _above("max_bullets", lambda text: text.bullets),
    "ellipses": _above("max_ellipses", lambda text: text.ellipses),
    "few-sentences": _below("min_sentences", lambda text: text.sentences),
    "repeated-lines": _above("max_repeated_lines", lambda text: text.repeated_lines),
    "repeated-paragraphs": _above("max_repeated_paragraphs", lambda text: text.repeated_paragraphs),
    "boilerplate": _above("max_boilerplate", lambda text: text.boilerplate),
    "repeated-words": _repeats,
    "few-stop-words": _few_stop_words,
    "language": _of_another_language,
}
"""By name, whether a text breaks the rule; cheap ones first."""
