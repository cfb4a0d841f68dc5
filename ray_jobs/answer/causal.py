"""A causal language model of transformers, with LoRA adapters beside each other, as a LanguageModel.

Guaranteed: weights come from safetensors alone and no code of a model's repository runs; tokens come as they are made;
cancelling ends the generation at its next token; an answer that reaches its limit says so. Requests for the base model
join one running batch where continuous batching runs; those for adapters, with a seed, or too long for the batch's
cache are generated side by side, up to `concurrent` at a time.

Not guaranteed: equal texts from both ways of generating, on GPUs above all. A model's own sampling defaults are not
used: a request says how to sample, or takes the most likely token.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ray_jobs.answer.causal_loading import end_tokens, load_causal
from ray_jobs.answer.chat_layout import ChatLayout
from ray_jobs.answer.continuous import ContinuousBatch, open_batch
from ray_jobs.answer.detokenizing import Detokenizer
from ray_jobs.answer.engine import Message, Sampling
from ray_jobs.answer.engine_config import EngineConfig
from ray_jobs.answer.feed import Feed
from ray_jobs.answer.generating import Generating
from ray_jobs.answer.language_model import FinishReason
from ray_jobs.answer.lora import with_adapter
from ray_jobs.answer.prompt import Reading
from ray_jobs.answer.protocol import Usage
from ray_jobs.answer.shared_weights import sharing_weights
from ray_jobs.answer.stops import StopFilter
from ray_jobs.errors import ModelError, UsageError
from ray_jobs.storage import Storage

_ANY_CONTEXT = 4096  # of models that state none
_log = logging.getLogger("tandem.answer")


class CausalModel:
    """A loaded model with its adapters."""

    def __init__(self, config: EngineConfig, model: Any, tokenizer: Any, adapted: Mapping[str, Any]) -> None:
        base = config.public_name
        self._models = {base: model, **{f"{base}:{name}": each for name, each in adapted.items()}}
        self._tokenizer = tokenizer
        self._layout = ChatLayout(tokenizer, config.chat_template)
        self._limit = config.max_new_tokens
        self.models = tuple(self._models)
        self.reading: Reading = self._layout.reading
        self.context_tokens = _context(config, model)
        self._ends = end_tokens(model)
        self._generating = Generating(config.concurrent)
        self._batch = _batch(config, model)

    @classmethod
    def load(cls, config: EngineConfig, store: Storage | None = None) -> CausalModel:
        """Find and load the model and its adapters. Raises NotFoundError, ModelError or UsageError as `load_engine`."""
        model, tokenizer = load_causal(config, store)
        adapted = {name: with_adapter(model, name, source, store) for name, source in config.adapters.items()}
        return cls(config, model, tokenizer, adapted)

    def answer_tokens(self, wanted: int | None) -> int:
        """As asked for, up to the configured limit and half of the context."""
        return min(wanted or self._limit, self._limit, self.context_tokens // 2)

    def write(self, messages: Sequence[Message], sampling: Sampling, model: str) -> CausalWriting:
        """Begin to answer."""
        prompt = self._layout.ids(messages)
        limit = self.answer_tokens(sampling.max_tokens)
        if self._batch is not None and model == self.models[0] and self._batch.takes(len(prompt) + limit, sampling):
            feed = self._batch.start(prompt, sampling, limit)
        else:
            feed = self._generating.start(self._models[model], prompt, sampling, limit)
        detokenizer = Detokenizer(lambda ids: self._tokenizer.decode(ids, skip_special_tokens=True))
        return CausalWriting(feed, detokenizer, self._ends, StopFilter(self._layout.stops), len(prompt), limit)

    def close(self) -> None:
        """Stop what runs; answers that are being written end with an error."""
        self._generating.close()
        if self._batch is not None:
            self._batch.close()


@dataclass
class CausalWriting:
    """Text from the tokens of one answer."""

    feed: Feed[int]
    detokenizer: Detokenizer
    ends: frozenset[int]
    stops: StopFilter  # of the layout; those of the request are none of the model's concern
    prompt_tokens: int
    limit: int
    tokens: int = 0
    finish_reason: FinishReason = "stop"

    def cancel(self) -> None:
        """Write no more."""
        self.feed.close()

    @property
    def usage(self) -> Usage:
        """Tokens read and written so far, the end token included."""
        return Usage(self.prompt_tokens, self.tokens)

    def __iter__(self) -> Iterator[str]:
        try:
            for token in self.feed:
                self.tokens += 1
                if token in self.ends:
                    break
                if text := self.stops.feed(self.detokenizer.add(token)):
                    yield text
                if self.stops.stopped:
                    return
                if self.tokens == self.limit:
                    self.finish_reason = "length"
            if text := self.stops.feed(self.detokenizer.finish()) + self.stops.finish():
                yield text
        finally:
            self.feed.close()


def _context(config: EngineConfig, model: Any) -> int:
    stated = getattr(model.config.get_text_config(), "max_position_embeddings", None)
    if config.context_tokens is None:
        return int(stated or _ANY_CONTEXT)
    if stated and config.context_tokens > stated:
        raise UsageError(f"context_tokens={config.context_tokens}: {config.model!r} reads {stated}; lower it")
    return config.context_tokens


def _batch(config: EngineConfig, model: Any) -> ContinuousBatch | None:
    if config.continuous == "off":
        return None
    sized = config.num_blocks is not None and config.max_batch_tokens is not None
    if model.device.type == "cpu" and not sized:
        if config.continuous == "on":
            raise UsageError("continuous=on without a GPU: give num_blocks and max_batch_tokens, or set continuous=off")
        return None
    try:
        # A batch and `generate` on the same modules give wrong tokens.
        return open_batch(sharing_weights(model), config.num_blocks, config.max_batch_tokens)
    except ModelError as error:
        if config.continuous == "on":
            raise
        _log.warning("%s: answers are generated one by one", error)
        return None
