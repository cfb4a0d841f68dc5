"""Fine-tuning of a cross-encoder on queries with a right passage and wrong ones.

Guaranteed: a base without a trained head gets one, and an adapter keeps it whole beside its matrices. With `bce` every
pair is a row by itself; with `lambda` a query with all its passages is one.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from ray_jobs.errors import ModelError, UsageError
from ray_jobs.models.kind import Kind
from ray_jobs.models.token_limit import position_limit
from ray_jobs.train.config import TrainConfig
from ray_jobs.train.methods import Method, Metric, Shift, Task
from ray_jobs.train.methods.arguments import arguments
from ray_jobs.train.methods.cut import tally_of
from ray_jobs.train.methods.rows import (
    Rows,
    in_order,
    in_order_of_length,
    list_lengths,
    made_once,
    read_splits,
    steps_of,
)
from ray_jobs.train.methods.sentences import as_they_lie, check_shardable, load, saving_rightly, with_adapter
from ray_jobs.train.span_targets import PAD_MULTIPLE

if TYPE_CHECKING:
    from datasets import Dataset
    from sentence_transformers import CrossEncoder
    from transformers import Trainer


class CrossEncoderReranker(Method):
    """The trainer of sentence-transformers over pairs of a query and a passage."""

    name = "reranker"
    kinds: tuple[str, ...] = ("retrieval",)
    metric: Metric = ("eval_loss", "min")
    makes: Kind = "reranker"
    judge = "reranker"
    fitting = "an encoder or a cross-encoder"
    shifts: tuple[Shift, ...] = (
        Shift("reranker.loss", "their losses are of two kinds"),
        Shift("reranker.negatives", "their loss is that of so many negatives"),
    )

    def by_micro_batch(self, config: TrainConfig) -> bool:
        """LambdaLoss is a mean over the pairs of all lists of a micro-batch: a list weighs as the others are long."""
        return config.reranker.loss == "lambda"

    def trainer(self, task: Task) -> Trainer:
        """A trainer that is ready to run; raises UsageError where base, data and configuration do not fit."""
        from sentence_transformers.cross_encoder import (
            CrossEncoder,
            CrossEncoderTrainer,
            CrossEncoderTrainingArguments,
            losses,
        )
        from transformers import set_seed

        chosen = task.config.reranker
        train, validation, _ = read_splits(task, self)
        check_negatives(train, validation, task.config)
        set_seed(task.config.seed)
        model = load(CrossEncoder, task.base, task, num_labels=1)
        check_shardable(model, task)
        with_adapter(model, task, "SEQ_CLS", _heads(model, task))
        shaped = pairs(chosen.negatives) if chosen.loss == "bce" else lists(chosen.negatives)
        settings: dict[str, object] = {"negatives": chosen.negatives, "loss": chosen.loss}
        splits = {"train": train, "validation": validation}
        made = {name: made_once(rows, shaped, task, settings, f"{name}-{chosen.loss}") for name, rows in splits.items()}
        for name, rows in splits.items():
            left_out = len(rows) - len(made[name]) if chosen.loss == "lambda" else 0
            task.tallies.splits[name] = tally_of(
                rows, model, task, name, chosen.negatives, together=True, left_out=left_out
            )
        train, validation = made["train"], made["validation"]
        ordered = in_order_of_length(train, characters(train), task) if chosen.loss == "bce" else in_order(train, task)
        _pad_to_few_shapes(model, task)
        loss = losses.BinaryCrossEntropyLoss(model) if chosen.loss == "bce" else losses.LambdaLoss(model)
        return saving_rightly(CrossEncoderTrainer)(
            model=model,
            args=CrossEncoderTrainingArguments(
                **arguments(task, steps_of(train, task), learning_rate=2e-5 if task.config.lora is None else 2e-4),
                batch_sampler=as_they_lie,
            ),
            train_dataset=ordered,
            eval_dataset=validation,
            loss=loss,
            callbacks=list(task.callbacks),
        )


def check_negatives(train: Dataset, validation: Dataset, config: TrainConfig) -> None:
    """Raise UsageError where no row has a negative: nothing is learned, or with `lambda` nothing is evaluated."""
    if not list_lengths(train, "negatives").any():
        raise UsageError(
            f"data={config.data}: no training row has a negative, so that all labels are equal; mine hard negatives "
            "first"
        )
    if config.reranker.loss == "lambda" and not list_lengths(validation, "negatives").any():
        raise UsageError(
            f"reranker.loss=lambda with data={config.data}: no validation row has a negative, so that there is no "
            "order to evaluate; mine hard negatives for the validation split too, or set reranker.loss=bce"
        )


def characters(pairs: Dataset) -> npt.NDArray[np.int64]:
    """Code points of each pair, int64."""
    import pyarrow.compute as pc

    query, passage = (pc.utf8_length(pairs.data.column(name)) for name in ("query", "passage"))
    lengths: npt.NDArray[np.int64] = pc.add(query, passage).to_numpy().astype(np.int64)
    return lengths


def pairs(negatives: int) -> Callable[[Rows], Rows]:
    """A function from retrieval rows to pairs with label 1.0 (right) or 0.0, `negatives` of a query at most."""

    def columns(rows: Rows) -> Rows:
        found: list[tuple[str, str, float]] = []
        for query, positive, wrong in zip(rows["query"], rows["positive"], rows["negatives"], strict=True):
            found.append((query, positive, 1.0))
            found += [(query, text, 0.0) for text in list(wrong or ())[:negatives]]
        return {
            "query": [query for query, _, _ in found],
            "passage": [text for _, text, _ in found],
            "label": [label for _, _, label in found],
        }

    return columns


def lists(negatives: int) -> Callable[[Rows], Rows]:
    """A function from retrieval rows to a query with its passages and their labels; rows without negatives go."""

    def columns(rows: Rows) -> Rows:
        found: list[tuple[str, list[str]]] = []
        for query, positive, wrong in zip(rows["query"], rows["positive"], rows["negatives"], strict=True):
            if wrong:
                found.append((query, [positive, *list(wrong)[:negatives]]))
        return {
            "query": [query for query, _ in found],
            "passages": [texts for _, texts in found],
            "labels": [[1.0] + [0.0] * (len(texts) - 1) for _, texts in found],
        }

    return columns


def _pad_to_few_shapes(model: CrossEncoder, task: Task) -> None:
    """Pad to multiples where a new shape costs seconds, and where the base has so many positions."""
    longest = -(-model.max_seq_length // PAD_MULTIPLE) * PAD_MULTIPLE
    slow = task.place.device == "cpu" and task.place.precision == "bfloat16"
    if slow and longest <= position_limit(model[0].model):
        model[0].processing_kwargs["text"] = {"pad_to_multiple_of": PAD_MULTIPLE}


def _heads(model: CrossEncoder, task: Task) -> tuple[str, ...]:
    """Names of the modules beside the encoder that have weights: what a base without a head does not have."""
    network: Any = model[0].model
    found = tuple(
        name
        for name, module in network.named_children()
        if name != network.base_model_prefix and any(True for _ in module.parameters())
    )
    if not found:
        raise ModelError(
            f"base={task.config.base}: {type(network).__name__} has no head of its own beside its encoder; leave lora "
            "out to train all weights"
        )
    return found
