"""A language model behind an OpenAI-compatible endpoint (vLLM, Ray Serve LLM, a provider), as a LanguageModel.

Guaranteed: text comes as the endpoint streams it; cancelling closes the connection at once, even before the first byte;
whatever the endpoint does wrong is a ModelError that says what to do, and in which its key never stands. The key comes
from the environment variable that the configuration names and is read once.

Not guaranteed: exact counts of prompt tokens, since the endpoint alone knows its tokeniser: a prompt is taken to be
somewhat longer than it is. Nothing is tried again: the one who asks has a deadline, and knows what is left of it.
"""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import Future
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from ray_jobs.answer.engine import Message, Sampling
from ray_jobs.answer.engine_config import EngineConfig
from ray_jobs.answer.feed import Feed
from ray_jobs.answer.language_model import FinishReason
from ray_jobs.answer.prompt import Reading
from ray_jobs.answer.protocol import Usage
from ray_jobs.answer.upstream_errors import explained
from ray_jobs.errors import ModelError, UsageError

if TYPE_CHECKING:
    from openai import AsyncOpenAI

_CONTEXT = 8192  # of endpoints for which none is configured
_BYTES_A_TOKEN = 3  # about four of English, three of Chinese: a little more tokens than there are
_TOKENS_A_TURN = 5
# How the special tokens of the usual models begin; the endpoint's own are not known.
_RESERVED = ("<|", "<｜", "<s>", "</s>", "[INST]", "[/INST]", "<start_of_turn>", "<end_of_turn>", "<think>", "</think>")


class UpstreamModel:
    """A connection to an endpoint; all its requests run on one event loop in a thread of its own."""

    def __init__(self, config: EngineConfig, client: AsyncOpenAI, key: str) -> None:
        base = config.public_name
        self._names = {base: str(config.model), **{f"{base}:{name}": own for name, own in config.adapters.items()}}
        self._client = client
        self._key = key
        self._config = config
        self.models = tuple(self._names)
        self.reading = Reading(_estimated_tokens, _RESERVED)
        self.context_tokens = config.context_tokens or _CONTEXT
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="upstream", daemon=True)
        self._thread.start()

    @classmethod
    def connect(cls, config: EngineConfig) -> UpstreamModel:
        """A client of the endpoint; nothing is sent yet. Raises UsageError when the key's variable is not set."""
        from openai import AsyncOpenAI, Timeout

        key = _key(config)
        timeout = Timeout(config.silence_s, connect=config.connect_s)
        client = AsyncOpenAI(api_key=key or "none", base_url=config.base_url, timeout=timeout, max_retries=0)
        # These would be read from the environment and sent to whoever runs the endpoint.
        client.organization = client.project = None
        return cls(config, client, key)

    def answer_tokens(self, wanted: int | None) -> int:
        """As asked for, up to the configured limit and half of the context."""
        return min(wanted or self._config.max_new_tokens, self._config.max_new_tokens, self.context_tokens // 2)

    def write(self, messages: Sequence[Message], sampling: Sampling, model: str) -> UpstreamWriting:
        """Begin to answer."""
        name = self._names[model]
        wanted: dict[str, Any] = {"temperature": sampling.temperature, "top_p": sampling.top_p}
        if sampling.seed is not None:
            wanted["seed"] = sampling.seed
        request = {
            "model": name,
            "messages": [{"role": message.role, "content": message.content} for message in messages],
            "max_tokens": self.answer_tokens(sampling.max_tokens),
            "stream": True,
            "stream_options": {"include_usage": True},
            **wanted,
        }
        writing = UpstreamWriting()
        writing.run(asyncio.run_coroutine_threadsafe(self._run(request, writing), self._loop))
        return writing

    def close(self) -> None:
        """Close every connection."""
        asyncio.run_coroutine_threadsafe(self._stop(), self._loop).result(timeout=5)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(timeout=5)
        self._loop.close()

    async def _run(self, request: dict[str, Any], writing: UpstreamWriting) -> None:
        try:
            async with await self._client.chat.completions.create(**request) as stream:
                async for chunk in stream:
                    writing.take(chunk)
        except Exception as error:
            # The client and its transport raise errors of many kinds: each becomes one line for the one who waits.
            writing.end(explained(error, _shown(self._config), request["model"], self._config.api_key_env, self._key))
        except asyncio.CancelledError:
            writing.end(ModelError(f"upstream {_shown(self._config)}: the connection was closed"))
            raise
        else:
            early = ModelError(f"upstream {_shown(self._config)}: ended in the middle of an answer: ask again")
            writing.end(None if writing.is_whole else early)

    async def _stop(self) -> None:
        running = [task for task in asyncio.all_tasks() if task is not asyncio.current_task()]
        for task in running:
            task.cancel()
        await asyncio.gather(*running, return_exceptions=True)
        await self._client.close()


class UpstreamWriting:
    """Text from the chunks of one answer."""

    def __init__(self) -> None:
        self._feed = Feed[str](self._hang_up)
        self._running: Future[None] | None = None
        self.finish_reason: FinishReason = "stop"
        self.usage: Usage | None = None
        self.is_whole = False

    def __iter__(self) -> Iterator[str]:
        return iter(self._feed)

    def cancel(self) -> None:
        """Write no more: the connection is closed."""
        self._feed.close()

    def run(self, running: Future[None]) -> None:
        """The request that writes."""
        self._running = running

    def take(self, chunk: Any) -> None:
        """The next chunk of the endpoint's answer."""
        if chunk.usage is not None:
            self.usage = Usage(chunk.usage.prompt_tokens, chunk.usage.completion_tokens)
        for choice in chunk.choices[:1]:
            if choice.delta.content:
                self._feed.put(choice.delta.content)
            if choice.finish_reason is not None:
                self.is_whole = True
                self.finish_reason = "length" if choice.finish_reason == "length" else "stop"

    def end(self, error: ModelError | None) -> None:
        """There are no more chunks."""
        self._feed.end(error)

    def _hang_up(self) -> None:
        if self._running is not None:
            self._running.cancel()


def _estimated_tokens(messages: Sequence[Message]) -> int:
    sizes = (len(message.content.encode(errors="replace")) for message in messages)
    return sum(size // _BYTES_A_TOKEN + _TOKENS_A_TURN for size in sizes)


def _key(config: EngineConfig) -> str:
    if config.api_key_env is None:
        return ""
    key = os.environ.get(config.api_key_env, "").strip()
    if not key:
        raise UsageError(f"api_key_env={config.api_key_env}: the environment variable is not set; export it")
    return key


def _shown(config: EngineConfig) -> str:
    """The endpoint's address without anything secret in it."""
    parts = urlsplit(str(config.base_url))
    return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}"
