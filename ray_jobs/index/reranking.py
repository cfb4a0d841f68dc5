"""Reordering hits by a reranker; the same steps for the command line and the server.

What a search asked for is retrieved wider (`wider`), each hit is scored as `passage` shows it, and `reranked` orders
the hits and cuts them to what was asked for; `cut` does that alone, where the reranker did not answer. The order is the
reranker's, or a blend of both: a small reranker far from what it was trained on orders worse than retrieval, and the
blend better than either. Guaranteed: pure functions; hits of equal score keep their order; with `by=document` a
document scores as its best chunk. Not guaranteed: k documents, where the chunks retrieved belong to fewer; and nothing
that retrieval did not find comes up.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Protocol

import numpy as np
import numpy.typing as npt

from ray_jobs.corpus.document import HEADING_SEPARATOR
from ray_jobs.errors import ModelError
from ray_jobs.index.hits import Hit
from ray_jobs.index.search import SearchConfig

STAGE = "rerank"
DEFAULT_DEPTH = 50
_LARGEST = 1e30  # of what is blended: beyond it differences overflow
_SURE = 6.0  # log-odds, of 400 to 1, beyond which a reranker is not believed to know more
# A quarter of a reranker's usual window, as the embedder has it.
_CONTEXT_LENGTH = 400


class Scorer(Protocol):
    """What reranking needs of a reranker."""

    def scores(self, query: str, texts: Sequence[str]) -> npt.NDArray[np.float32]:
        """How well each text answers the query, float32 (n,); higher is better."""
        ...


@dataclass(frozen=True)
class Reranking:
    """A reranker, how many chunks it gets to see, and its share in their order."""

    reranker: Scorer
    depth: int = DEFAULT_DEPTH
    weight: float = 1.0

    def wider(self, config: SearchConfig) -> SearchConfig:
        """What to retrieve for it."""
        return wider(config, self.depth)

    def apply(self, query: str, hits: Sequence[Hit], config: SearchConfig) -> list[Hit]:
        """The hits that `config` asked for, best first."""
        scores = self.reranker.scores(query, [passage(hit) for hit in hits])
        return reranked(hits, [float(score) for score in scores], config, self.weight)


def wider(config: SearchConfig, depth: int) -> SearchConfig:
    """The same search for `depth` chunks, and never fewer results than were asked for."""
    return config.model_copy(update={"k": max(depth, config.k), "by": "chunk"})


def passage(hit: Hit) -> str:
    """What the reranker sees of a hit: title and headings that its text does not show, then the text."""
    lines = dict.fromkeys([hit.title, *hit.heading.split(HEADING_SEPARATOR)])
    context = "\n".join(line for line in lines if line and line not in hit.text)[:_CONTEXT_LENGTH]
    return f"{context}\n{hit.text}" if context else hit.text


def reranked(hits: Sequence[Hit], scores: Sequence[float], config: SearchConfig, weight: float = 1.0) -> list[Hit]:
    """The best `config.k` chunks or documents (`config.by`) of `hits` by `scores`, best first.

    `scores` are those of the hits in their order. With a `weight` below 1 they are blended with the scores of
    retrieval: weight x score + (1 - weight) x retrieval's, each scaled to [0, 1] over these hits (Lee, SIGIR 1997).
    Scores that all lie in [0, 1] are taken for probabilities: their log-odds, which add up as evidence does, are scaled
    alike for every query, so that a reranker that is sure of nothing changes little. A hit of the result has its new
    rank and score, and the reranker's own score as that of stage "rerank" beside those it had. Raises ModelError for
    another number of scores than hits, or one that is NaN.
    """
    if len(scores) != len(hits):
        raise ModelError(f"reranker gave {len(scores)} scores for {len(hits)} hits; expected one each")
    if np.isnan(np.asarray(scores, dtype=np.float64)).any():
        raise ModelError("reranker gave NaN as a score; expected numbers: use another reranker or precision=float32")
    blended = scores if weight == 1 else _blended(scores, [hit.score for hit in hits], weight)
    ordered = sorted(zip(hits, scores, blended, strict=True), key=lambda triple: (-triple[2], triple[0].rank))
    return cut([replace(hit, score=new, scores={**hit.scores, STAGE: own}) for hit, own, new in ordered], config)


def _blended(scores: Sequence[float], retrieval: Sequence[float], weight: float) -> list[float]:
    both = weight * _evidence(scores) + (1 - weight) * _scaled(retrieval)
    return [float(score) for score in both]


def _evidence(scores: Sequence[float]) -> npt.NDArray[np.float64]:
    """Log-odds from 0 (400 to 1 against) to 1 of what can be probabilities, else the scores scaled over themselves."""
    values = np.asarray(scores, dtype=np.float64)
    if not len(values) or values.min() < 0 or values.max() > 1:
        return _scaled(scores)
    with np.errstate(divide="ignore"):
        odds = np.log(values) - np.log1p(-values)
    evidence: npt.NDArray[np.float64] = np.clip(odds / (2 * _SURE) + 0.5, 0, 1)
    return evidence


def _scaled(scores: Sequence[float]) -> npt.NDArray[np.float64]:
    """Scores from 0 (the lowest) to 1; all 1 where they are equal."""
    values = np.clip(np.asarray(scores, dtype=np.float64), -_LARGEST, _LARGEST)
    if not len(values) or (span := np.ptp(values)) == 0:
        return np.ones_like(values)
    scaled: npt.NDArray[np.float64] = (values - values.min()) / span
    return scaled


def cut(hits: Sequence[Hit], config: SearchConfig) -> list[Hit]:
    """The first `config.k` chunks or documents (`config.by`) of hits that are in order, ranked from 1.

    For hits retrieved for a reranker that then did not answer: those of the search that was asked for, but that hybrid
    search fuses chunks and not documents.
    """
    if config.by == "document":
        best: dict[str, Hit] = {}
        for hit in hits:
            best.setdefault(hit.doc_id, hit)
        hits = list(best.values())
    return [replace(hit, rank=rank) for rank, hit in enumerate(hits[: config.k], start=1)]
