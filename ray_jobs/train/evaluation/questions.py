"""An extractive reader before and after: F1 and exact match of each question, and what it answers.

Guaranteed: passages are read as ray_jobs.models.reader reads them, by windows of the length that was trained; only
questions with an answer count, and the best span counts whatever its margin, as in ray_jobs.models.reader_evaluation.
Not guaranteed: anything about refusing, which needs a threshold that a base without a head does not have.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from ray_jobs.models.batching import token_budget_batches
from ray_jobs.models.reader_batch import pad_windows
from ray_jobs.models.reader_metrics import exact_match, f1
from ray_jobs.models.reader_spans import PassageSpan, passage_spans, window_spans
from ray_jobs.models.reader_torch import TorchReaderEngine
from ray_jobs.models.reader_windows import WindowTokenizer
from ray_jobs.train.evaluation.scores import Columns, Sample, Scores, taken
from ray_jobs.train.evaluation.tuned import Sides, TwoNetworks, is_adapter, over
from ray_jobs.train.methods import Task
from ray_jobs.train.methods.reader import network_of, takes_segments, tokenizer_of, window_length
from ray_jobs.train.span_targets import QuestionRow, rows_of

_TOKENS = {"cpu": 4096, "cuda": 65536}  # of a batch
_MULTIPLE = 64
_ROWS = 1024  # questions at a time


class ReaderJudge:
    """A reader and what it was tuned to; a base without a head has the one it starts from."""

    def __init__(self, task: Task, tuned: Path, start: Path | None = None) -> None:
        """`tuned` is a folder with an adapter over `task.base`, or a whole model; `start` has what it began as."""
        from transformers import set_seed

        tokenizer = tokenizer_of(task)
        self._tokens = WindowTokenizer(tokenizer.backend_tokenizer.to_str(), tokenizer.cls_token_id)
        self._pad = int(tokenizer.pad_token_id)
        self._length, _ = window_length(task)
        self._settings = task.config.reader
        self._budget = max(_TOKENS[task.place.device], self._length)
        self._segments = takes_segments(tokenizer)
        bare = replace(task, config=task.config.model_copy(update={"lora": None}))

        def network(adapter: Path | None) -> Any:
            set_seed(task.config.seed)
            found = network_of(bare)
            # PEFT's own class for this task does not hand the network its segments.
            found = found if adapter is None else over(found, adapter).get_base_model()
            return found.to(task.place.device).eval()

        def base() -> Any:
            return network(start)

        def after() -> Any:
            if is_adapter(tuned):
                return network(tuned)
            return network_of(replace(bare, base=tuned)).to(task.place.device).eval()

        self._models: Sides = TwoNetworks(base, after, task.place.device)

    def scores(self, rows: Columns, kind: str) -> list[Scores]:
        """F1 and exact match of each question that has an answer."""
        asked = [row for row in rows_of(rows) if row.answers]
        if not asked:
            return []
        said = {
            side: [_text(row, span) for row, span in zip(asked, self._spans(asked, side), strict=True)]
            for side in (False, True)
        }
        found = []
        for name, measure in (("f1", f1), ("exact_match", exact_match)):
            before, after = (
                np.array([measure(text, row.answers) for text, row in zip(said[side], asked, strict=True)])
                for side in (False, True)
            )
            found.append(Scores(name, before, after))
        return found

    def samples(self, rows: Columns, kind: str, places: Sequence[int]) -> list[Sample]:
        """The best span of each passage, with its margin: whether it is answered is the threshold's to say."""
        asked = rows_of(taken(rows, places))
        before, after = (self._spans(asked, side) for side in (False, True))
        return [
            Sample(
                f"{row.question}\n\n{row.passage}",
                row.answers[0] if row.answers else "",
                _with_margin(row, old),
                _with_margin(row, new),
            )
            for row, old, new in zip(asked, before, after, strict=True)
        ]

    def _spans(self, rows: Sequence[QuestionRow], tuned: bool) -> list[PassageSpan | None]:
        with self._models.state(tuned) as network:
            engine = TorchReaderEngine(network, self._segments, "float32")
            return [
                span for start in range(0, len(rows), _ROWS) for span in self._read(rows[start : start + _ROWS], engine)
            ]

    def _read(self, rows: Sequence[QuestionRow], engine: TorchReaderEngine) -> list[PassageSpan | None]:
        best: list[PassageSpan | None] = [None] * len(rows)
        # A question that leaves no room for a passage has no answer.
        fitting = [place for place, row in enumerate(rows) if self._tokens.overhead(row.question) < self._length]
        passages = [rows[place].passage for place in fitting]
        pairs = [(rows[place].question, rows[place].passage) for place in fitting]
        windows = self._tokens.windows(pairs, self._length, self._settings.stride)
        found: list[PassageSpan | None] = [None] * len(windows)
        for places in token_budget_batches([len(window.ids) for window in windows], self._budget, _MULTIPLE):
            part = [windows[place] for place in places]
            padded = pad_windows(part, self._pad, _MULTIPLE, left=False)
            spans = window_spans(part, passages, padded, engine.forward(padded.batch), self._settings.max_answer_tokens)
            for place, span in zip(places, spans, strict=True):
                found[place] = span
        for place, span in zip(fitting, passage_spans(windows, found, len(fitting)), strict=True):
            best[place] = span
        return best


def _text(row: QuestionRow, span: PassageSpan | None) -> str:
    return "" if span is None else row.passage[span.start : span.end]


def _with_margin(row: QuestionRow, span: PassageSpan | None) -> str:
    return "" if span is None else f"{_text(row, span)}\n\nmargin {span.margin:.2f}, answered from the threshold on"
