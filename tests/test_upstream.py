from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from upstream_server import KEY, WORDS, Endpoint, serving

from ray_jobs.answer.engine import Message, Request, Sampling
from ray_jobs.answer.engine_config import EngineConfig, load_engine
from ray_jobs.answer.grounding import problems
from ray_jobs.answer.protocol import Answer, Final, Passage, TextDelta, Usage, complete
from ray_jobs.answer.upstream import UpstreamModel
from ray_jobs.answer.written import WritingEngine
from ray_jobs.errors import ModelError, NotFoundError, UsageError

QUESTION = "How many CPUs does a task reserve?"
TEXT = "A task reserves one CPU. Actors keep state."
SOURCES = [Passage(1, "d", "d@0#0", "Tasks", "", None, "t.md", 0, len(TEXT), TEXT, 1.0)]


@pytest.fixture(scope="module")
def endpoint() -> Iterator[Endpoint]:
    with serving() as endpoint:
        yield endpoint


@pytest.fixture
def connect(endpoint: Endpoint, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., WritingEngine]]:
    """Connects an engine; its thread ends with the test."""
    monkeypatch.setenv("UPSTREAM_KEY", KEY)
    for name in ("OPENAI_ORG_ID", "OPENAI_PROJECT_ID"):
        monkeypatch.setenv(name, "private")
    connected: list[UpstreamModel] = []

    def connect(model: str = "talker", **changes: object) -> WritingEngine:
        settings = {"engine": "openai", "model": model, "base_url": endpoint.url, "api_key_env": "UPSTREAM_KEY"}
        connected.append(UpstreamModel.connect(EngineConfig.model_validate({**settings, "name": "base", **changes})))
        return WritingEngine(connected[-1], 0.5)

    yield connect
    for upstream in connected:
        upstream.close()


def request(model: str = "base", **sampling: Any) -> Request:
    return Request(model, (Message("user", QUESTION),), Sampling(**sampling))


def answer(engine: WritingEngine, model: str = "base", **sampling: Any) -> Answer:
    written = complete(engine.generator(request(model, **sampling)), QUESTION, SOURCES)
    assert written is not None
    return written


def until(condition: Callable[[], bool], seconds: float = 20) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        threading.Event().wait(0.005)


def test_an_answer_is_streamed_and_cited(connect: Callable[..., WritingEngine]) -> None:
    events = list(connect().generator(request()).stream(QUESTION, SOURCES))
    final = events[-1]
    assert isinstance(final, Final)
    assert final.answer.text == "A task reserves one CPU [1]. More words follow."
    assert [citation.quote for citation in final.answer.citations] == ["A task reserves one CPU."]
    assert problems(final.answer.text, final.answer.citations, SOURCES) == []
    assert final.answer.usage == Usage(40, len(WORDS))
    assert final.answer.finish_reason == "stop"
    assert sum(isinstance(event, TextDelta) for event in events) > 5


def test_the_endpoint_gets_prompt_sampling_and_key_and_nothing_private(
    endpoint: Endpoint, connect: Callable[..., WritingEngine]
) -> None:
    answer(connect(), temperature=0.5, top_p=0.9, seed=3, max_tokens=20)
    body = endpoint.asked[-1]
    assert body["messages"][0]["role"] == "system"
    assert TEXT in body["messages"][1]["content"]
    sent = {name: body[name] for name in ("temperature", "top_p", "seed", "max_tokens", "stream")}
    assert sent == {"temperature": 0.5, "top_p": 0.9, "seed": 3, "max_tokens": 20, "stream": True}
    assert endpoint.headers[-1]["authorization"] == f"Bearer {KEY}"
    assert "private" not in endpoint.headers[-1].values()


def test_adapters_are_models_of_the_endpoint(endpoint: Endpoint, connect: Callable[..., WritingEngine]) -> None:
    engine = connect(adapters={"law": "talker-law"})
    assert engine.models == ("base", "base:law")
    answer(engine, "base:law")
    assert endpoint.asked[-1]["model"] == "talker-law"
    with pytest.raises(NotFoundError, match="expected one of base, base:law"):
        engine.generator(request("base:art"))


def test_a_follow_up_is_condensed_by_the_model(endpoint: Endpoint, connect: Callable[..., WritingEngine]) -> None:
    turns = [Message("user", "How does Serve scale?"), Message("assistant", "By load.<|end|>"), Message("user", "Why?")]
    assert connect("condenser").condense(turns, "base") == "Why does Serve scale?"
    asked = endpoint.asked[-1]
    assert (asked["temperature"], asked["max_tokens"]) == (0.0, 64)
    assert "assistant: By load.< |end|>" in asked["messages"][1]["content"]
    # A conversation that the model cannot hold is condensed by rule, without asking it.
    seen = len(endpoint.asked)
    long = [Message("user", "How does Serve scale? " * 40), *turns[1:]]
    assert connect("condenser", context_tokens=128).condense(long, "base") == "Why? Serve scale"
    assert len(endpoint.asked) == seen


def test_white_space_before_an_answer_is_left_out(connect: Callable[..., WritingEngine]) -> None:
    assert answer(connect("indented"), stop=("\n",)).text == "A task reserves one CPU [1]. More words follow."


def test_an_answer_that_was_cut_off_says_so(connect: Callable[..., WritingEngine]) -> None:
    written = answer(connect(), max_tokens=3)
    assert (written.text, written.finish_reason) == ("A task reserves one", "length")


def test_a_stop_string_ends_the_answer_and_the_connection(
    endpoint: Endpoint, connect: Callable[..., WritingEngine]
) -> None:
    before = endpoint.hung_up
    assert answer(connect("endless"), stop=("].",)).text == "A task reserves one CPU [1"
    until(lambda: endpoint.hung_up == before + 1 and endpoint.open == 0)


@pytest.mark.parametrize("model", ["endless", "mute"])
def test_cancelling_closes_the_connection_at_once(
    endpoint: Endpoint, connect: Callable[..., WritingEngine], model: str
) -> None:
    before, asked = endpoint.hung_up, len(endpoint.asked)
    generator = connect(model).generator(request())
    events: list[object] = []
    reader = threading.Thread(target=lambda: events.extend(generator.stream(QUESTION, SOURCES)))
    reader.start()
    until(lambda: len(endpoint.asked) > asked and endpoint.open > 0)
    generator.cancel()
    reader.join(5)
    assert not reader.is_alive()
    assert not any(isinstance(event, Final) for event in events)
    until(lambda: endpoint.hung_up == before + 1 and endpoint.open == 0)


def test_answers_come_side_by_side(connect: Callable[..., WritingEngine]) -> None:
    engine, slow = connect(), connect("endless").generator(request())
    waiting = slow.stream(QUESTION, SOURCES)
    next(waiting)
    with ThreadPoolExecutor(8) as threads:
        texts = set(threads.map(lambda _: answer(engine).text, range(8)))
    slow.cancel()
    assert texts == {"A task reserves one CPU [1]. More words follow."}
    assert list(waiting) == []


@pytest.mark.parametrize(
    ("model", "said"),
    [
        ("status-401", "refuses the key in UPSTREAM_KEY (status 401): get a valid one"),
        ("status-403", "refuses the key in UPSTREAM_KEY (status 403)"),
        ("status-404", "has no model 'status-404' at this address (status 404): check model and base_url"),
        ("status-429", "is full, or its limit for the key is reached (status 429): try again later"),
        ("status-400", "refuses the request (status 400: Error code: 400"),
        ("status-500", "failed (status 500): try again"),
        ("error-inside", "failed in the middle of an answer (engine died, key ***): ask again"),
        ("half", "ended in the middle of an answer: ask again"),
    ],
)
def test_what_goes_wrong_is_said_in_one_line_without_the_key(
    endpoint: Endpoint, connect: Callable[..., WritingEngine], model: str, said: str
) -> None:
    with pytest.raises(ModelError) as caught:
        answer(connect(model))
    message = str(caught.value)
    assert message.startswith(f"upstream {endpoint.url}: {said}")
    assert "\n" not in message
    shown = str(caught.getrepr(showlocals=False))
    assert KEY not in message
    assert KEY not in shown


def test_a_wrong_key_is_named_by_its_variable(
    connect: Callable[..., WritingEngine], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("UPSTREAM_KEY", "sk-wrong-and-secret")
    with pytest.raises(ModelError, match=r"refuses the key in UPSTREAM_KEY") as caught:
        answer(connect())
    assert "sk-wrong" not in str(caught.value)


def test_without_a_key_none_of_the_users_is_sent(
    endpoint: Endpoint, connect: Callable[..., WritingEngine], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "sk-of-another-service")
    assert answer(connect(api_key_env=None)).usage is not None
    assert endpoint.headers[-1]["authorization"] == "Bearer none"


def test_a_key_that_is_not_set_is_a_mistake_of_the_configuration(connect: Callable[..., WritingEngine]) -> None:
    with pytest.raises(UsageError, match="api_key_env=NO_SUCH_KEY: the environment variable is not set"):
        connect(api_key_env="NO_SUCH_KEY")


def test_silence_ends_with_an_error(connect: Callable[..., WritingEngine]) -> None:
    for model in ("mute", "endless"):
        with pytest.raises(ModelError, match=r"was silent for too long: .*raise silence_s"):
            answer(connect(model, silence_s=0.2))


def test_an_endpoint_that_is_not_there_is_named_without_its_password(connect: Callable[..., WritingEngine]) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        port = taken.getsockname()[1]
    with pytest.raises(ModelError) as caught:
        answer(connect(base_url=f"http://user:pass@127.0.0.1:{port}/v1"))
    assert str(caught.value) == (
        f"upstream http://127.0.0.1:{port}/v1: cannot be reached: check base_url, and that it runs"
    )


def test_a_closed_engine_ends_what_it_is_writing(endpoint: Endpoint, monkeypatch: pytest.MonkeyPatch) -> None:
    upstream = UpstreamModel.connect(EngineConfig(engine="openai", model="endless", base_url=endpoint.url))
    stream = WritingEngine(upstream, 0.5).generator(request("endless")).stream(QUESTION, SOURCES)
    next(stream)
    upstream.close()
    with pytest.raises(ModelError, match="the connection was closed"):
        list(stream)


def test_a_prompt_is_never_taken_for_shorter_than_it_is(connect: Callable[..., WritingEngine]) -> None:
    engine = connect(context_tokens=64 + 200, max_new_tokens=64)
    with pytest.raises(UsageError, match="expected at most"):
        complete(engine.generator(request()), "word " * 300, SOURCES)


def test_the_engine_is_loaded_by_its_name(endpoint: Endpoint) -> None:
    engine = load_engine(EngineConfig(engine="openai", model="org/talker", base_url=endpoint.url))
    assert engine.models == ("talker",)
    assert not engine.needs_passages
