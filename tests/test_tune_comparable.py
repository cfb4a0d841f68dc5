"""Trials are compared by what every one of them measures alike: which keys a search may have for which objective."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import train_bases
from evaluation_tasks import task

from ray_jobs.errors import UsageError
from ray_jobs.train.config import TrainConfig
from ray_jobs.train.methods import METHODS, method_of, metric_of
from ray_jobs.train.tune.comparable import check_comparable
from ray_jobs.train.tune.config import ObjectiveConfig
from ray_jobs.train.tune.objective import resolve
from ray_jobs.train.tune.space import keys

EVALUATED: dict[str, Any] = {"target": "any"}


def check(method: str, key: str, objective: dict[str, Any], stops: bool) -> None:
    train = TrainConfig.model_validate({"method": method, "base": "b", "data": "d", "name": "n"})
    goal = resolve(ObjectiveConfig.model_validate(objective), train, metric_of(train))
    check_comparable([key, "optimisation.learning_rate"], method_of(method), goal, stops)


LOSS = ("eval_loss", "min")
SHIFTS = [(method, shift) for method in METHODS for shift in method_of(method).shifts if LOSS not in shift.spares]


@pytest.mark.parametrize(("method", "shift"), SHIFTS, ids=lambda value: getattr(value, "key", value))
def test_a_key_that_shifts_the_loss_is_no_key_to_compare_losses_over(method: str, shift: Any) -> None:
    by_loss = {"metric": "eval_loss", "mode": "min"}
    with pytest.raises(
        UsageError, match=rf"space\.{shift.key} cannot be .* eval_loss.*set train\.{shift.key}$"
    ) as told:
        check(method, shift.key, by_loss, stops=False)
    assert "\n" not in str(told.value)


REFUSED: list[tuple[str, str, dict[str, Any], bool, str]] = [
    (
        "embedder",
        "optimisation.micro_batch",
        {},
        True,
        r"by eval_loss: where it changes, their loss is that of telling a passage from so many others, so that trials "
        r"cannot be compared; compare by the evaluation: objective\.target=ndcg@10 with scheduler=none, or set train\.",
    ),
    ("embedder", "embedder.negatives", {}, False, r"by eval_loss: .* negatives"),
    (
        "embedder",
        "embedder.negatives",
        EVALUATED,
        True,
        r"by eval_loss, by which the scheduler .*set scheduler=none, or",
    ),
    ("reranker", "reranker.loss", {}, True, r"objective\.target=ndcg@10"),
    ("reranker", "reranker.negatives", {}, True, r"objective\.target=ndcg@10"),
    ("dpo", "dpo.beta", {}, True, r"set objective\.metric=eval_rewards/accuracies and objective\.mode=max, or compare"),
    ("dpo", "dpo.beta", EVALUATED, True, r"set scheduler=none"),
    ("kto", "kto.beta", {}, True, r"objective\.metric=eval_logps/chosen"),
    ("kto", "optimisation.micro_batch", {}, True, r"the KL term of their loss"),
    ("sft", "sequence.completion_only", {}, False, r"other tokens .* compared; set train\.sequence\.completion_only$"),
    (
        "sft",
        "sequence.max_length",
        EVALUATED,
        False,
        r"by the evaluation: .* compared; set train\.sequence\.max_length$",
    ),
    (
        "sft",
        "sequence.packing",
        {"metric": "eval_mean_token_accuracy", "mode": "max"},
        True,
        r"means of other batches.*set objective\.metric=eval_loss",
    ),
    ("reader", "reader.stride", {"metric": "eval_loss", "mode": "min"}, False, r"set objective\.metric=eval_f1"),
]


@pytest.mark.parametrize(("method", "key", "objective", "stops", "message"), REFUSED, ids=lambda value: str(value)[:40])
def test_a_search_whose_trials_cannot_be_compared_is_refused(
    method: str, key: str, objective: dict[str, Any], stops: bool, message: str
) -> None:
    with pytest.raises(UsageError, match=message):
        check(method, key, objective, stops)


@pytest.mark.parametrize(
    ("method", "key", "objective", "stops"),
    [
        ("embedder", "optimisation.micro_batch", EVALUATED, False),
        ("embedder", "embedder.negatives", EVALUATED, False),
        ("embedder", "embedder.loss", {}, True),
        ("embedder", "embedder.mini_batch", {}, True),
        ("embedder", "sequence.max_length", {}, True),
        ("reranker", "reranker.loss", EVALUATED, False),
        ("dpo", "dpo.beta", {"metric": "eval_rewards/accuracies", "mode": "max"}, True),
        ("dpo", "dpo.beta", EVALUATED, False),
        ("dpo", "kto.beta", {}, True),
        ("sft", "sequence.packing", {}, True),
        ("sft", "lora.rank", {}, True),
        ("reader", "reader.stride", {}, True),
        ("reader", "sequence.max_length", EVALUATED, True),
    ],
    ids=str,
)
def test_what_every_trial_measures_alike_may_be_searched(
    method: str, key: str, objective: dict[str, Any], stops: bool
) -> None:
    check(method, key, objective, stops)


def test_every_key_that_a_method_names_is_one() -> None:
    assert {shift.key for method in METHODS for shift in method_of(method).shifts} <= set(keys())


@pytest.fixture(scope="module")
def toys(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[Path, Path]]:
    """Base and data of each method; the prompts of `sft` are of different lengths, and some rows have no negative."""
    folder = tmp_path_factory.mktemp("toys")
    words = train_bases.WORDS
    rows = [{"prompt": " ".join(words[: 1 + n % 4]), "completion": " " + " ".join(words[: 1 + n])} for n in range(10)]
    train_bases.prepared(folder / "text", {"train": rows, "validation": rows}, train_bases.COMPLETION)
    found = [
        {"query": words[n], "positive": " ".join(words[n:]), "negatives": words[:n][:3]} for n in range(len(words))
    ]
    train_bases.prepared(folder / "retrieval", {"train": found, "validation": found}, train_bases.RETRIEVAL)
    return {
        "sft": (train_bases.language_model(folder / "chat"), folder / "text"),
        "embedder": (train_bases.embedder(folder / "embedder"), folder / "retrieval"),
        "reranker": (train_bases.encoder(folder / "encoder"), folder / "retrieval"),
    }


MEASURED: list[tuple[str, str, Any, Any]] = [
    ("sft", "sequence.max_length", 8, 32),
    ("sft", "sequence.completion_only", True, False),
    ("sft", "sequence.packing", True, False),
    ("sft", "optimisation.global_batch", 4, 8),
    ("sft", "optimisation.micro_batch", 1, 8),
    ("embedder", "optimisation.micro_batch", 2, 4),
    ("embedder", "embedder.negatives", 1, 2),
    ("embedder", "embedder.loss", "mnrl", "cached_mnrl"),
    ("embedder", "seed", 0, 1),
    ("reranker", "reranker.negatives", 1, 2),
    ("reranker", "reranker.loss", "bce", "lambda"),
]


@pytest.mark.parametrize(("method", "key", "one", "other"), MEASURED)
def test_the_loss_of_one_model_differs_where_a_method_says_so(
    tmp_path: Path, toys: dict[str, tuple[Path, Path]], method: str, key: str, one: Any, other: Any
) -> None:
    base, data = toys[method]
    block, _, last = key.rpartition(".")
    losses = []
    for value in (one, other):
        # The few rows are fewer still when they are packed.
        sizes = {"global_batch": 2, "micro_batch": 2} if key == "sequence.packing" else {}
        changes: dict[str, Any] = {"optimisation": sizes}
        changes |= {block: {**changes.get(block, {}), last: value}} if block else {last: value}
        trainer = method_of(method).trainer(task(tmp_path, method, base, data, **changes))
        losses.append(trainer.evaluate()["eval_loss"])
    shifts = key in {shift.key for name, shift in SHIFTS if name == method}
    assert (losses[0] != pytest.approx(losses[1], rel=1e-5)) == shifts, losses
