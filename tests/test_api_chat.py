"""Chat completions, by OpenAI's own client where it has the call."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from fake_backend import PARTIAL, FakeBackend, cite, make_hits, quote
from live_api import CHAT, OPEN, LiveApi, live

from ray_jobs.answer.protocol import Answer, Cited, Final, TextDelta
from serve.errors import BusyError, DeadlineError, UnavailableError
from serve.messages import GenerateCall

pytest_plugins = ["api_fixtures"]

MESSAGES: Any = CHAT["messages"]


def ask(api: LiveApi, **beside: Any) -> dict[str, Any]:
    response = api.post("/v1/chat/completions", {**CHAT, **beside})
    assert response.status_code == 200, response.text
    answer: dict[str, Any] = response.json()
    return answer


def test_openais_client_reads_a_whole_answer(api: LiveApi) -> None:
    answer = api.openai().chat.completions.create(model="base", messages=MESSAGES)
    assert answer.choices[0].message.content == "The manifest is written last. [1]"
    assert answer.choices[0].finish_reason == "stop"
    assert answer.usage is not None
    assert (answer.usage.prompt_tokens, answer.usage.completion_tokens, answer.usage.total_tokens) == (90, 7, 97)
    assert answer.model == "base"


def test_an_answer_shows_what_it_was_made_from(api: LiveApi) -> None:
    answer = ask(api)
    (citation,) = answer["citations"]
    assert citation["quote"] == "The manifest is written last."
    assert citation["title"] == "Title 0"
    source = answer["sources"][citation["number"] - 1]
    offset = source["start"]
    assert source["text"][citation["start"] - offset : citation["end"] - offset] == citation["quote"]
    assert [source["number"] for source in answer["sources"]] == list(range(1, 9))
    assert source["scores"] == {"dense": 0.5, "lexical": 2.0}
    assert answer["snapshot"] == {"index": "docs", "number": 7}
    assert answer["grounded"] is True
    assert answer["coverage"]["documents"] == 1.0
    assert answer["degraded"] == []


@pytest.mark.parametrize("stream", [False, True])
def test_an_answer_that_was_cut_off_says_so_and_one_without_a_language_model_took_no_tokens(
    api: LiveApi, stream: bool
) -> None:
    cut = Answer("The man", (), grounded=False, finish_reason="length")
    api.backend.script = lambda call: [TextDelta("The man"), Final(cut)]
    beside = {"stream": True, "stream_options": {"include_usage": True}} if stream else {}
    told = api.post("/v1/chat/completions", {**CHAT, **beside}).text
    assert '"finish_reason":"length"' in told
    assert '"usage":{"prompt_tokens":0,"completion_tokens":0,"total_tokens":0}' in told


def test_timings_are_milliseconds_of_the_stages_that_ran(api: LiveApi) -> None:
    timings = ask(api)["timings"]
    assert timings["embed"] == 2.0
    assert timings["judge"] == 1.0
    assert {"retrieve", "generate", "total"} <= timings.keys()
    # Nobody sees a token before the last one.
    assert not {"rerank", "condense", "first_token"} & timings.keys()
    assert timings["total"] >= timings["generate"]


def test_the_generator_is_given_question_passages_and_the_statistics_of_the_index(api: LiveApi) -> None:
    ask(api, temperature=0.5, top_p=0.9, max_tokens=7, stop="END", seed=3, model="base:polite")
    (call,) = api.backend.generations
    assert call.question == "What is written last?"
    assert [passage.chunk_id for passage in call.passages] == [hit.chunk_id for hit in make_hits(8)]
    assert call.request.model == "base:polite"
    assert call.request.statistics.document_frequency == {"manifest": 3}
    assert (call.request.sampling.temperature, call.request.sampling.max_tokens) == (0.5, 7)
    assert call.request.sampling.stop == ("END",)
    assert not call.request.closed_book
    assert api.backend.searches[0].for_reader


def test_every_hop_is_given_what_is_left_of_the_time(api: LiveApi) -> None:
    response = api.post("/v1/chat/completions", {**CHAT, "retrieval": {"rerank": True}}, x_request_timeout="9")
    assert response.status_code == 200
    budgets = [api.backend.searches[0].budget_s, api.backend.reranks[0].budget_s, api.backend.generations[0].budget_s]
    assert all(0 < budget <= 9 for budget in budgets)
    assert budgets[2] < budgets[0]


def test_a_conversation_is_condensed_before_it_is_searched_with(api: LiveApi) -> None:
    turns = [
        {"role": "system", "content": "Be short."},
        {"role": "user", "content": "What is a shard?"},
        {"role": "assistant", "content": "A part."},
        {"role": "user", "content": [{"type": "text", "text": "And of"}, {"type": "text", "text": "what?"}]},
    ]
    answer = ask(api, messages=turns)
    assert api.backend.searches[0].text == "What is a shard? / And of\nwhat?"
    assert api.backend.generations[0].question == "What is a shard? / And of\nwhat?"
    assert len(api.backend.generations[0].request.messages) == 4
    assert answer["timings"]["condense"] >= 0


def test_a_single_turn_is_searched_with_as_it_is(api: LiveApi) -> None:
    ask(api)
    assert api.backend.condenses == []


def test_retrieval_follows_the_request(api: LiveApi) -> None:
    retrieval = {"k": 3, "mode": "lexical", "by": "document", "where": "lang = 'en'", "index": "other"}
    answer = ask(api, retrieval=retrieval)
    (call,) = api.backend.searches
    assert call.index == "other"
    assert (call.config.k, call.config.mode, call.config.by) == (3, "lexical", "document")
    assert call.config.where == "lang = 'en'"
    assert len(answer["sources"]) == 3


def test_retrieval_is_by_default_eight_chunks_of_the_first_index(api: LiveApi) -> None:
    ask(api)
    (call,) = api.backend.searches
    assert (call.index, call.config.k, call.config.by) == ("docs", 8, "chunk")


def test_reranked_passages_are_numbered_in_their_new_order(api: LiveApi) -> None:
    answer = ask(api, retrieval={"rerank": True, "k": 2})
    assert [source["doc_id"] for source in answer["sources"]] == ["d0", "d3"]
    assert [source["number"] for source in answer["sources"]] == [1, 2]
    assert answer["sources"][0]["scores"]["rerank"] == 8.3
    assert api.backend.searches[0].config.k == OPEN.rerank.depth


def test_without_retrieval_nothing_is_searched_or_cited(api: LiveApi) -> None:
    answer = ask(api, retrieval=False)
    assert api.backend.searches == []
    assert api.backend.generations[0].request.closed_book
    assert (answer["coverage"], answer["snapshot"], answer["sources"]) == (None, None, [])
    assert answer["grounded"] is False


def test_a_quoting_generator_refuses_to_go_without_retrieval() -> None:
    with live(FakeBackend(needs_passages=True)) as api:
        error = api.error("/v1/chat/completions", {**CHAT, "retrieval": False}, 400)
        assert error["param"] == "retrieval"
        assert api.backend.generations == []


def test_a_citation_that_does_not_hold_is_left_out_and_the_answer_is_not_called_grounded() -> None:
    def lie(call: GenerateCall) -> list[Any]:
        honest = cite(call.passages[0], 10)
        false = replace(cite(call.passages[1], 5), quote="invented")
        text = f"{honest.quote} [1] invented [2]"
        return [
            TextDelta(text),
            Cited(honest),
            Cited(false),
            Final(Answer(text, (honest, false), grounded=True)),
        ]

    with live(FakeBackend(script=lie)) as api:
        answer = ask(api)
        assert [citation["number"] for citation in answer["citations"]] == [1]
        assert answer["grounded"] is False
        streamed = api.post("/v1/chat/completions", {**CHAT, "stream": True}).text
        assert '"quote":"invented"' not in streamed


def test_a_missing_partition_is_flagged_in_body_and_header() -> None:
    with live(FakeBackend(coverage=PARTIAL)) as api:
        response = api.post("/v1/chat/completions", CHAT)
        assert response.headers["x-tandem-coverage"] == "0.75"
        assert response.json()["degraded"] == ["partition"]
        assert response.json()["coverage"] == {
            "partitions_total": 4,
            "partitions_ok": 3,
            "documents": 0.75,
            "degraded": True,
            "missing": [2],
        }


def test_too_little_coverage_is_503_before_anything_is_generated() -> None:
    with live(FakeBackend(coverage=PARTIAL)) as api:
        error = api.error("/v1/chat/completions", {**CHAT, "retrieval": {"min_coverage": 0.8}}, 503)
        assert "0.75" in error["message"]
        assert "min_coverage=0.8" in error["message"]
        assert api.backend.generations == []


def test_a_full_server_says_so_before_it_searches() -> None:
    backend = FakeBackend(script=lambda call: [5.0, *quote(call)])
    with live(backend, OPEN.model_copy(update={"generations": 1})) as api:
        with api.http.stream("POST", "/v1/chat/completions", json={**CHAT, "stream": True}) as first:
            assert first.status_code == 200
            response = api.post("/v1/chat/completions", CHAT)
            assert response.status_code == 429
            assert int(response.headers["retry-after"]) >= 1
            assert len(backend.searches) == 1
        # The first client has left, and its place is free again.
        backend.script = quote
        assert api.openai(retries=5).chat.completions.create(model="base", messages=MESSAGES).choices


def test_more_requests_than_there_are_places_are_refused_at_once() -> None:
    backend = FakeBackend(script=lambda call: [5.0, *quote(call)])
    with live(backend, OPEN.model_copy(update={"requests": 1})) as api:
        with api.http.stream("POST", "/v1/chat/completions", json={**CHAT, "stream": True}) as first:
            assert first.status_code == 200
            spent = len(backend.searches)
            error = api.error("/v1/search", {"query": "?"}, 429)
            assert error["message"].startswith("all 1 places for requests are taken")
            assert len(backend.searches) == spent
            # Whoever asks whether the server lives is no request.
            assert api.http.get("/livez").status_code == 200
        backend.script = quote
        assert api.openai(retries=5).chat.completions.create(model="base", messages=MESSAGES).choices


def test_a_place_is_free_when_its_reply_is_read() -> None:
    with live(FakeBackend(), OPEN.model_copy(update={"requests": 1})) as api:
        assert {api.post("/v1/search", {"query": "?"}).status_code for _ in range(100)} == {200}


@pytest.mark.parametrize("body", [{}, {"stream": True}])
def test_a_generator_that_fails_at_once_is_a_status_also_for_a_stream(body: dict[str, Any]) -> None:
    backend = FakeBackend(errors={"generate": BusyError("the generator is full; try again", retry_after_s=3)})
    with live(backend) as api:
        response = api.post("/v1/chat/completions", {**CHAT, **body})
        assert response.status_code == 429
        assert response.headers["retry-after"] == "3"
        assert backend.closed == 1


def test_openais_client_repeats_what_may_succeed(api: LiveApi) -> None:
    attempts = iter([UnavailableError("restarting"), UnavailableError("restarting")])

    def recover(call: GenerateCall) -> list[Any]:
        error = next(attempts, None)
        return list(quote(call)) if error is None else [error]

    api.backend.script = recover
    answer = api.openai(retries=2).chat.completions.create(model="base", messages=MESSAGES)
    assert answer.choices[0].message.content
    assert len(api.backend.generations) == 3


def test_a_generator_that_is_late_is_not_asked_again(api: LiveApi) -> None:
    api.backend.errors["generate"] = DeadlineError("the generator: not finished in time")
    response = api.post("/v1/chat/completions", CHAT)
    assert response.status_code == 408
    assert response.headers["x-should-retry"] == "false"


@pytest.mark.parametrize("script", [[], [TextDelta("half")]])
def test_a_generator_that_ends_without_an_answer_is_an_error_that_is_not_repeated(script: list[Any]) -> None:
    with live(FakeBackend(script=lambda call: script)) as api:
        response = api.post("/v1/chat/completions", CHAT)
        assert response.status_code == 503
        assert response.headers["x-should-retry"] == "false"


@pytest.mark.parametrize(
    "neutral",
    [
        {"presence_penalty": 0, "frequency_penalty": 0.0, "logit_bias": {}, "n": 1, "logprobs": False},
        {"tools": [], "tool_choice": "none", "response_format": {"type": "text"}, "user": "me", "store": False},
        {"messages": [{"role": "user", "content": "Hello?", "name": None}], "metadata": None, "reasoning_effort": None},
    ],
)
def test_parameters_that_ask_for_nothing_are_taken(api: LiveApi, neutral: dict[str, Any]) -> None:
    assert ask(api, **neutral)["choices"]


def test_an_answer_of_openais_client_can_be_sent_back_as_a_turn(api: LiveApi) -> None:
    client = api.openai()
    first = client.chat.completions.create(model="base", messages=MESSAGES).choices[0].message
    turns: Any = [*MESSAGES, first.model_dump(), {"role": "user", "content": "And then?"}]
    assert client.chat.completions.create(model="base", messages=turns).choices


@pytest.mark.parametrize(
    ("beside", "param"),
    [
        ({"presence_penalty": 0.5}, "presence_penalty"),
        ({"presence_penalty": False}, "presence_penalty"),
        ({"n": 2}, "n"),
        ({"tools": [{"type": "function"}]}, "tools"),
        ({"response_format": {"type": "json_object"}}, "response_format"),
        ({"unheard_of": 1}, "unheard_of"),
        ({"messages": []}, "messages"),
        ({"messages": [{"role": "assistant", "content": "Hello."}]}, "messages"),
        ({"messages": [{"role": "user", "content": "  "}]}, "messages.0.content"),
        ({"messages": [{"role": "user", "content": [{"type": "text", "text": ""}]}]}, "messages.0.content"),
        ({"messages": [{"role": "user", "content": None}]}, "messages.0.content"),
        ({"messages": [{"role": "tool", "content": "x"}]}, "messages.0.role"),
        ({"messages": [{"role": "user", "content": [{"type": "image_url"}]}]}, "messages.0.content.0.type"),
        ({"messages": [{"role": "user", "content": "x" * 8_001}]}, "messages.0.content"),
        ({"temperature": 3}, "temperature"),
        ({"top_p": "0.5"}, "top_p"),
        ({"max_tokens": 0}, "max_tokens"),
        ({"max_tokens": 5, "max_completion_tokens": 6}, "max_tokens"),
        ({"stop": ["a", "b", "c", "d", "e"]}, "stop"),
        ({"retrieval": True}, "retrieval"),
        ({"retrieval": {"k": 0}}, "retrieval.k"),
        ({"retrieval": {"k": 5_000}}, "retrieval.k"),
        ({"retrieval": {"k": 51, "rerank": True}}, "retrieval.k"),
        ({"retrieval": {"where": "year >="}}, "retrieval.where"),
        ({"retrieval": {"nprobe": 3}}, "retrieval.nprobe"),
        ({"index": "docs", "retrieval": {"index": "other"}}, "retrieval.index"),
    ],
)
def test_a_wrong_field_is_named(api: LiveApi, beside: dict[str, Any], param: str) -> None:
    error = api.error("/v1/chat/completions", {**CHAT, **beside}, 400)
    assert error["param"] == param
    assert param in error["message"] or param.endswith("where")
    assert api.backend.searches == []


@pytest.mark.parametrize(
    ("beside", "param", "known"),
    [
        ({"model": "base:rude"}, "model", "base, base:polite"),
        ({"index": "nowhere"}, "index", "docs, other"),
        ({"retrieval": {"index": "nowhere"}}, "retrieval.index", "docs, other"),
    ],
)
def test_an_unknown_name_is_404_and_the_known_ones_are_listed(
    api: LiveApi, beside: dict[str, Any], param: str, known: str
) -> None:
    error = api.error("/v1/chat/completions", {**CHAT, **beside}, 404)
    assert error["param"] == param
    assert known in error["message"]
