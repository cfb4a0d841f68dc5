"""Contrastive fine-tuning of an embedder: a query near its passage, far from its hard negatives and others' passages.

Guaranteed: queries and documents have the prompts with which ingest and search use the model; no text of a row, be it
query, passage or hard negative, is one of another row's in its micro-batch, in training and in validation, where the
rows allow it (see ray_jobs.train.apart): a passage would else be right and wrong at once. Not guaranteed: the same
negatives for another size of micro-batch; they are the other rows of it.
"""

from __future__ import annotations

import random
from collections import defaultdict
from collections.abc import Callable, Collection, Sequence
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from ray_jobs.errors import UsageError
from ray_jobs.models.kind import Kind
from ray_jobs.models.sentence_model import document_prompt, query_prompt
from ray_jobs.train import batches
from ray_jobs.train.apart import apart
from ray_jobs.train.methods import Method, Metric, Shift, Task
from ray_jobs.train.methods.arguments import arguments
from ray_jobs.train.methods.cut import tally_of
from ray_jobs.train.methods.rows import (
    Rows,
    list_lengths,
    made_once,
    read_splits,
    rows_of_run,
    selected,
    steps_of,
    text_hashes,
)
from ray_jobs.train.methods.sentences import as_they_lie, check_shardable, load, saving_rightly, with_adapter

if TYPE_CHECKING:
    from datasets import Dataset
    from sentence_transformers import SentenceTransformer
    from transformers import Trainer

_VALIDATION_SEED = 0  # one for all runs, so that their losses can be compared


class ContrastiveEmbedder(Method):
    """The trainer of sentence-transformers over queries, their passages and hard negatives."""

    name = "embedder"
    kinds: tuple[str, ...] = ("retrieval",)
    metric: Metric = ("eval_loss", "min")
    makes: Kind = "embedder"
    judge = "embedder"
    fitting = "an encoder or an embedder"
    in_batch = "negatives are the other rows"
    shifts: tuple[Shift, ...] = (
        Shift("optimisation.micro_batch", "their loss is that of telling a passage from so many others"),
        Shift("embedder.negatives", "their loss is that of telling a passage from so many negatives"),
    )

    def trainer(self, task: Task) -> Trainer:
        """A trainer that is ready to run; raises UsageError where base, data and configuration do not fit."""
        from sentence_transformers import (
            SentenceTransformer,
            SentenceTransformerTrainer,
            SentenceTransformerTrainingArguments,
        )
        from sentence_transformers.sentence_transformer import losses
        from transformers import set_seed

        chosen = task.config.embedder
        train, validation, _ = read_splits(task, self)
        check_positives(train, task.config.data)
        set_seed(task.config.seed)
        model = load(SentenceTransformer, task.base, task)
        check_shardable(model, task)
        with_adapter(model, task, "FEATURE_EXTRACTION")
        count = min(chosen.negatives, int(list_lengths(train, "negatives").max()))
        for name, rows in (("train", train), ("validation", validation)):
            prompts = (query_prompt(model), document_prompt(model))
            task.tallies.splits[name] = tally_of(rows, model, task, name, count, together=False, prompts=prompts)
        train, validation = (
            # The losses go by the order of columns, and one that has the name of an earlier one would come first.
            made_once(
                rows, contrasted(count, seed), task, {"negatives": count, "seed": seed}, f"{name}-contrasted"
            ).select_columns(column_names(count))
            for name, rows, seed in (("train", train, task.config.seed), ("validation", validation, _VALIDATION_SEED))
        )
        loss = (
            losses.MultipleNegativesRankingLoss(model)
            if chosen.loss == "mnrl"
            else losses.CachedMultipleNegativesRankingLoss(model, mini_batch_size=chosen.mini_batch)
        )
        told = arguments(task, steps_of(train, task), learning_rate=2e-5 if task.config.lora is None else 2e-4)
        # Networks carry a pooler of their own that the pooling of the model does not use.
        told["ddp_find_unused_parameters"] = True
        config = SentenceTransformerTrainingArguments(
            **told,
            prompts=_prompts(model, train.column_names),
            batch_sampler=as_they_lie,
        )
        return saving_rightly(SentenceTransformerTrainer)(
            model=model,
            args=config,
            train_dataset=_apart(train, rows_of_run(train, task), task, "train"),
            eval_dataset=_apart(validation, _shuffled(validation), task, "validation"),
            loss=loss,
            callbacks=list(task.callbacks),
        )


def check_positives(rows: Dataset, data: str) -> None:
    """Raise UsageError where all rows have the same positive: there is nothing to tell it from."""
    positives = iter(rows["positive"])
    first = next(positives)
    if all(text == first for text in positives):
        raise UsageError(
            f"data={data}: every training row has the same positive, so that there is nothing to tell it from; prepare "
            "rows with different ones"
        )


def column_names(count: int) -> list[str]:
    """What a row with `count` negatives consists of, the query first."""
    return ["anchor", "positive", *(f"negative_{n + 1}" for n in range(count))]


def contrasted(count: int, seed: int) -> Callable[[Rows], Rows]:
    """A function from retrieval rows to columns anchor, positive, negative_1.. of `count` negatives each.

    A row with fewer hard negatives repeats them; one with none gets passages of other rows of its batch. What a row of
    the batch calls right for a query is no negative of it, as long as there is another text.
    """

    def columns(rows: Rows) -> Rows:
        chance = random.Random(seed)
        right: dict[str, set[str]] = defaultdict(set)
        for query, positive in zip(rows["query"], rows["positive"], strict=True):
            right[query].add(positive)
        chosen = [
            _negatives(own or (), right[query], rows["positive"], count, chance)
            for query, own in zip(rows["query"], rows["negatives"], strict=True)
        ]
        found: Rows = {"anchor": rows["query"], "positive": rows["positive"]}
        return found | {name: [texts[n] for texts in chosen] for n, name in enumerate(column_names(count)[2:])}

    return columns


def _negatives(
    own: Sequence[str], right: Collection[str], passages: Sequence[str], count: int, chance: random.Random
) -> list[str]:
    some = chance.sample(passages, min(len(passages), count + len(right)))
    pools = (own, some, passages)
    pool = next((left for pool in pools if (left := [text for text in pool if text not in right])), passages)
    return [pool[n % len(pool)] for n in range(count)]


def _apart(rows: Dataset, indices: npt.NDArray[np.int64], task: Task, split: str) -> Dataset:
    return selected(rows, apart(indices, text_hashes(rows), task.batches.micro_batch), task, split)


def _shuffled(rows: Dataset) -> npt.NDArray[np.int64]:
    """Every validation row once: where they lie, those of one query stand side by side."""
    return batches.order(len(rows), len(rows), _VALIDATION_SEED)


def _prompts(model: SentenceTransformer, columns: Sequence[str]) -> dict[str, str]:
    """The model's own prompt of each column that has one, as ingest and search use it."""
    query, document = query_prompt(model), document_prompt(model)
    found = {column: query if column == "anchor" else document for column in columns}
    return {column: prompt for column, prompt in found.items() if prompt}
