"""Everything that looks after an index, while it is served under load: no request fails. `make chaos`."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx2
import pytest
from ingest_runs import ingest
from load import steady
from served import QUESTIONS, deployed, edition, free_port, http, live
from waiting import wait_for

from ray_jobs.index import manifest
from ray_jobs.index.manifest import Manifest
from ray_jobs.ingest import compact_job, delete
from ray_jobs.ingest.collect import collect
from ray_jobs.ingest.compact_settings import CompactSettings
from ray_jobs.ingest.delete import DeleteConfig
from ray_jobs.ingest.rollback import rollback
from ray_jobs.storage import LocalStorage
from serve.api.keys import hash_of, new_key
from serve.config import ServeConfig

pytestmark = [pytest.mark.chaos, pytest.mark.timeout(600)]

APPLICATION = f"tandem-{uuid.uuid4().hex[:8]}"
OTHER_MODEL = {"engine": "torch"}  # the default one


@pytest.fixture(scope="module")
def port() -> Iterator[int]:
    import ray

    ray.init(num_cpus=8, log_to_driver=False, include_dashboard=False)
    chosen = free_port()
    with http(chosen):
        yield chosen
    ray.shutdown()


class Upkeep:
    """What is done to the index, one thing after the other."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.storage = LocalStorage(folder / "store")
        self.facts = folder / "facts"
        self.facts.mkdir()
        self.add(1)

    def add(self, number: int, **settings: object) -> None:
        for name, text in edition(number).items():
            (self.facts / f"{name}.txt").write_text(text * 3)
        ingest(self.folder, self.facts, shards=3, **settings)

    def more(self) -> None:
        for number in range(20):
            (self.facts / f"more{number}.txt").write_text(f"Town {number} lies on the river {number}.")
        ingest(self.folder, self.facts)

    def take_away(self) -> None:
        ids = tuple(f"facts/more{number}.txt" for number in range(15))
        delete.run(DeleteConfig(ids=ids, index="test", store=str(self.folder / "store")))

    def compact(self) -> None:
        assert compact_job.run(self.storage, "test", CompactSettings(max_dead=0)).dead_rows == 0

    def back(self) -> None:
        rollback(self.storage, "test", 2)

    def with_another_embedder(self) -> None:
        before = self.live
        (self.facts / "other.txt").write_text("Another embedder reads everything anew.")
        ingest(self.folder, self.facts, embedder=OTHER_MODEL)
        assert self.live.embedder.model != before.embedder.model

    def collect(self) -> None:
        assert collect(self.storage, "test", 1, 0).objects > 0

    @property
    def live(self) -> Manifest:
        return manifest.read_live(self.storage, "test")


def test_every_kind_of_upkeep_under_load_costs_no_request(tmp_path: Path, port: int) -> None:
    upkeep = Upkeep(tmp_path)
    key = new_key()[0]
    config = ServeConfig.model_validate(
        {
            "application": APPLICATION,
            "store": str(tmp_path / "store"),
            "index": ["test"],
            "partitions": 2,
            "profile": "laptop",
            "poll_s": 0.2,
            "api": {"tenants": {"tests": {"keys": [hash_of(key.encode())]}}, "description_s": 0.1},
        }
    )
    steps: list[Callable[[], Any]] = [
        lambda: upkeep.add(2),
        upkeep.more,
        upkeep.take_away,
        upkeep.compact,
        upkeep.back,
        lambda: upkeep.add(3, retrain=True),
        upkeep.with_another_embedder,
        upkeep.collect,
        lambda: upkeep.add(4, embedder=OTHER_MODEL),
    ]
    headers = {"Authorization": f"Bearer {key}"}
    with (
        deployed(config, port) as url,
        httpx2.Client(base_url=url, headers=headers, timeout=60) as web,
        steady(url, key, QUESTIONS, ("search", "chat", "stream"), workers=1) as load,
    ):
        for step in steps:
            step()
            wait_for(lambda: live(web) == upkeep.live.number, 60)
            seen = load.count()
            wait_for(lambda seen=seen: load.count() > seen + 6, 60)  # type: ignore[misc]
    for kind in ("search", "chat"):
        assert {outcome.status for outcome in load.of(kind)} == {200}
    assert all(outcome.complete and not outcome.failed for outcome in load.of("stream"))
    answered = {outcome.body["snapshot"] for outcome in load.of("search")}
    assert answered >= {1, upkeep.live.number}
    assert not any(outcome.body["coverage"]["degraded"] for outcome in load.of("search"))
    assert "edition 4" in load.of("search")[-1].body["hits"][0]["text"]
