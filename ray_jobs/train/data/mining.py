"""Choose hard negatives of one query among what a search found, by rules against false negatives. Pure.

Settings have the names and the meaning that sentence-transformers' `mine_hard_negatives` gave them: `range_max` hits
besides the positives are looked at; a margin compares a hit's score with the lowest of the positives of the query; of
the hits that pass every rule the best `range_min` are skipped, and of the others `num_negatives` are taken from the top
or by chance. Beyond it, documents and texts are compared, since an index holds the same thing more than once.

Guaranteed of every negative: it is no part of a document of a positive of its query, nor of a forbidden one; its text
is neither that of a positive, nor inside it or around it, nor as similar as `near_threshold` (exact Jaccard similarity
of runs of characters); it holds none of the answers (as SQuAD's evaluation normalises them, whole words); its score
lies in [min_score, max_score], at most at positive - absolute_margin and at positive - |positive| * relative_margin; no
two negatives of a query have the same text. Where a margin is asked for and a positive has no score, nothing passes.
The choice depends on hits, rules and the name of the row alone. Not guaranteed: that a negative is wrong: a passage
that nobody marked and that says the same in other words passes, unless a margin stops it.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field, replace
from functools import lru_cache
from itertools import islice
from typing import Literal, Self

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, ConfigDict, Field, model_validator

from ray_jobs.corpus.sketch import normalised, shingles
from ray_jobs.models import reader_metrics
from ray_jobs.train.data.kind import text_hash

NO_HITS = "no-hits"
POSITIVE_NOT_FOUND = "positive-not-found"
_TELLING = 32  # characters from which a text inside another one is no accident
_KEPT = 1 << 14  # texts whose forms are remembered: hits of one query are hits of others


class MiningRules(BaseModel):
    """Which hits may be negatives, and how many are taken."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    num_negatives: int = Field(4, ge=1, le=1000, description="negatives of a query at most")
    range_min: int = Field(0, ge=0, description="skip so many of the best hits that pass all other rules")
    range_max: int = Field(50, ge=1, le=5000, description="look at so many hits besides the positives")
    max_score: float | None = Field(None, description="highest score of a negative")
    min_score: float | None = Field(None, description="lowest score of a negative")
    absolute_margin: float | None = Field(None, description="a negative scores lower than the positive by so much")
    relative_margin: float | None = Field(
        None, ge=0, description="and by this share of the positive's score, as in 0.05"
    )
    sampling_strategy: Literal["top", "random"] = Field("top", description="the best that pass, or any of them")
    near_threshold: float = Field(0.8, gt=0, le=1, description="Jaccard similarity from which a text is a positive's")
    seed: int = Field(0, ge=0, description="of random sampling")

    @model_validator(mode="after")
    def _possible(self) -> Self:
        room = self.range_max - self.range_min
        if self.num_negatives > room:
            raise ValueError(
                f"num_negatives={self.num_negatives} with range_min={self.range_min}, range_max={self.range_max}: only "
                f"{max(0, room)} hits are left; lower num_negatives or range_min, or raise range_max"
            )
        if self.min_score is not None and self.max_score is not None and self.min_score > self.max_score:
            raise ValueError(f"min_score={self.min_score:g} is above max_score={self.max_score:g}: swap them")
        return self

    @property
    def has_margin(self) -> bool:
        """Whether the positive's score counts."""
        return self.absolute_margin is not None or self.relative_margin is not None

    def above(self, score: float, positive: float) -> str | None:
        """The margin that a hit of this score does not keep to, or None."""
        if self.absolute_margin is not None and score > positive - self.absolute_margin:
            return "absolute-margin"
        if self.relative_margin is not None and score > positive - abs(positive) * self.relative_margin:
            return "relative-margin"
        return None


@dataclass(frozen=True, slots=True)
class Candidate:
    """A hit; `shown` is what becomes the negative, `text` what is compared."""

    doc_id: str
    text: str
    shown: str
    score: float


@dataclass(frozen=True, slots=True)
class Known:
    """What is known of a query beforehand."""

    documents: AbstractSet[str] = frozenset()  # of its positives
    texts: Sequence[str] = ()  # of its positives
    hashes: AbstractSet[str] = frozenset()  # text_hash of positives whose text is not at hand
    answers: Sequence[str] = ()
    negatives: Sequence[str] = ()  # that it has already
    forbidden: AbstractSet[str] = frozenset()  # documents of other splits


@dataclass(frozen=True, slots=True)
class Mined:
    """The negatives of one query, best first, how many hits each rule took away, and why there are none."""

    negatives: tuple[Candidate, ...]
    skipped: Mapping[str, int]
    without: str | None


Rescore = Callable[[Sequence[str]], tuple[Sequence[float], float | None]]
"""From shown texts to their scores by a reranker, and the lowest one of the positives."""


@dataclass
class _Screening:
    """The hits of one query under way; counts what is taken away."""

    known: Known
    rules: MiningRules
    skipped: Counter[str] = field(default_factory=Counter)

    def others(self, candidates: Iterable[Candidate]) -> Iterator[Candidate]:
        """The first hits that are of no positive's document, without those of forbidden ones."""
        apart = (found for found in candidates if found.doc_id not in self.known.documents)
        for found in islice(apart, self.rules.range_max):
            if found.doc_id in self.known.forbidden:
                self.skipped["other-split"] += 1
            else:
                yield found

    def scored(self, candidates: Iterable[Candidate], positive: float | None) -> Iterator[Candidate]:
        """Those whose score is right."""
        rules = self.rules
        for found in candidates:
            reason = None
            if rules.max_score is not None and found.score > rules.max_score:
                reason = "max-score"
            elif rules.min_score is not None and found.score < rules.min_score:
                reason = "min-score"
            elif rules.has_margin:
                reason = POSITIVE_NOT_FOUND if positive is None else rules.above(found.score, positive)
            if reason is None:
                yield found
            else:
                self.skipped[reason] += 1

    def different(self, candidates: Iterable[Candidate]) -> Iterator[Candidate]:
        """Those that say something else than a positive, an answer or one before them."""
        seen = {text_hash(text) for text in self.known.negatives}
        for found in candidates:
            own = {text_hash(found.text), text_hash(found.shown)}
            reason = "repeated" if own & seen else self._same(found)
            if reason is None:
                seen |= own
                yield found
            else:
                self.skipped[reason] += 1

    def below_best(self, candidates: Iterable[Candidate]) -> Iterator[Candidate]:
        """All but the best `range_min`."""
        for place, found in enumerate(candidates):
            if place < self.rules.range_min:
                self.skipped["range-min"] += 1
            else:
                yield found

    def _same(self, found: Candidate) -> str | None:
        if text_hash(found.text) in self.known.hashes:
            return "near-positive"
        if any(near(found.text, text, self.rules.near_threshold) for text in self.known.texts):
            return "near-positive"
        return "has-answer" if holds_answer(found.text, self.known.answers) else None


def choose(
    candidates: Sequence[Candidate],
    known: Known,
    rules: MiningRules,
    positive: float | None,
    row: str,
    rescore: Rescore | None = None,
) -> Mined:
    """The negatives of the row named `row` among `candidates`, the hits of its query, best first.

    `positive` is the lowest score of the positives by the same search, None where one was not found. With `rescore` the
    hits whose texts pass are scored again, and those scores count instead.
    """
    screening = _Screening(known, rules)
    others = screening.others(candidates)
    if rescore is None:
        passing = screening.different(screening.scored(others, positive))
    else:
        different = list(screening.different(others))
        scores, positive = rescore([found.shown for found in different]) if different else ((), None)
        again = [replace(found, score=float(score)) for found, score in zip(different, scores, strict=True)]
        passing = screening.scored(sorted(again, key=lambda found: -found.score), positive)
    taken = _taken(screening.below_best(passing), rules, row)
    return Mined(tuple(taken), dict(screening.skipped), None if taken else _why(screening.skipped))


def _taken(passing: Iterator[Candidate], rules: MiningRules, row: str) -> list[Candidate]:
    if rules.sampling_strategy == "top":
        # No further hit is looked at than is needed.
        return list(islice(passing, rules.num_negatives))
    pool = list(passing)
    chosen = random.Random(f"{rules.seed}\0{row}").sample(range(len(pool)), min(len(pool), rules.num_negatives))
    return [pool[place] for place in sorted(chosen)]


def _why(skipped: Counter[str]) -> str:
    """The rule that took most; the first in the alphabet of several."""
    if not skipped:
        return NO_HITS
    return min(skipped, key=lambda reason: (-skipped[reason], reason))


def near(text: str, other: str, threshold: float) -> bool:
    """Whether two texts are the same, one lies in the other, or their Jaccard similarity reaches `threshold`."""
    one, two = _plain(text), _plain(other)
    shorter, longer = sorted((one, two), key=len)
    if one == two or (len(shorter) >= _TELLING and shorter in longer):
        return True
    mine, theirs = _runs(text), _runs(other)
    fewer, more = sorted((len(mine), len(theirs)))
    # Even if all of the shorter one were in the longer one.
    if fewer < threshold * more:
        return False
    shared = len(np.intersect1d(mine, theirs, assume_unique=True))
    return shared >= threshold * (len(mine) + len(theirs) - shared)


def holds_answer(text: str, answers: Sequence[str]) -> bool:
    """Whether one of the answers stands in the text, as whole words."""
    words = f" {_as_answer(text)} "
    return any(f" {_as_answer(answer)} " in words for answer in answers if _as_answer(answer))


@lru_cache(_KEPT)
def _plain(text: str) -> str:
    return normalised(text)


@lru_cache(_KEPT)
def _as_answer(text: str) -> str:
    return reader_metrics.normalised(text)


@lru_cache(_KEPT)
def _runs(text: str) -> npt.NDArray[np.uint32]:
    return shingles(text)
