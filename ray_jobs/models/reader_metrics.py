"""How good a reader's spans are: exact match and F1 as SQuAD's evaluation defines them, and when to refuse.

Rajpurkar et al. 2016 (SQuAD): before two answers are compared they are put in lower case and lose punctuation, the
articles a, an and the, and repeated white space; F1 counts the words they share. Of several right answers the nearest
one counts. A question without answer (SQuAD 2.0) is answered right by the empty text alone.

Guaranteed: pure functions, values between 0 and 1. Not guaranteed: that F1 means much in languages written without
spaces, where a sentence is one word.
"""

from __future__ import annotations

import math
import re
import string
from collections import Counter
from collections.abc import Sequence

_ARTICLES = re.compile(r"\b(a|an|the)\b")
_WITHOUT_PUNCTUATION = str.maketrans("", "", string.punctuation)


def normalised(answer: str) -> str:
    """An answer as it is compared."""
    plain = answer.lower().translate(_WITHOUT_PUNCTUATION)
    return " ".join(_ARTICLES.sub(" ", plain).split())


def exact_match(said: str, answers: Sequence[str]) -> float:
    """1 if `said` is one of the right answers, else 0; without a right answer, 1 if nothing was said."""
    return float(any(normalised(said) == normalised(answer) for answer in answers or ("",)))


def f1(said: str, answers: Sequence[str]) -> float:
    """Harmonic mean of the shares of words that `said` and the nearest right answer have in common."""
    return max(_f1(normalised(said).split(), normalised(answer).split()) for answer in answers or ("",))


def threshold_that_keeps(margins: Sequence[float], share: float) -> float:
    """The highest threshold that at least `share` (above 0, at most 1) of the margins reach; there must be one."""
    kept = max(1, math.ceil(share * len(margins)))
    return sorted(margins, reverse=True)[kept - 1]


def share_below(margins: Sequence[float], threshold: float) -> float:
    """The share of margins that are refused; there must be one."""
    return sum(margin < threshold for margin in margins) / len(margins)


def _f1(said: list[str], right: list[str]) -> float:
    if not said or not right:
        return float(said == right)
    shared = sum((Counter(said) & Counter(right)).values())
    return 2 * shared / (len(said) + len(right))
