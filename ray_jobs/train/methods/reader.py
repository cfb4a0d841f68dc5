"""Fine-tuning of an extractive reader: where in a passage the answer to a question stands, or that it does not.

Guaranteed: the rows are read by the same windows as ray_jobs.models.reader reads passages; a base without a span head
gets one, and an adapter keeps it whole beside its matrices; evaluation tells exact match and F1 as SQuAD defines them
and, once an answer is matched exactly, a threshold chosen on the validation rows, `eval_threshold`, which belongs into
the model's card. Not guaranteed: that a model refuses anything without rows that have no answer; bounded memory for the
validation rows, whose windows every worker holds, some 13 kB for each of 384 tokens.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from dataclasses import asdict
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np

from ray_jobs.errors import ModelError, UsageError
from ray_jobs.models.kind import Kind
from ray_jobs.models.reader_batch import pad_windows
from ray_jobs.models.reader_evaluation import Reading, judge
from ray_jobs.models.reader_model import SpanLogits
from ray_jobs.models.reader_spans import PassageSpan, passage_spans, window_spans
from ray_jobs.models.reader_windows import Window, WindowTokenizer
from ray_jobs.models.sentence_model import quiet_transformers
from ray_jobs.models.token_limit import position_limit
from ray_jobs.train.methods import Method, Metric, Shift, Task
from ray_jobs.train.methods.arguments import adapter, arguments, row_length
from ray_jobs.train.methods.rows import Rows, how_many, in_order_of_length, made_once, read_splits, steps_of
from ray_jobs.train.methods.tally import Tally
from ray_jobs.train.span_targets import TARGETS, QuestionRow, SpanCollator, features, rows_of, windows_of

if TYPE_CHECKING:
    from transformers import EvalPrediction, PreTrainedModel, PreTrainedTokenizerFast, Trainer

LENGTH = 384
"""Tokens of a window, where neither the user nor the base says less."""
FIRST = "first"
"""In rows that are windows: whether a window is the first of its row."""
_WINDOWS = 256  # judged at a time
_OF_ANSWERS: tuple[Metric, ...] = (("eval_f1", "max"), ("eval_exact_match", "max"))


class SpanReader(Method):
    """The trainer of transformers over windows with the first and last token of their answer."""

    name = "reader"
    kinds: tuple[str, ...] = ("qa",)
    metric: Metric = ("eval_f1", "max")
    makes: Kind = "reader"
    judge = "reader"
    fitting = "an encoder that can have a span head"
    shifts: tuple[Shift, ...] = (
        Shift("sequence.max_length", "their loss is the mean of other windows", spares=_OF_ANSWERS),
        Shift("reader.stride", "their loss is the mean of other windows", spares=_OF_ANSWERS),
        Shift(
            "reader.max_answer_tokens", "it changes which answers count, not what is learned", spares_evaluation=False
        ),
    )

    def trainer(self, task: Task) -> Trainer:
        """A trainer that is ready to run; raises UsageError where base, data and configuration do not fit."""
        import pyarrow.compute as pc
        from datasets import Dataset
        from transformers import Trainer, TrainingArguments, set_seed

        chosen = task.config.reader
        train, validation, _ = read_splits(task, self)
        if not any(map(len, train["answers"])):
            raise UsageError(
                f"data={task.config.data}: no training row has an answer, so that all targets are equal; prepare rows "
                "with answers too"
            )
        if not any(map(len, validation["answers"])):
            raise UsageError(
                f"data={task.config.data}: no validation row has an answer, so that there is no F1 to choose a "
                "checkpoint by; prepare the data with answers in the validation split too"
            )
        tokenizer = tokenizer_of(task)
        # Saved with the model, so that it is read by windows of the same length.
        length, longest = window_length(task)
        tokenizer.model_max_length = length
        tokens = WindowTokenizer(tokenizer.backend_tokenizer.to_str(), tokenizer.cls_token_id)
        asked = windows_of(rows_of(validation.to_dict()), tokens, length, chosen.stride)
        # Judged in any order, and fastest beside others of their length.
        asked.sort(key=lambda item: len(item[0].ids))
        made: dict[str, object] = {"length": length, "stride": chosen.stride, "targets": TARGETS, "counted": True}
        rows = {"train": len(train), "validation": len(validation)}
        train = made_once(train, learned(tokens, length, chosen.stride), task, made, "train-spans")
        kept = {"train": how_many(train, FIRST), "validation": len({window.pair for window, _ in asked})}
        for name, count in kept.items():
            check_windows(count, name, length, task)
            left_out = rows[name] - count
            task.tallies.splits[name] = Tally(rows[name], left_out, "the question leaves no room for a passage")
        train = train.remove_columns(FIRST)
        lengths = pc.list_value_length(train.data.column("input_ids")).to_numpy().astype(np.int64)
        # Before the network: under ZeRO-3 its weights are sharded as they are read.
        settings = TrainingArguments(
            **arguments(task, steps_of(train, task), learning_rate=5e-5 if task.config.lora is None else 1e-3),
            label_names=["start_positions", "end_positions"],
            remove_unused_columns=False,
        )
        set_seed(task.config.seed)
        with quiet_transformers():
            return Trainer(
                model=network_of(task),
                args=settings,
                train_dataset=in_order_of_length(train, lengths, task),
                eval_dataset=Dataset.from_dict(features(asked)),
                data_collator=SpanCollator(tokenizer.pad_token_id, takes_segments(tokenizer), longest),
                compute_metrics=judged(asked, chosen.max_answer_tokens),
                processing_class=tokenizer,
                callbacks=list(task.callbacks),
            )


def tokenizer_of(task: Task) -> PreTrainedTokenizerFast:
    """The base's tokeniser; raises ModelError for one whose tokens have no places in the text, or no padding."""
    from transformers import AutoTokenizer

    with quiet_transformers():
        tokenizer = AutoTokenizer.from_pretrained(task.base, local_files_only=True, trust_remote_code=False)
    if getattr(tokenizer, "backend_tokenizer", None) is None or tokenizer.pad_token_id is None:
        raise ModelError(f"base={task.config.base} has no fast tokeniser with a padding token; choose another base")
    return tokenizer


def check_windows(rows: int, name: str, length: int, task: Task) -> None:
    """Raise UsageError where no row of a split has a window: their questions alone fill it."""
    if not rows:
        raise UsageError(
            f"data={task.config.data}: no question of {name} leaves room for a passage within {length} tokens; raise "
            "sequence.max_length or shorten the questions"
        )


def window_length(task: Task) -> tuple[int, int]:
    """Tokens of a window, and those that the base takes; raises UsageError where the user asks for more."""
    import torch
    from transformers import AutoConfig, AutoModelForQuestionAnswering

    with torch.device("meta"):
        config = AutoConfig.from_pretrained(task.base, local_files_only=True, trust_remote_code=False)
        limit = position_limit(AutoModelForQuestionAnswering.from_config(config))
    asked = task.config.sequence.max_length
    return (min(LENGTH, limit) if asked is None else row_length(task.config, limit)), limit


def network_of(task: Task) -> Any:
    """The base with a span head, which is new where it has none, in float32, and its adapter if there is to be one."""
    import torch
    from transformers import AutoModelForQuestionAnswering

    with quiet_transformers():
        network = AutoModelForQuestionAnswering.from_pretrained(
            task.base, local_files_only=True, trust_remote_code=False, dtype=torch.float32, num_labels=2
        )
    lora = task.config.lora
    return network if lora is None else with_adapter(network, adapter(lora, "QUESTION_ANS", heads_of(network)))


def takes_segments(tokenizer: PreTrainedTokenizerFast) -> bool:
    """Whether the network of this tokeniser is told which tokens are the question's."""
    return "token_type_ids" in tokenizer.model_input_names


def heads_of(network: PreTrainedModel) -> tuple[str, ...]:
    """Names of the modules beside the encoder: what a base without a head does not have."""
    return tuple(name for name, _ in network.named_children() if name != network.base_model_prefix)


def with_adapter(network: PreTrainedModel, config: Any) -> Any:
    """The network with a LoRA adapter (a PeftModel), whose heads are trained whole and have no matrices beside."""
    from peft import get_peft_model

    # PEFT's class for this task does not hand the network its segments: it would learn without what it is read with.
    task, config.task_type = config.task_type, None
    if config.target_modules == "all-linear":
        config.exclude_modules = list(config.modules_to_save)
    with warnings.catch_warnings():
        # PEFT asks models for a property that transformers has renamed.
        warnings.filterwarnings("ignore", message="`is_gradient_checkpointing`", category=FutureWarning)
        adapted = get_peft_model(network, config)
    adapted.peft_config[adapted.active_adapter].task_type = task
    return adapted


def learned(tokens: WindowTokenizer, max_tokens: int, stride: int) -> Callable[[Rows], Rows]:
    """A function from rows of kind `qa` to windows with their targets, and whether each is the first of its row."""

    def spans(rows: Rows) -> Rows:
        windows = windows_of(rows_of(rows), tokens, max_tokens, stride)
        pairs = [window.pair for window, _ in windows]
        return {**features(windows), FIRST: [pair != before for before, pair in pairwise([None, *pairs])]}

    return spans


def judged(
    asked: Sequence[tuple[Window, QuestionRow]], max_answer_tokens: int
) -> Callable[[EvalPrediction], dict[str, float]]:
    """A function from the logits of these windows, in their order, to the metrics of a reader; see ReaderQuality."""

    def metrics(prediction: EvalPrediction) -> dict[str, float]:
        spans = spans_of(asked, SpanLogits(*prediction.predictions), max_answer_tokens)
        quality = judge([Reading(row.passage, row.answers, span) for row, span in spans])
        return {name: value for name, value in asdict(quality).items() if value is not None}

    return metrics


def spans_of(
    asked: Sequence[tuple[Window, QuestionRow]], logits: SpanLogits, max_answer_tokens: int
) -> list[tuple[QuestionRow, PassageSpan | None]]:
    """Each row that has a window, by number, with its best span; logits (windows, tokens) are padded on the right."""
    rows = [row for _, row in sorted({window.pair: row for window, row in asked}.items(), key=lambda item: item[0])]
    passages = [row.passage for row in rows]
    windows = [window for window, _ in asked]
    found: list[PassageSpan | None] = []
    for begin in range(0, len(windows), _WINDOWS):
        part = windows[begin : begin + _WINDOWS]
        padded = pad_windows(part, 0, 1, left=False)
        own = np.s_[begin : begin + len(part), : padded.readable.shape[1]]
        found += window_spans(part, passages, padded, SpanLogits(logits.start[own], logits.end[own]), max_answer_tokens)
    return list(zip(rows, passage_spans(windows, found, len(rows)), strict=True))
