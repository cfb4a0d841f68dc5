"""Tokens by `generate`: a bounded number of answers side by side, each in a thread of its own.

Guaranteed: a feed ends when the model ends the answer, at `limit` tokens, or one token after it is closed; an answer
beyond the bound waits, and one that is closed while it waits is never begun. Not guaranteed: that answers side by side
are faster than one after the other; they share the same cores. Models whose modules keep state from one forward pass to
the next (dynamic RoPE) must be run with concurrent=1.
"""

from __future__ import annotations

import copy
import logging
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from ray_jobs.answer.engine import Sampling
from ray_jobs.answer.feed import Feed
from ray_jobs.answer.sampling import Draw, is_greedy
from ray_jobs.errors import ModelError

_log = logging.getLogger("tandem.answer")


class Generating:
    """Runs models, as many answers at a time as `concurrent` says."""

    def __init__(self, concurrent: int) -> None:
        self._threads = ThreadPoolExecutor(concurrent, thread_name_prefix="generate")

    def start(self, model: Any, prompt: Sequence[int], sampling: Sampling, limit: int) -> Feed[int]:
        """Tokens of the answer to `prompt`, its end token included."""
        feed = Feed[int]()
        self._threads.submit(self._run, model, list(prompt), sampling, limit, feed)
        return feed

    def close(self) -> None:
        """Begin no more answers."""
        self._threads.shutdown(wait=False, cancel_futures=True)

    def _settings(self, model: Any, limit: int) -> Any:
        settings = copy.deepcopy(model.generation_config)
        settings.max_new_tokens = limit
        return settings

    def _run(self, model: Any, prompt: list[int], sampling: Sampling, limit: int, feed: Feed[int]) -> None:
        import torch

        if feed.closed:
            return
        ids = torch.tensor([prompt], device=model.device)
        try:
            model.generate(
                ids,
                attention_mask=torch.ones_like(ids),
                generation_config=self._settings(model, limit),
                logits_processor=[] if is_greedy(sampling) else [Draw(sampling)],
                stopping_criteria=[_Closed(feed)],
                streamer=_Tokens(feed),
            )
        except Exception as error:
            # Whatever a model does wrong inside, the one who waits for its tokens must learn of it.
            _log.exception("a generation failed")
            feed.end(ModelError(f"the language model failed ({type(error).__name__}: {error}): see the log"))


class _Tokens:
    """A streamer of transformers that hands on tokens; the first call brings the prompt."""

    def __init__(self, feed: Feed[int]) -> None:
        self._feed = feed
        self._in_prompt = True

    def put(self, value: Any) -> None:
        """A token, or the prompt."""
        if not self._in_prompt:
            self._feed.put(int(value.reshape(-1)[0]))
        self._in_prompt = False

    def end(self) -> None:
        """The end of the answer."""
        self._feed.end()


class _Closed:
    """A stopping criterion of transformers: nobody wants the answer any more."""

    def __init__(self, feed: Feed[int]) -> None:
        self._feed = feed

    def __call__(self, input_ids: Any, scores: Any, **kwargs: Any) -> Any:
        """Whether to stop, for each row."""
        import torch

        return torch.full((input_ids.shape[0],), self._feed.closed, dtype=torch.bool, device=input_ids.device)
