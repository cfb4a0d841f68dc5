"""Who measures what a method trains. A new judge is one file and one line here; a method names its judge."""

from __future__ import annotations

from dataclasses import dataclass
from importlib import import_module
from pathlib import Path

from ray_jobs.errors import UsageError
from ray_jobs.train.evaluation.scores import Judge
from ray_jobs.train.methods import Task, method_of


@dataclass(frozen=True, slots=True)
class Known:
    """Where a judge is, imported when needed: each brings a library that takes seconds to import."""

    module: str
    name: str
    metrics: dict[str, tuple[str, ...]]
    """Of each kind of rows that it measures: the chief one first, and some only where the rows allow them."""


_TEXT = ("perplexity", "token_kl")
JUDGES: dict[str, Known] = {
    "language": Known(
        "ray_jobs.train.evaluation.language",
        "LanguageJudge",
        {
            "messages": _TEXT,
            "completion": _TEXT,
            "preference": (*_TEXT, "reward_accuracy"),
            "label": (*_TEXT, "unwanted_ppl"),
        },
    ),
    "embedder": Known("ray_jobs.train.evaluation.ranking", "EmbedderJudge", {"retrieval": ("ndcg@10",)}),
    "reranker": Known("ray_jobs.train.evaluation.ranking", "RerankerJudge", {"retrieval": ("ndcg@10",)}),
    "reader": Known("ray_jobs.train.evaluation.questions", "ReaderJudge", {"qa": ("f1", "exact_match")}),
}


def judge_of(task: Task, tuned: Path, start: Path | None = None) -> Judge:
    """The models of `task`, what it began from and what was tuned into the folder `tuned`, ready to be measured.

    It began from its base, or from the adapter in the folder `start` over it.
    """
    known = JUDGES[method_of(task.config.method).judge]
    found: Judge = getattr(import_module(known.module), known.name)(task, tuned, start)
    return found


def metrics_of(method: str, kind: str) -> tuple[str, ...]:
    """The metrics by which what `method` trains is measured on rows of `kind`, the chief one first; empty: by none."""
    return JUDGES[method_of(method).judge].metrics.get(kind, ())


def check_kind(method: str, name: str, kind: str) -> None:
    """Raise UsageError where what `method` trains cannot be measured on the rows that the key `name` refers to."""
    if not metrics_of(method, kind):
        kinds = JUDGES[method_of(method).judge].metrics
        raise UsageError(
            f"{name}: its rows are of kind {kind}, and method={method} is measured on "
            f"{' or '.join(kinds)}; choose other data"
        )
