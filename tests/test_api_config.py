"""What an operator may set of the API, and the parts that are made from it: keys, limits, places."""

from __future__ import annotations

import asyncio
import hashlib
from contextlib import suppress
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from serve.api.config import ApiConfig, TenantConfig
from serve.api.keys import EVERYBODY, KeyRing, new_key
from serve.api.limits import BatchCost, Slots, TokenBuckets
from serve.errors import BusyError, UnauthorizedError

HASH = "0" * 64


@pytest.mark.parametrize(
    ("config", "said"),
    [
        ({"tenant": {}}, "Extra inputs are not permitted"),
        ({"tenants": {"a": {"keys": []}}}, "at least 1 item"),
        ({"tenants": {"a": {"keys": ["tdm_secret"]}}}, "expected the SHA-256"),
        ({"tenants": {"a": {"keys": [HASH]}, "b": {"keys": [HASH]}}}, "tenants a and b share a key"),
        ({"tenants": {"a": {"keys": [HASH]}}, "open": True}, "expected one or the other"),
        ({"tenants": {"a": {"keys": [HASH], "where": "year >= and"}}}, "at the ^ in: year >= ^and"),
        ({"tenants": {"a": {"keys": [HASH], "requests_per_minute": 0}}}, "greater than 0"),
        ({"min_coverage": 1.1}, "less than or equal to 1"),
        ({"search": {"k": 60, "rerank": True}}, "search.k=60: expected at most rerank.depth=50"),
        ({"chat": {"k": 2_000}}, "chat.k=2000: expected at most max_hits=1000"),
    ],
)
def test_what_cannot_be_served_is_refused_before_anything_is(config: dict[str, Any], said: str) -> None:
    with pytest.raises(ValidationError) as caught:
        ApiConfig.model_validate(config)
    assert said in str(caught.value)


def test_a_key_that_was_not_hashed_is_not_shown_by_the_message_itself() -> None:
    with pytest.raises(ValidationError) as caught:
        TenantConfig(keys=("tdm_secret",))
    assert "tdm_secret" not in caught.value.errors()[0]["msg"]


def test_a_config_survives_json() -> None:
    config = ApiConfig.model_validate({"tenants": {"a": {"keys": [HASH], "where": "x = 'y' and z > 1"}}})
    assert ApiConfig.model_validate_json(config.model_dump_json()) == config


def test_a_new_key_is_another_each_time_and_its_hash_is_its_sha_256() -> None:
    keys = {new_key() for _ in range(20)}
    assert len(keys) == 20
    assert all(key.startswith("tdm_") and len(key) > 40 for key, _ in keys)
    assert all(hashlib.sha256(key.encode()).hexdigest() == digest for key, digest in keys)


def ring(**tenants: list[str]) -> KeyRing:
    return KeyRing(ApiConfig.model_validate({"tenants": {name: {"keys": keys} for name, keys in tenants.items()}}))


def test_each_key_of_a_tenant_is_its_own() -> None:
    (first, first_hash), (second, second_hash), (other, other_hash) = new_key(), new_key(), new_key()
    keys = ring(a=[first_hash, second_hash], b=[other_hash])
    found = [keys.tenant(f"Bearer {key}".encode()).name for key in (first, second, other)]
    assert found == ["a", "a", "b"]


@given(st.binary(max_size=80) | st.none())
def test_whatever_is_sent_for_a_key_is_nobodys(authorization: bytes | None) -> None:
    with pytest.raises(UnauthorizedError):
        ring(a=[HASH]).tenant(authorization)


def test_every_hash_is_compared_whichever_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    pairs = [new_key() for _ in range(4)]
    keys = ring(**{f"t{place}": [digest] for place, (_, digest) in enumerate(pairs)})
    compared: list[str] = []

    def compare(known: str, given: str) -> bool:
        compared.append(known)
        return known == given

    monkeypatch.setattr("hmac.compare_digest", compare)
    assert keys.tenant(f"Bearer {pairs[0][0]}".encode()).name == "t0"
    assert len(compared) == 4


def test_on_an_open_server_everybody_sees_everything() -> None:
    tenant = KeyRing(ApiConfig(open=True)).tenant(None)
    assert tenant == EVERYBODY
    assert tenant.may_see("anything")


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def buckets(clock: Clock, per_minute: float | None = 60.0, burst: int = 3) -> TokenBuckets:
    return TokenBuckets({"a": TenantConfig(keys=(HASH,), requests_per_minute=per_minute, burst=burst)}, clock)


def refusal(limiter: TokenBuckets, cost: float = 1) -> BusyError | None:
    try:
        asyncio.run(limiter.take("a", cost))
    except BusyError as error:
        return error
    return None


@given(st.lists(st.tuples(st.floats(0, 100), st.floats(0.1, 10)), max_size=40))
def test_no_more_is_let_through_than_the_burst_and_what_came_since(requests: list[tuple[float, float]]) -> None:
    clock = Clock()
    limiter = buckets(clock)
    passed = 0.0
    for wait, cost in requests:
        clock.now += wait
        if refusal(limiter, cost) is None:
            passed += min(cost, 3)
    assert passed <= 3 + clock.now + 1e-6


@given(st.floats(0.1, 10))
def test_a_request_that_comes_again_when_it_was_told_to_is_let_through(cost: float) -> None:
    clock = Clock()
    limiter = buckets(clock)
    assert refusal(limiter, 3) is None
    error = refusal(limiter, cost)
    assert error is not None
    clock.now += error.retry_after_s + 1e-9
    assert refusal(limiter, cost) is None


def test_what_is_refused_does_not_count() -> None:
    limiter = buckets(Clock())
    assert refusal(limiter, 2) is None
    assert refusal(limiter, 2) is not None
    assert refusal(limiter, 1) is None


def test_a_tenant_without_a_limit_is_never_refused() -> None:
    limiter = buckets(Clock(), per_minute=None)
    assert all(refusal(limiter, 1_000) is None for _ in range(50))


@pytest.mark.parametrize(("texts", "cost"), [(1, []), (32, []), (33, [1]), (64, [1]), (320, [9])])
def test_a_batch_costs_one_for_each_32_texts_the_request_included(texts: int, cost: list[float]) -> None:
    taken: list[float] = []

    class Recorder:
        async def take(self, tenant: str, cost: float) -> None:
            taken.append(cost)

    asyncio.run(BatchCost(Recorder(), 32).take("a", texts))
    assert taken == cost


def test_a_place_is_given_back_when_its_block_fails() -> None:
    slots = Slots(1, "answers")
    with suppress(RuntimeError), slots.hold():
        raise RuntimeError
    with slots.hold(), pytest.raises(BusyError):
        slots.hold().__enter__()
