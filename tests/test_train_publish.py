"""From a checkpoint to a model in the store: what is fetched for it, whose name it is, what a killed attempt leaves."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from train_runs import settings

from ray_jobs.errors import ConflictError
from ray_jobs.models import in_store
from ray_jobs.models.resolve import resolve
from ray_jobs.storage import LocalStorage, ObjectStorage, Storage
from ray_jobs.train import publish
from ray_jobs.train.checkpoints import Checkpoint, Checkpoints
from ray_jobs.train.plan import Plan

RUN = "runs/model/0123"
MODEL = {"config.json": "{}", "model.safetensors": "weights"}
FILES = {**MODEL, "optimizer.pt": "much", "rng_state.pth": "few", "global_step4/mp_rank_00_model_states.pt": "more"}


@pytest.fixture(params=["local", "remote"])
def storage(request: pytest.FixtureRequest, tmp_path: Path) -> Storage:
    if request.param == "local":
        return LocalStorage(tmp_path / "store")
    return ObjectStorage("memory:///", tmp_path / "cache")


@pytest.fixture
def checkpoint(storage: Storage) -> Checkpoint:
    checkpoints = Checkpoints(storage, RUN)
    key = checkpoints.key(4, "a")
    for name, content in FILES.items():
        storage.create(f"{key}/{name}", content.encode())
    checkpoints.commit(
        Checkpoint(
            key=key, step=4, workers=1, engine="deepspeed", stage=2, metric=None, metrics={}, method="sft",
            base_revision="b1", data_hash="d1", files={},
        )
    )  # fmt: skip
    return checkpoints.complete()[0]


def plan(storage: Storage, run: str = RUN, **changes: Any) -> Plan:
    config = settings("sft", Path("base"), Path("data"), Path("store"), "model", **changes)
    return Plan(config, storage.uri, run, "b1", "d1", "train.parquet", "validation.parquet", "cpu", "float32")


def test_a_published_model_is_found_by_its_name_with_nothing_of_the_run(
    storage: Storage, checkpoint: Checkpoint, tmp_path: Path
) -> None:
    assert publish.publish(plan(storage), storage, checkpoint) == f"{storage.uri}/models/model"
    found = resolve("model", storage)
    assert found.origin == "store"
    assert {path.name for path in found.path.iterdir()} == {*MODEL, "card.json"}
    assert not list((tmp_path / "cache").rglob("optimizer.pt"))
    assert [item.key for item in storage.list(RUN) if "publishing" in item.key] == []


def test_a_publication_that_was_killed_is_made_anew(
    storage: Storage, checkpoint: Checkpoint, monkeypatch: pytest.MonkeyPatch
) -> None:
    real: Callable[..., None] = storage.create

    def killed(key: str, data: bytes) -> None:
        if key.endswith("models/model/card.json"):
            raise KeyboardInterrupt
        real(key, data)

    with monkeypatch.context() as patched:
        patched.setattr(storage, "create", killed)
        with pytest.raises(KeyboardInterrupt):
            publish.publish(plan(storage), storage, checkpoint)
    assert not in_store.is_complete(storage, "model")
    with pytest.raises(ConflictError, match=r"name=model: .*models/model is there already; choose another name"):
        publish.check_free(storage, "model", ["runs/model/4567"])
    publish.check_free(storage, "model", [RUN])
    publish.publish(plan(storage), storage, checkpoint)
    assert in_store.run_of(storage, "model") == RUN


def test_a_name_that_another_run_has_made_is_refused_and_its_own_stays(
    storage: Storage, checkpoint: Checkpoint
) -> None:
    publish.publish(plan(storage), storage, checkpoint)
    before = storage.read("models/model/card.json")
    publish.publish(plan(storage), storage, checkpoint)
    assert storage.read("models/model/card.json") == before
    with pytest.raises(ConflictError, match=r"made by runs/model/0123, is there already"):
        publish.publish(plan(storage, "runs/model/4567"), storage, checkpoint)


def test_a_model_that_is_there_in_another_form_is_not_taken_for_what_was_asked(
    storage: Storage, checkpoint: Checkpoint
) -> None:
    checkpoints = Checkpoints(storage, RUN)
    key = checkpoints.key(6, "b")
    for name in ("adapter_config.json", "adapter_model.safetensors"):
        storage.create(f"{key}/{name}", b"{}")
    checkpoints.commit(checkpoint.model_copy(update={"key": key, "step": 6}))
    checkpoint = checkpoints.complete()[-1]
    adapter = plan(storage, lora={"rank": 4}, publish="adapter")
    publish.publish(adapter, storage, checkpoint)
    publish.publish(adapter, storage, checkpoint)
    with pytest.raises(ConflictError, match=r"publish=merged: this run has published .*models/model as adapter, not m"):
        publish.publish(plan(storage, lora={"rank": 4}, publish="merged"), storage, checkpoint)
    assert in_store.card_of(storage, "model")["form"] == "adapter"


def test_a_card_names_all_that_was_learned_from(storage: Storage, checkpoint: Checkpoint) -> None:
    made = plan(storage, lora={"rank": 4, "start": "earlier"}, replay={"data": "old"})
    found = publish.card(replace(made, replay_hash="r1", start_revision="s1"), checkpoint, "adapter")
    assert (found["data"]["hash"], found["replay"]) == ("d1", {"name": "old", "hash": "r1"})
    assert found["start"] == {"name": "earlier", "revision": "s1"}
    assert not {"replay", "start"} & set(publish.card(plan(storage), checkpoint, "full"))
