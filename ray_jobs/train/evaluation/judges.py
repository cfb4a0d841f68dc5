"""Which judge measures what a method trains. A new judge is one file and one line here."""

from __future__ import annotations

from importlib import import_module
from pathlib import Path

from ray_jobs.errors import UsageError
from ray_jobs.train.evaluation.scores import Judge
from ray_jobs.train.methods import Task

# Method -> (module, class, kinds of rows). Imported when needed: each brings a library that takes seconds to import.
_LANGUAGE = ("ray_jobs.train.evaluation.language", "LanguageJudge", ("messages", "completion", "preference", "label"))
JUDGES: dict[str, tuple[str, str, tuple[str, ...]]] = {
    "sft": _LANGUAGE,
    "dpo": _LANGUAGE,
    "kto": _LANGUAGE,
    "embedder": ("ray_jobs.train.evaluation.ranking", "EmbedderJudge", ("retrieval",)),
    "reranker": ("ray_jobs.train.evaluation.ranking", "RerankerJudge", ("retrieval",)),
    "reader": ("ray_jobs.train.evaluation.questions", "ReaderJudge", ("qa",)),
}


def judge_of(task: Task, tuned: Path) -> Judge:
    """The models of `task`, its base and what was tuned into the folder `tuned`, ready to be measured."""
    module, kind, _ = JUDGES[task.config.method]
    found: Judge = getattr(import_module(module), kind)(task, tuned)
    return found


def check_kind(method: str, name: str, kind: str) -> None:
    """Raise UsageError where what `method` trains cannot be measured on the rows that the key `name` refers to."""
    kinds = JUDGES[method][2]
    if kind not in kinds:
        raise UsageError(
            f"{name}: its rows are of kind {kind}, and method={method} is measured on "
            f"{' or '.join(kinds)}; choose other data"
        )
