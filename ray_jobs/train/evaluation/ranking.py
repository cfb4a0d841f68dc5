"""Embedders and rerankers before and after: nDCG@10 of each query, and the text that comes first.

An embedder ranks all distinct positives and negatives of the set for every query of it; a reranker ranks each query's
own. A text is right for a query if a row says so; gains are linear, as trec_eval computes them (Järvelin and
Kekäläinen, TOIS 2002).

Guaranteed: the model's own prompts and length, and float32, as it was trained; a query counts once, with all its
positives. Not guaranteed: a figure that can be compared with other collections: one with few texts is easy.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ray_jobs.models.sentence_model import document_prompt, query_prompt
from ray_jobs.train.evaluation.bootstrap import Floats
from ray_jobs.train.evaluation.scores import Columns, Sample, Scores, taken
from ray_jobs.train.evaluation.tuned import OneNetwork, Sides, TwoNetworks, is_adapter, over
from ray_jobs.train.methods import Task
from ray_jobs.train.methods.sentences import load

DEPTH = 10
_QUERIES = 128  # ranked at a time


@dataclass(frozen=True, slots=True)
class Asked:
    """A query with the texts that are right for it, and those that rows name as wrong."""

    query: str
    right: tuple[str, ...]
    wrong: tuple[str, ...]


def queries_of(rows: Columns) -> list[Asked]:
    """The distinct queries of retrieval rows, in order; a text that one row calls right is not wrong."""
    right: dict[str, dict[str, None]] = {}
    wrong: dict[str, dict[str, None]] = {}
    for query, positive, negatives in zip(rows["query"], rows["positive"], rows["negatives"], strict=True):
        right.setdefault(query, {})[positive] = None
        wrong.setdefault(query, {}).update(dict.fromkeys(negatives or ()))
    return [
        Asked(query, tuple(texts), tuple(text for text in wrong[query] if text not in texts))
        for query, texts in right.items()
    ]


def ndcg(relevant: Sequence[bool], right: int, depth: int = DEPTH) -> float:
    """nDCG@depth of a ranking, best first, of which `relevant` are right, out of `right` in all; 0 to 1."""
    discounts = 1 / np.log2(np.arange(2, depth + 2))
    gain = sum(discounts[place] for place, good in enumerate(relevant[:depth]) if good)
    return float(gain / discounts[: min(right, depth)].sum())


class EmbedderJudge:
    """An embedder and what it was tuned to."""

    def __init__(self, task: Task, tuned: Path, start: Path | None = None) -> None:
        """`tuned` is a folder with an adapter over `task.base`, or a whole model; `start` has what it began as."""
        from sentence_transformers import SentenceTransformer

        self._models = _models(lambda folder: load(SentenceTransformer, folder, task), task, tuned, start)
        # The texts of the last set, which are asked for again by its samples: by side, with their vectors.
        self._kept: dict[bool, tuple[list[str], Any]] = {}

    def scores(self, rows: Columns, kind: str) -> list[Scores]:
        """nDCG@10 over all texts of the set."""
        asked = queries_of(rows)
        if not asked:
            return []
        before, after = (self._ndcg(asked, tuned) for tuned in (False, True))
        return [Scores("ndcg@10", before, after)]

    def samples(self, rows: Columns, kind: str, places: Sequence[int]) -> list[Sample]:
        """The text of the whole set that comes first for each query."""
        asked, texts = queries_of(taken(rows, places)), _texts(queries_of(rows))
        old, new = (self._ranked(asked, texts, tuned, 1) for tuned in (False, True))
        return [
            Sample(one.query, one.right[0], texts[before[0]], texts[after[0]])
            for one, before, after in zip(asked, old, new, strict=True)
        ]

    def _ndcg(self, asked: Sequence[Asked], tuned: bool) -> Floats:
        texts = _texts(asked)
        ranked = self._ranked(asked, texts, tuned, DEPTH)
        return np.array(
            [
                ndcg([texts[place] in one.right for place in places], len(one.right))
                for one, places in zip(asked, ranked, strict=True)
            ]
        )

    def _ranked(self, asked: Sequence[Asked], texts: Sequence[str], tuned: bool, depth: int) -> list[list[int]]:
        """Places of the texts nearest to each query, best first."""
        import torch

        with self._models.state(tuned) as model, torch.inference_mode():
            if tuned not in self._kept or self._kept[tuned][0] != list(texts):
                vectors = model.encode(
                    list(texts), prompt=document_prompt(model), convert_to_tensor=True, show_progress_bar=False
                )
                self._kept[tuned] = list(texts), vectors
            kept = self._kept[tuned][1]
            found: list[list[int]] = []
            for start in range(0, len(asked), _QUERIES):
                queries = [one.query for one in asked[start : start + _QUERIES]]
                vectors = model.encode(
                    queries, prompt=query_prompt(model), convert_to_tensor=True, show_progress_bar=False
                )
                found += model.similarity(vectors, kept).topk(min(depth, len(texts)), dim=1).indices.tolist()
        return found


class RerankerJudge:
    """A cross-encoder and what it was tuned to; a base without a head has the one it starts from."""

    def __init__(self, task: Task, tuned: Path, start: Path | None = None) -> None:
        """`tuned` is a folder with an adapter over `task.base`, or a whole model; `start` has what it began as."""
        from sentence_transformers import CrossEncoder
        from transformers import set_seed

        def seeded(folder: Path) -> Any:
            set_seed(task.config.seed)
            return load(CrossEncoder, folder, task, num_labels=1)

        self._models = _models(seeded, task, tuned, start)

    def scores(self, rows: Columns, kind: str) -> list[Scores]:
        """nDCG@10 over each query's own texts; queries without a wrong one are left out."""
        asked = [one for one in queries_of(rows) if one.wrong]
        if not asked:
            return []
        before, after = (
            np.array(
                [
                    ndcg([text in one.right for text in texts], len(one.right))
                    for one, texts in zip(asked, self._ranked(asked, tuned), strict=True)
                ]
            )
            for tuned in (False, True)
        )
        return [Scores("ndcg@10", before, after)]

    def samples(self, rows: Columns, kind: str, places: Sequence[int]) -> list[Sample]:
        """The text that comes first for each query among its own."""
        asked = [one for one in queries_of(taken(rows, places)) if one.wrong]
        old, new = (self._ranked(asked, tuned) for tuned in (False, True))
        return [
            Sample(one.query, one.right[0], before[0], after[0])
            for one, before, after in zip(asked, old, new, strict=True)
        ]

    def _ranked(self, asked: Sequence[Asked], tuned: bool) -> list[list[str]]:
        """Each query's texts, best first."""
        # The right ones last, so that a model that tells nothing apart gains nothing by it.
        pairs = [(one.query, text) for one in asked for text in (*one.wrong, *one.right)]
        if not pairs:
            return []
        with self._models.state(tuned) as model:
            values = np.asarray(model.predict(pairs, show_progress_bar=False), np.float64).reshape(len(pairs))
        found, start = [], 0
        for one in asked:
            texts = (*one.wrong, *one.right)
            own = values[start : start + len(texts)]
            found.append([texts[place] for place in np.argsort(-own, kind="stable")])
            start += len(texts)
        return found


def _models(load: Callable[[Path], Any], task: Task, tuned: Path, start: Path | None) -> Sides:
    if not is_adapter(tuned):
        return TwoNetworks(lambda: load(task.base), lambda: load(tuned), task.place.device)
    model = load(task.base)
    model[0].model = over(model[0].model, tuned, start)
    return OneNetwork(model, model[0].model)


def _texts(asked: Sequence[Asked]) -> list[str]:
    return list(dict.fromkeys(text for one in asked for text in (*one.wrong, *one.right)))
