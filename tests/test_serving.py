"""The whole server on a real Ray cluster, over HTTP: answers, failures, rollouts."""

from __future__ import annotations

import re
import urllib.request
import uuid
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import httpx2
import openai
import pytest
from load import steady
from served import (
    EMBEDDER,
    FACTS,
    QUESTIONS,
    deployed,
    edition,
    free_port,
    http,
    kill,
    live,
    publish,
    roll_back,
    whole,
)
from trials import check
from waiting import wait_for

import cluster
from ray_jobs.index.search import SearchConfig
from ray_jobs.index.snapshot import Snapshot
from ray_jobs.models.embedder import Embedder
from ray_jobs.storage import LocalStorage

APPLICATION = f"tandem-{uuid.uuid4().hex[:8]}"


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("serving") / "store"
    publish(path, edition(1))
    return path


@pytest.fixture(scope="module")
def key() -> str:
    from serve.api.keys import new_key

    return new_key()[0]


@pytest.fixture(scope="module")
def url(ray_session: None, store: Path, key: str) -> Iterator[str]:
    from serve.api.keys import hash_of
    from serve.config import ServeConfig

    config = ServeConfig.model_validate(
        {
            "application": APPLICATION,
            "store": str(store),
            "index": ["facts"],
            "partitions": 2,
            "poll_s": 0.2,
            "partition_s": 1.0,
            "api": {"tenants": {"tests": {"keys": [hash_of(key.encode())]}}, "description_s": 0.1},
        }
    )
    port = free_port()
    with http(port), deployed(config, port) as address:
        yield address


@pytest.fixture
def client(url: str, key: str) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=f"{url}/v1", api_key=key, max_retries=0, timeout=60) as made:
        yield made


@pytest.fixture
def web(url: str, key: str) -> Iterator[httpx2.Client]:
    with httpx2.Client(base_url=url, headers={"Authorization": f"Bearer {key}"}, timeout=60) as made:
        yield made


def test_search_gives_what_the_snapshot_gives(web: httpx2.Client, store: Path) -> None:
    reply = web.post("/v1/search", json={"query": QUESTIONS[0], "k": 4, "where": "length > 60"}).json()
    expected = Snapshot.open(LocalStorage(store), "facts").search(
        [QUESTIONS[0]], SearchConfig(k=4, where="length > 60"), Embedder.load(EMBEDDER)
    )[0]
    assert [hit["doc_id"] for hit in reply["hits"]] == [hit.doc_id for hit in expected]
    assert [hit["score"] for hit in reply["hits"]] == pytest.approx([hit.score for hit in expected], abs=1e-4)
    assert reply["coverage"]["degraded"] is False


def test_an_openai_client_gets_a_cited_answer(client: openai.OpenAI) -> None:
    answer = client.chat.completions.create(
        model="extractive", messages=[{"role": "user", "content": "What is the capital of Italy?"}]
    )
    assert answer.model_extra is not None
    (first, *_) = answer.model_extra["citations"]
    text = edition(1)[first["doc_id"]]
    assert text[first["start"] : first["end"]] == first["quote"]
    assert answer.model_extra["grounded"] is True
    assert "Rome is the capital of Italy" in str(answer.choices[0].message.content)


def test_an_openai_client_gets_the_same_answer_streamed(client: openai.OpenAI) -> None:
    asked: list[openai.types.chat.ChatCompletionMessageParam] = [{"role": "user", "content": QUESTIONS[0]}]
    whole = client.chat.completions.create(model="extractive", messages=asked)
    with client.chat.completions.create(model="extractive", messages=asked, stream=True) as chunks:
        pieces = [choice.delta.content or "" for chunk in chunks for choice in chunk.choices]
    assert "".join(pieces) == whole.choices[0].message.content


def test_embeddings_are_those_of_the_index(client: openai.OpenAI) -> None:
    text = FACTS["paris"]
    found = client.embeddings.create(model="fake", input=[text])
    expected = Embedder.load(EMBEDDER).encode_documents([text])[0]
    assert found.data[0].embedding == pytest.approx(expected.tolist(), abs=1e-6)


def test_the_status_names_every_deployment(web: httpx2.Client) -> None:
    names = {item["name"] for item in web.get("/v1/status").json()["deployments"]}
    assert names == {"Gateway", "Generator", "Partition-0", "Partition-1", "Retriever"}


@pytest.mark.parametrize("victim", ["Partition-0", "Retriever", "Generator"])
def test_under_load_a_killed_replica_costs_no_request(url: str, key: str, web: httpx2.Client, victim: str) -> None:
    with steady(url, key, QUESTIONS, ("search", "chat", "stream"), workers=1) as load:
        wait_for(lambda: all(load.of(kind) for kind in ("search", "chat", "stream")))
        kill(APPLICATION, victim)
        seen = load.count()
        wait_for(lambda: load.count() > seen + 10, 60)
        wait_for(lambda: whole(web), 60)
    check(load)


def test_under_load_snapshots_go_live_and_back_without_a_lost_request(
    url: str, key: str, web: httpx2.Client, store: Path
) -> None:
    with steady(url, key, QUESTIONS, ("search", "chat", "stream"), workers=1) as load:
        for number in (2, 3, 4):
            publish(store, edition(number), number=number)
            wait_for(lambda number=number: live(web) == number, 60)  # type: ignore[misc]
        roll_back(store, 1, 5)
        wait_for(lambda: live(web) == 5, 60)
        seen = load.count()
        wait_for(lambda: load.count() > seen + 5, 60)
    check(load, contents={1: 1, 2: 2, 3: 3, 4: 4, 5: 1})
    assert {outcome.body["snapshot"] for outcome in load.of("search")} >= {4, 5}


def test_callers_that_leave_harm_nobody_else(url: str, key: str) -> None:
    headers = {"Authorization": f"Bearer {key}"}
    with steady(url, key, QUESTIONS, ("search",), workers=2) as load:
        for number in range(40):
            patience = 0.002 * (number % 20 + 1)
            with suppress(httpx2.TimeoutException), httpx2.Client(base_url=url, headers=headers, timeout=patience) as c:
                c.post("/v1/search", json={"query": QUESTIONS[number % 5]})
        seen = load.count()
        wait_for(lambda: load.count() > seen + 5, 60)
    check(load)


def test_every_figure_of_the_dashboard_is_exported(web: httpx2.Client) -> None:
    import ray

    web.post("/v1/chat/completions", json={"model": "extractive", "messages": [{"role": "user", "content": "Who?"}]})
    web.post("/v1/search", json={"query": ""})
    dashboard = Path(cluster.__file__).parent / "dashboards" / "serving.json"
    wanted = set(re.findall(r"ray_(?:tandem|serve)_\w+", dashboard.read_text(encoding="utf-8")))
    # A reader that quotes spends no tokens.
    wanted.discard("ray_tandem_tokens_total")
    (node,) = ray.nodes()

    def missing() -> set[str]:
        with urllib.request.urlopen(f"http://127.0.0.1:{node['MetricsExportPort']}/metrics", timeout=10) as page:
            exported = set(re.findall(r"^\w+", page.read().decode(), re.MULTILINE))
        return wanted - exported

    wait_for(lambda: not missing(), 60)
