"""The training job: its plan, what it does when workers or its driver are killed, what it publishes."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
import train_bases
from tiny_rerankers import WORDS
from train_bases import SUCCESSORS
from train_runs import Stretch, checkpoints, evaluations, losses, plan_of, settings, train_together

from ray_jobs.errors import ConflictError, ModelError, NotFoundError, TandemError, UsageError
from ray_jobs.models.embedder import Embedder, EmbedderConfig
from ray_jobs.models.reranker import Reranker, RerankerConfig
from ray_jobs.runtime import ClusterSize
from ray_jobs.storage import open_storage
from ray_jobs.train import job
from ray_jobs.train.config import TrainConfig

DEADLINE_SECONDS = 240.0


@dataclass(frozen=True)
class Places:
    """Bases, data and store of this file."""

    folder: Path
    chat: Path
    conversations: Path
    retrieval: Path

    @property
    def store(self) -> Path:
        return self.folder / "store"


@pytest.fixture(scope="module")
def places(tmp_path_factory: pytest.TempPathFactory) -> Places:
    folder = tmp_path_factory.mktemp("job")
    return Places(
        folder,
        train_bases.language_model(folder / "chat"),
        train_bases.conversations(folder / "conversations", train=256, validation=16),
        train_bases.retrieval(folder / "retrieval", train=192),
    )


def sft(places: Places, name: str, **changes: Any) -> TrainConfig:
    """A run that learns the toy task whole: from each word to its successor."""
    long = {
        "workers": {"count": 2},
        "optimisation": {"global_batch": 16, "micro_batch": 8, "max_steps": 150, "learning_rate": 0.01},
        "checkpoints": {"every_steps": 25, "max_failures": 1},
    }
    return settings("sft", places.chat, places.conversations, places.store, name, **{**long, **changes})


def wait_for(found: Any) -> None:
    """Poll until `found` returns something true."""
    end = time.monotonic() + DEADLINE_SECONDS
    while not found():
        assert time.monotonic() < end, "nothing came in time"
        time.sleep(0.02)


def workers_of_train() -> list[psutil.Process]:
    named = [process for process in psutil.process_iter(["cmdline"]) if process.info["cmdline"]]
    return [process for process in named if "RayTrainWorker" in process.info["cmdline"][0]]


def has_checkpoint(config: TrainConfig) -> bool:
    return bool(checkpoints(config))


@pytest.fixture(scope="module")
def killed(ray_session: None, places: Places) -> tuple[TrainConfig, job.TrainSummary]:
    """A run with ZeRO 2 of which a worker is killed after its first checkpoint."""
    config = sft(places, "killed", zero={"stage": 2})
    found: list[job.TrainSummary] = []
    thread = threading.Thread(target=lambda: found.append(job.run(config)))
    thread.start()
    wait_for(lambda: has_checkpoint(config) or not thread.is_alive())
    workers_of_train()[-1].send_signal(signal.SIGKILL)
    thread.join(DEADLINE_SECONDS)
    return config, found[0]


@pytest.fixture(scope="module")
def abandoned(ray_session: None, cluster: dict[str, str], places: Places) -> tuple[TrainConfig, job.TrainSummary]:
    """A run with an adapter whose driver is killed after its first checkpoint, and the same command again."""
    config = sft(places, "abandoned", lora={"rank": 8, "alpha": 64})
    code = "import sys; from ray_jobs.train import job; from ray_jobs.train.config import TrainConfig; "
    code += "job.run(TrainConfig.model_validate_json(sys.argv[1]))"
    driver = subprocess.Popen(
        [sys.executable, "-c", code, config.model_dump_json()],
        env=cluster | {"TANDEM_CACHE": os.environ["TANDEM_CACHE"]},
    )
    wait_for(lambda: has_checkpoint(config) or driver.poll() is not None)
    driver.kill()
    driver.wait()
    wait_for(lambda: not workers_of_train())
    return config, job.run(config)


@pytest.fixture(scope="module")
def undisturbed(ray_session: None, places: Places) -> dict[str, TrainConfig]:
    """The same runs, left alone, under other names; and those that others are compared with or loaded from."""
    configs = {
        "killed": sft(places, "left-alone", zero={"stage": 2}),
        "abandoned": sft(places, "left-alone-too", lora={"rank": 8, "alpha": 64}),
    }
    train_together([Stretch(config) for config in configs.values()], workers=2)
    return configs


@pytest.mark.slow
def test_after_a_killed_worker_the_losses_are_those_of_an_undisturbed_run(
    killed: tuple[TrainConfig, job.TrainSummary], undisturbed: dict[str, TrainConfig]
) -> None:
    config, summary = killed
    assert summary.restarts == 1
    assert losses(config) == pytest.approx(losses(undisturbed["killed"]), rel=1e-3, abs=1e-4)


@pytest.mark.slow
def test_after_a_killed_driver_the_same_command_goes_on_with_the_same_losses(
    abandoned: tuple[TrainConfig, job.TrainSummary], undisturbed: dict[str, TrainConfig]
) -> None:
    config, summary = abandoned
    assert (summary.trained, summary.steps) == (True, 150)
    assert losses(config) == pytest.approx(losses(undisturbed["abandoned"]), rel=1e-3, abs=1e-4)


@pytest.mark.slow
def test_a_finished_run_is_not_trained_again(killed: tuple[TrainConfig, job.TrainSummary]) -> None:
    config, before = killed
    again = job.run(config)
    assert not again.trained
    assert (again.model, again.best_step, again.metrics) == (before.model, before.best_step, before.metrics)


@pytest.mark.slow
def test_the_last_two_and_the_best_two_checkpoints_are_left(killed: tuple[TrainConfig, job.TrainSummary]) -> None:
    config, summary = killed
    measured = evaluations(config)
    best = sorted(measured, key=lambda step: (measured[step], -step))[:2]
    assert {found.step for found in checkpoints(config)} == {125, 150, *best}
    assert summary.best_step == best[0]


@pytest.mark.slow
def test_a_model_learns_its_task_by_a_wide_margin_over_its_base(
    killed: tuple[TrainConfig, job.TrainSummary], places: Places
) -> None:
    config, summary = killed
    assert summary.metrics["eval_loss"] < 0.2 * losses(config)[1]
    assert share_right(places.chat) < 0.2
    assert share_right(places.store / "models" / "killed") > 0.8


@pytest.mark.slow
def test_an_adapter_is_published_with_the_name_of_its_base_and_loads_over_it(
    abandoned: tuple[TrainConfig, job.TrainSummary], places: Places
) -> None:
    from ray_jobs.answer.causal_loading import load_causal
    from ray_jobs.answer.engine_config import EngineConfig
    from ray_jobs.answer.lora import with_adapter

    assert abandoned[1].trained
    folder = places.store / "models" / "abandoned"
    settings_of = json.loads((folder / "adapter_config.json").read_text())
    assert settings_of["base_model_name_or_path"] == str(places.chat)
    model, tokenizer = load_causal(
        EngineConfig.model_validate({"model": str(places.chat), "precision": "float32", "device": "cpu"}), None
    )
    adapted = with_adapter(model, "abandoned", "abandoned", places.store / "models")
    assert share_right_of(adapted, tokenizer) > share_right_of(model, tokenizer) + 0.2


@pytest.mark.slow
def test_a_card_says_what_the_model_is_made_from(killed: tuple[TrainConfig, job.TrainSummary], places: Places) -> None:
    config, summary = killed
    card = json.loads((places.store / "models" / "killed" / "card.json").read_text())
    plan = plan_of(config)
    assert card["base"] == {"name": str(places.chat), "revision": plan.base_revision}
    assert card["data"] == {"name": str(places.conversations), "hash": plan.data_hash}
    assert (card["form"], card["step"], card["metrics"]) == ("full", summary.best_step, summary.metrics)
    assert TrainConfig.model_validate(card["config"]).zero.stage == 2


@pytest.mark.slow
def test_a_name_that_another_run_has_taken_is_refused_before_work(
    killed: tuple[TrainConfig, job.TrainSummary],
) -> None:
    config, _ = killed
    other = config.model_copy(update={"seed": 7})
    with pytest.raises(
        ConflictError, match=r"name=killed: .* with another base, data or configuration; choose another"
    ):
        job.run(other)


@pytest.fixture(scope="module")
def searchers(ray_session: None, places: Places) -> dict[str, job.TrainSummary]:
    """An embedder and a reranker, each trained with an adapter on one worker."""
    common = {
        "lora": {"rank": 8},
        "optimisation": {"global_batch": 16, "micro_batch": 16, "max_steps": 20, "learning_rate": 0.001},
        "checkpoints": {"every_steps": 10},
    }
    bases = {
        "embedder": train_bases.embedder(places.folder / "embedder"),
        "reranker": train_bases.encoder(places.folder / "encoder"),
    }
    return {
        method: job.run(settings(method, base, places.retrieval, places.store, f"tiny-{method}", **common))
        for method, base in bases.items()
    }


@pytest.mark.slow
def test_an_embedder_is_loaded_by_its_name_with_the_loss_of_its_evaluation(
    searchers: dict[str, job.TrainSummary], places: Places
) -> None:
    embedder = Embedder.load(
        EmbedderConfig(model="tiny-embedder", engine="torch", precision="float32", device="cpu"),
        places.store / "models",
    )
    rows = held_out(places)
    queries = embedder.encode_queries([row["query"] for row in rows])
    passages = [row["positive"] for row in rows] + [row["negatives"][0] for row in rows]
    scores = 20 * queries @ embedder.encode_documents(passages).T
    likelihoods = scores - np.log(np.exp(scores).sum(axis=1, keepdims=True))
    loss = -float(np.mean(np.diagonal(likelihoods)))
    assert loss == pytest.approx(searchers["embedder"].metrics["eval_loss"], rel=1e-3)


@pytest.mark.slow
def test_a_reranker_is_loaded_by_its_name_with_the_loss_of_its_evaluation(
    searchers: dict[str, job.TrainSummary], places: Places
) -> None:
    reranker = Reranker.load(
        RerankerConfig(model="tiny-reranker", precision="float32", device="cpu"), places.store / "models"
    )
    scores = [reranker.scores(row["query"], [row["positive"], *row["negatives"]]) for row in held_out(places)]
    right = np.clip(np.array([row[0] for row in scores]), 1e-7, 1 - 1e-7)
    wrong = np.clip(np.array([row[1:] for row in scores]).ravel(), 1e-7, 1 - 1e-7)
    loss = -float(np.concatenate([np.log(right), np.log(1 - wrong)]).mean())
    assert loss == pytest.approx(searchers["reranker"].metrics["eval_loss"], rel=1e-3)


def test_what_does_not_change_what_is_learned_does_not_change_the_run(places: Places) -> None:
    one = plan_of(sft(places, "same"))
    other = plan_of(
        sft(
            places,
            "same",
            workers={"count": 1},
            optimisation={"global_batch": 16, "micro_batch": 4, "max_steps": 150, "learning_rate": 0.01},
            checkpoints={"every_steps": 25, "keep": 5, "max_failures": 0, "log_every_steps": 7},
        )
    )
    assert one.run == other.run
    assert plan_of(sft(places, "same", optimisation={"max_steps": 61})).run != one.run
    assert plan_of(sft(places, "same", seed=1)).run != one.run


def test_other_rows_are_another_run(places: Places, tmp_path: Path) -> None:
    config = sft(places, "same")
    other = config.model_copy(update={"data": str(train_bases.conversations(tmp_path / "other", train=255))})
    assert plan_of(config).run != plan_of(other).run


def test_data_are_found_by_their_name_in_the_store_once_they_are_complete(places: Places, tmp_path: Path) -> None:
    storage = open_storage(str(tmp_path / "store"))
    with pytest.raises(NotFoundError, match=r"data=talk: neither a folder nor a data set"):
        job.find_data("talk", storage)
    train_bases.conversations(tmp_path / "store" / "datasets" / "talk" / "abc", train=8)
    with pytest.raises(NotFoundError):
        job.find_data("talk", storage)
    storage.create("datasets/talk/abc/card.json", b"{}")
    found = job.find_data("talk", storage)
    assert (found.train, found.validation, found.hash) == (
        "datasets/talk/abc/train.parquet",
        "datasets/talk/abc/validation.parquet",
        "abc",
    )


def test_a_folder_that_lacks_a_split_is_refused(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    with pytest.raises(UsageError, match=r"the folder has no train\.parquet"):
        job.find_data(str(tmp_path / "data"), open_storage(str(tmp_path)))


def test_an_adapter_is_no_base(places: Places, tmp_path: Path) -> None:
    (tmp_path / "adapter").mkdir()
    (tmp_path / "adapter" / "adapter_config.json").write_text("{}")
    config = sft(places, "over").model_copy(update={"base": str(tmp_path / "adapter")})
    with pytest.raises(ModelError, match=r"is an adapter; merge it into its base first"):
        plan_of(config)


def test_more_workers_than_the_cluster_can_ever_hold_are_refused(places: Places) -> None:
    plan = plan_of(sft(places, "many", workers={"count": 2, "cpus_per_worker": 3}))
    run = job._Run(plan, open_storage(plan.store), ClusterSize(4, 0), job.SilentProgress())
    with pytest.raises(UsageError, match=r"workers=2 with 3 CPUs each: the cluster has 4; lower workers.count"):
        run.train()


def test_a_users_error_in_a_worker_is_not_tried_again(places: Places) -> None:
    plan = plan_of(sft(places, "failing"))
    run = job._Run(plan, open_storage(plan.store), ClusterSize(4, 0), job.SilentProgress())
    failed = RuntimeError("Training failed")
    both = {0: RuntimeError("gloo: connection closed"), 1: UsageError("rows: too short")}
    failed.worker_failures = both  # type: ignore[attr-defined]
    with pytest.raises(UsageError, match=r"rows: too short"):
        run._raise_unless_lost(failed)
    failed.worker_failures = {0: KeyError("a defect")}  # type: ignore[attr-defined]
    with pytest.raises(RuntimeError, match=r"Training failed"):
        run._raise_unless_lost(failed)
    failed.worker_failures = {0: RuntimeError("Worker killed due to memory pressure")}  # type: ignore[attr-defined]
    with pytest.raises(TandemError, match=r"lack of memory: lower optimisation.micro_batch"):
        run._raise_unless_lost(failed)
    failed.worker_failures = {0: RuntimeError("Connection closed by peer")}  # type: ignore[attr-defined]
    run._raise_unless_lost(failed)


def held_out(places: Places) -> list[dict[str, Any]]:
    import pyarrow.parquet as pq

    rows: list[dict[str, Any]] = pq.read_table(places.retrieval / "validation.parquet").to_pylist()
    return rows


def share_right(folder: Path) -> float:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    return share_right_of(AutoModelForCausalLM.from_pretrained(folder), AutoTokenizer.from_pretrained(folder))


def share_right_of(model: Any, tokenizer: Any) -> float:
    """Share of words of new conversations that the model answers by their successors."""
    import torch

    right = []
    for start in range(0, 36, 3):
        asked = [WORDS[start], WORDS[(start + 11) % 40], WORDS[(start + 23) % 40]]
        text = tokenizer.apply_chat_template(
            [{"role": "user", "content": " ".join(asked)}], tokenize=False, add_generation_prompt=True
        )
        ids = tokenizer(text, add_special_tokens=False, return_tensors="pt")["input_ids"]
        for _ in range(5):
            with torch.no_grad():
                ids = torch.cat([ids, model(input_ids=ids).logits[:, -1:].argmax(-1)], 1)
        said = tokenizer.decode(ids[0, -5:]).replace("<|end|>", " ").split()
        right += [word == SUCCESSORS[other] for word, other in zip(said, asked, strict=False)]
    return sum(right) / (3 * 12)
