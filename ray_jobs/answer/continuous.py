"""Tokens by continuous batching: every answer joins the running batch at its next step (transformers).

Guaranteed: `open_batch` gives a batch that has answered a trial, or says why there is none; a batch that breaks ends
every answer in it with an error, and takes no more. Closing a feed takes its answer out of the batch. Its threads stop
with the process.

Not guaranteed: that sampling can be repeated (one random state serves the whole batch, so a request with a seed is not
taken), or that of two tokens which are equally likely to the last bit temperature 0 takes always the same.
"""

from __future__ import annotations

import itertools
import threading
import weakref
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from ray_jobs.answer.engine import Sampling
from ray_jobs.answer.feed import Feed
from ray_jobs.answer.sampling import is_greedy
from ray_jobs.errors import ModelError

_POLL_S = 0.1
_TRIAL_S = 120.0  # the first batch on a GPU may compile
_STOP_S = 5.0
_PAGE = 256


@dataclass
class _Asked:
    feed: Feed[int]
    given: int = 0  # tokens that were handed on


class ContinuousBatch:
    """A running batch of one model."""

    def __init__(self, manager: Any, vocabulary: int) -> None:
        self._manager = manager
        self._vocabulary = vocabulary
        self._names = itertools.count()
        self._asked: dict[str, _Asked] = {}
        self._lock = threading.Lock()
        started = threading.Event()
        self._dispatcher = threading.Thread(target=self._run, args=(started,), name="continuous-batch", daemon=True)
        self._dispatcher.start()
        started.wait()
        # A thread that still computes when the interpreter goes would abort the process.
        self._stop = weakref.finalize(self, _stopped, manager)

    def takes(self, tokens: int, sampling: Sampling) -> bool:
        """Whether it runs, can hold a prompt and answer of so many tokens, and can sample as asked."""
        # One answer that is larger than the cache would break the batch for all.
        blocks = self._manager.continuous_batching_config.num_blocks
        fits = blocks is None or tokens <= blocks * _PAGE
        return fits and (sampling.seed is None or is_greedy(sampling)) and bool(self._manager.is_running())

    def start(self, prompt: Sequence[int], sampling: Sampling, limit: int) -> Feed[int]:
        """Tokens of the answer to `prompt`, its end token included. Raises ModelError when the batch takes no more."""
        name = f"answer-{next(self._names)}"
        feed = Feed[int](lambda: self._cancel(name))
        with self._lock:
            self._asked[name] = _Asked(feed)
        chosen = self._manager.add_request(
            list(prompt), request_id=name, max_new_tokens=limit, streaming=True, **self._choice(sampling)
        )
        if chosen is None:
            self._forget(name)
            raise ModelError("continuous batching has stopped: restart the server, or set continuous=off")
        return feed

    def close(self) -> None:
        """End every answer and stop."""
        self._stop()
        self._dispatcher.join(_STOP_S)

    def _choice(self, sampling: Sampling) -> dict[str, float | int]:
        # The batch always draws: the most likely token is the only one of the best one.
        if is_greedy(sampling):
            return {"temperature": 1.0, "top_k": 1, "top_p": 1.0}
        return {"temperature": float(sampling.temperature), "top_k": self._vocabulary, "top_p": float(sampling.top_p)}

    def _run(self, started: threading.Event) -> None:
        # Threads inherit being daemons: started here, the manager's own cannot keep the process alive.
        self._manager.start()
        started.set()
        while self._manager.is_running():
            if (output := self._manager.get_result(timeout=_POLL_S)) is not None:
                self._hand_on(output)
        while (output := self._manager.get_result(timeout=0)) is not None:
            self._hand_on(output)
        with self._lock:
            left = list(self._asked.values())
            self._asked.clear()
        for asked in left:
            asked.feed.end(ModelError("continuous batching has stopped in the middle of the answer: ask again"))

    def _hand_on(self, output: Any) -> None:
        with self._lock:
            asked = self._asked.get(output.request_id)
        if asked is None:
            return
        for token in output.generated_tokens[asked.given :]:
            asked.feed.put(int(token))
        asked.given = len(output.generated_tokens)
        if output.is_finished():
            self._forget(output.request_id)
            failed = output.error and ModelError(f"continuous batching failed ({output.error}): see the log, ask again")
            asked.feed.end(failed or None)

    def _cancel(self, name: str) -> None:
        if self._forget(name):
            self._manager.cancel_request(name)

    def _forget(self, name: str) -> bool:
        with self._lock:
            return self._asked.pop(name, None) is not None


def _stopped(manager: Any) -> None:
    if manager.is_running():
        manager.stop(block=True, timeout=_STOP_S, hard_stop=True)


def open_batch(model: Any, num_blocks: int | None, max_batch_tokens: int | None) -> ContinuousBatch:
    """A batch of `model` that runs, with the end tokens of its generation configuration; the model is its own from now.

    Without sizes the cache takes what memory is free, which only a GPU can tell. Raises ModelError with the reason when
    the model or the machine cannot do it.
    """
    try:
        batch = _open(model, num_blocks, max_batch_tokens)
        trial = batch.start([model.generation_config.bos_token_id or 0] * 2, Sampling(), 2)
    except Exception as error:
        # Models differ in what their attention can do: any reason is one not to batch.
        raise ModelError(
            f"continuous batching does not run ({type(error).__name__}: {error}): set continuous=off"
        ) from error
    timer = threading.Timer(_TRIAL_S, trial.end, (ModelError("continuous batching: no answer to a trial"),))
    timer.daemon = True
    timer.start()
    try:
        list(trial)
    except ModelError:
        batch.close()
        raise
    finally:
        timer.cancel()
    return batch


def _open(model: Any, num_blocks: int | None, max_batch_tokens: int | None) -> ContinuousBatch:
    import copy

    from transformers import ContinuousBatchingConfig

    if model.config._attn_implementation == "eager":
        raise ModelError("attention 'eager' would be switched for everyone; expected sdpa or flash attention")
    drawing = copy.deepcopy(model.generation_config)
    # Values of their own make the processors that requests then set for themselves.
    drawing.update(do_sample=True, temperature=0.7, top_k=50, top_p=0.9)
    manager = model.init_continuous_batching(
        generation_config=drawing,
        continuous_batching_config=ContinuousBatchingConfig(
            page_size=_PAGE,
            num_blocks=num_blocks,
            max_batch_tokens=max_batch_tokens,
            per_request_processors=True,
            # Another attention might be fetched from the hub as compiled code.
            auto_switch_to_flash=False,
        ),
    )
    return ContinuousBatch(manager, model.config.get_text_config().vocab_size)
