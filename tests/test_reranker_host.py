"""The reranker's deployment class, without Ray."""

from __future__ import annotations

import asyncio
import dataclasses
import threading
from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from ray_jobs.errors import ModelError, TandemError, UsageError
from ray_jobs.models.fake_pairs import FakePairEngine, fake_pair_model
from ray_jobs.models.pairs import PairBatch
from ray_jobs.models.reranker import Reranker, RerankerConfig
from serve.errors import DeadlineError
from serve.messages import RerankCall, RerankReply
from serve.reranker import RerankerHost, tokens_of

CONFIG = RerankerConfig(model="any", engine="fake")
RERANKER = Reranker.load(CONFIG)
WORD = st.sampled_from(["cat", "dog", "fox", "bee"])
TEXT = st.lists(WORD, min_size=1, max_size=9).map(" ".join)
CALL = st.builds(RerankCall, query=TEXT, texts=st.lists(TEXT, max_size=6).map(tuple), budget_s=st.just(60.0))


def call(query: str, *texts: str, budget_s: float = 60.0) -> RerankCall:
    return RerankCall(query, texts, budget_s)


def scores(calls: Sequence[RerankCall], reranker: Reranker = RERANKER) -> list[RerankReply | TandemError]:
    return asyncio.run(RerankerHost(reranker).scores(calls))


def with_engine(engine: FakePairEngine) -> Reranker:
    return Reranker(dataclasses.replace(fake_pair_model(), engine=engine), CONFIG)


class Counting(FakePairEngine):
    def __init__(self) -> None:
        self.rows: list[int] = []

    def forward(self, batch: PairBatch) -> NDArray[np.float32]:
        self.rows.append(len(batch.input_ids))
        return super().forward(batch)


class Waiting(FakePairEngine):
    """Holds its passes until they are released."""

    def __init__(self) -> None:
        self.entered = threading.Event()
        self.release = threading.Event()

    def forward(self, batch: PairBatch) -> NDArray[np.float32]:
        self.entered.set()
        assert self.release.wait(30)
        return super().forward(batch)


class Meeting(FakePairEngine):
    """Two passes side by side would meet here."""

    def __init__(self) -> None:
        self.barrier = threading.Barrier(2)
        self.met = False

    def forward(self, batch: PairBatch) -> NDArray[np.float32]:
        try:
            self.barrier.wait(0.3)
            self.met = True
        except threading.BrokenBarrierError:
            self.barrier.reset()
        return super().forward(batch)


class Failing(FakePairEngine):
    def forward(self, batch: PairBatch) -> NDArray[np.float32]:
        return super().forward(batch) * np.float32("nan")


@given(st.lists(CALL, max_size=6))
def test_calls_in_one_batch_get_what_each_would_get_alone(calls: list[RerankCall]) -> None:
    replies = scores(calls)
    assert len(replies) == len(calls)
    for one, reply in zip(calls, replies, strict=True):
        alone = RERANKER.score_pairs([(one.query, text) for text in one.texts])
        assert reply == RerankReply("fake", tuple(alone.scores.tolist()), int(alone.tokens.sum()))


def test_the_pairs_of_all_calls_go_in_one_pass() -> None:
    engine = Counting()
    scores([call("cat", "cat", "dog"), call("fox", "fox"), call("bee", "a", "b", "c")], with_engine(engine))
    assert engine.rows == [6]


def test_a_query_that_cannot_be_scored_does_not_harm_those_beside_it() -> None:
    first, empty, long, last = scores(
        [call("cat", "cat"), call(" ", "cat"), call("cat " * 300, "cat"), call("dog", "cat")]
    )
    assert isinstance(first, RerankReply)
    assert first.scores == (1.0,)
    assert isinstance(empty, UsageError)
    assert isinstance(long, UsageError)
    assert "shorten the query" in str(long)
    assert isinstance(last, RerankReply)
    assert last.scores == (0.0,)


def test_a_model_that_fails_is_the_error_of_every_call_that_needed_it() -> None:
    replies = scores([call("cat", "cat"), call("", "cat")], with_engine(Failing()))
    assert [type(reply) for reply in replies] == [ModelError, UsageError]


def test_a_call_whose_time_is_over_is_not_scored() -> None:
    engine = Counting()
    late, on_time = scores([call("cat", "cat", budget_s=0.0), call("cat", "cat")], with_engine(engine))
    assert isinstance(late, DeadlineError)
    assert isinstance(on_time, RerankReply)
    assert engine.rows == [1]


def test_a_call_that_waited_too_long_for_another_pass_is_not_scored() -> None:
    engine, now = Waiting(), [0.0]
    host = RerankerHost(with_engine(engine), clock=lambda: now[0])

    async def run() -> tuple[list[RerankReply | TandemError], list[RerankReply | TandemError]]:
        slow = asyncio.create_task(host.scores([call("cat", "cat")]))
        await asyncio.to_thread(engine.entered.wait, 30)
        waiting = asyncio.create_task(host.scores([call("cat", "cat", budget_s=5.0), call("cat", "cat")]))
        await asyncio.sleep(0)  # received
        now[0] = 6.0
        engine.release.set()
        return await slow, await waiting

    (slow,), (late, on_time) = asyncio.run(run())
    assert isinstance(slow, RerankReply)
    assert isinstance(late, DeadlineError)
    assert isinstance(on_time, RerankReply)


def test_one_pass_runs_at_a_time() -> None:
    engine = Meeting()
    host = RerankerHost(with_engine(engine))

    async def run() -> None:
        await asyncio.gather(host.scores([call("cat", "cat")]), host.scores([call("dog", "dog")]))

    asyncio.run(run())
    assert not engine.met


def test_the_event_loop_runs_on_while_a_pass_runs() -> None:
    engine = Waiting()
    host = RerankerHost(with_engine(engine))

    async def run() -> list[RerankReply | TandemError]:
        task = asyncio.create_task(host.scores([call("cat", "cat")]))
        await asyncio.to_thread(engine.entered.wait, 30)
        assert not task.done()
        engine.release.set()
        return await task

    assert isinstance(asyncio.run(run())[0], RerankReply)


def test_no_call_gives_no_reply() -> None:
    assert scores([]) == []


def test_the_host_names_its_model() -> None:
    assert RerankerHost(RERANKER).model == "fake"


def test_the_estimate_of_tokens_is_near_for_plain_text_and_cuts_long_ones() -> None:
    text = "The number of replicas follows the number of ongoing requests. " * 3
    assert tokens_of(call("How does it scale?", text)) == pytest.approx(45, rel=0.35)
    assert tokens_of(call("cat", "word " * 10_000)) == 512
    assert tokens_of(call("cat", "word " * 10_000), longest=128) == 128


@given(CALL, TEXT)
def test_the_estimate_grows_with_every_text(one: RerankCall, text: str) -> None:
    more = dataclasses.replace(one, texts=(*one.texts, text))
    assert tokens_of(more) > tokens_of(one)


def test_a_text_that_is_no_valid_unicode_can_be_estimated() -> None:
    assert tokens_of(call("cat\ud800", "dog\udfff")) > 0
