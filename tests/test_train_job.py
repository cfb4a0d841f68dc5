"""The training job: its plan, what it does when a worker is killed, what it publishes, what it refuses."""

from __future__ import annotations

import io
import json
import shutil
import signal
import threading
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import train_bases
from tiny_rerankers import WORDS
from train_bases import SUCCESSORS
from train_runs import (
    DEADLINE_SECONDS,
    checkpoints,
    evaluations,
    losses,
    plan_of,
    ray_workers,
    toy,
    train_alone,
    wait_until,
    went_on,
)

from ray_jobs.errors import ConflictError, ModelError, UsageError
from ray_jobs.progress import LineProgress
from ray_jobs.runtime import ClusterSize, Machine
from ray_jobs.storage import LocalStorage
from ray_jobs.train import job
from ray_jobs.train.allocator import ENVIRONMENT
from ray_jobs.train.config import TrainConfig


@dataclass(frozen=True)
class Places:
    """Bases, data and store of this file."""

    folder: Path
    chat: Path
    conversations: Path

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
    )


def sft(places: Places, name: str, **changes: Any) -> TrainConfig:
    """A run of two workers that learns the toy task whole."""
    return toy(places.chat, places.conversations, places.store, name, **{"workers": {"count": 2}, **changes})


@pytest.fixture(scope="module")
def killed(ray_session: None, places: Places) -> tuple[TrainConfig, job.TrainSummary, str]:
    """A run with ZeRO 2 of which a worker is killed after its first checkpoint, and what it told meanwhile."""
    config = sft(places, "killed", zero={"stage": 2})
    found: list[job.TrainSummary] = []
    told = io.StringIO()
    thread = threading.Thread(target=lambda: found.append(job.run(config, LineProgress(told))))
    thread.start()
    wait_until(lambda: bool(checkpoints(config)) or not thread.is_alive())
    worker = ray_workers()[-1]
    assert ENVIRONMENT.items() <= worker.environ().items()
    worker.send_signal(signal.SIGKILL)
    thread.join(DEADLINE_SECONDS)
    return config, found[0], told.getvalue()


@pytest.mark.slow
def test_after_a_killed_worker_the_losses_are_those_of_an_undisturbed_run(
    killed: tuple[TrainConfig, job.TrainSummary, str], places: Places
) -> None:
    config, summary, told = killed
    assert summary.restarts == 1
    assert told.count("others go on from the last checkpoint") == 1
    assert went_on(config)
    undisturbed = train_alone(sft(places, "undisturbed", workers={"count": 1}))
    assert losses(config) == pytest.approx(losses(undisturbed), rel=1e-2, abs=1e-4)
    # Up to here, and a little further, nothing but rounding has had time to grow.
    early = {step: loss for step, loss in losses(undisturbed).items() if step <= 30}
    assert {step: losses(config)[step] for step in early} == pytest.approx(early, rel=1e-4)


@pytest.mark.slow
def test_a_finished_run_is_not_trained_again(killed: tuple[TrainConfig, job.TrainSummary, str]) -> None:
    config, before, _ = killed
    again = job.run(config)
    assert not again.trained
    assert (again.model, again.best_step, again.metrics) == (before.model, before.best_step, before.metrics)


@pytest.mark.slow
def test_the_last_two_and_the_best_two_checkpoints_are_left(killed: tuple[TrainConfig, job.TrainSummary, str]) -> None:
    config, summary, _ = killed
    measured = evaluations(config)
    best = sorted(measured, key=lambda step: (measured[step], -step))[:2]
    assert {found.step for found in checkpoints(config)} == {75, 100, *best}
    assert summary.best_step == best[0]


@pytest.mark.slow
def test_a_model_learns_its_task_by_a_wide_margin_over_its_base(
    killed: tuple[TrainConfig, job.TrainSummary, str], places: Places
) -> None:
    config, summary, _ = killed
    assert summary.metrics["eval_loss"] < 0.2 * losses(config)[1]
    assert share_right(places.chat) < 0.2
    assert share_right(places.store / "models" / "killed") > 0.8


@pytest.mark.slow
def test_an_adapter_is_published_with_the_name_of_its_base_and_loads_over_it(places: Places) -> None:
    from ray_jobs.answer.causal_loading import load_causal
    from ray_jobs.answer.engine_config import EngineConfig
    from ray_jobs.answer.lora import with_adapter

    config = sft(places, "adapter", workers={"count": 1}, lora={"rank": 16, "alpha": 16})
    job.run(train_alone(config))
    folder = places.store / "models" / "adapter"
    settings_of = json.loads((folder / "adapter_config.json").read_text())
    assert settings_of["base_model_name_or_path"] == str(places.chat)
    model, tokenizer = load_causal(
        EngineConfig.model_validate({"model": str(places.chat), "precision": "float32", "device": "cpu"}), None
    )
    adapted = with_adapter(model, "adapter", "adapter", LocalStorage(places.store))
    assert share_right_of(adapted, tokenizer) > share_right_of(model, tokenizer) + 0.5


@pytest.mark.slow
def test_a_card_says_what_the_model_is_made_from(
    killed: tuple[TrainConfig, job.TrainSummary, str], places: Places
) -> None:
    config, summary, _ = killed
    card = json.loads((places.store / "models" / "killed" / "card.json").read_text())
    plan = plan_of(config)
    assert card["base"] == {"name": str(places.chat), "revision": plan.base_revision}
    assert card["data"] == {"name": str(places.conversations), "hash": plan.data_hash}
    assert (card["form"], card["step"], card["metrics"]) == ("full", summary.best_step, summary.metrics)
    assert TrainConfig.model_validate(card["config"]).zero.stage == 2


@pytest.mark.slow
def test_a_name_that_another_run_has_taken_is_refused_before_work(
    killed: tuple[TrainConfig, job.TrainSummary, str],
) -> None:
    config, _, _ = killed
    other = config.model_copy(update={"seed": 7})
    with pytest.raises(
        ConflictError, match=r"name=killed: .*, made by runs/killed/.*, is there already; choose another"
    ):
        job.run(other)


def test_what_does_not_change_what_is_learned_does_not_change_the_run(places: Places) -> None:
    one = plan_of(sft(places, "same"))
    other = plan_of(
        sft(
            places,
            "same",
            workers={"count": 1},
            optimisation={"global_batch": 16, "micro_batch": 4, "max_steps": 100, "learning_rate": 0.002},
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


def test_an_adapter_is_no_base(places: Places, tmp_path: Path) -> None:
    (tmp_path / "adapter").mkdir()
    (tmp_path / "adapter" / "adapter_config.json").write_text("{}")
    config = sft(places, "over").model_copy(update={"base": str(tmp_path / "adapter")})
    with pytest.raises(ModelError, match=r"is an adapter; merge it into its base first"):
        plan_of(config)


def test_more_workers_than_the_cluster_can_ever_hold_are_refused(places: Places) -> None:
    plan = plan_of(sft(places, "many", workers={"count": 2, "cpus_per_worker": 3}))
    with pytest.raises(UsageError, match=r"workers=2 with 3 CPUs each: the cluster has 4; lower workers.count"):
        job.placed(plan, ClusterSize(4, 0))
    plan = plan_of(sft(places, "many", workers={"min": 2, "max": 4, "cpus_per_worker": 3}))
    with pytest.raises(UsageError, match=r"workers=2 with 3 CPUs each: the cluster has 4; lower workers.min or"):
        job.placed(plan, ClusterSize(4, 0))


def test_a_worker_that_no_single_machine_has_room_for_is_refused(places: Places) -> None:
    plan = plan_of(sft(places, "wide", workers={"count": 1, "cpus_per_worker": 3}))
    with pytest.raises(UsageError, match=r"workers=1 with 3 CPUs each: .* one machine, .* have room for 0; lower"):
        job.placed(plan, ClusterSize(4, 0, (Machine(2), Machine(2))))


def test_a_quantised_base_needs_a_gpu(places: Places) -> None:
    plan = plan_of(sft(places, "quantised", lora={"quantise": "4bit"}))
    with pytest.raises(UsageError, match=r"lora.quantise=4bit: the workers have no GPU.*set lora.quantise=none"):
        job.placed(plan, ClusterSize(4, 0))


def test_rows_that_are_too_few_are_refused_before_ray_is_asked_for(places: Places, tmp_path: Path) -> None:
    config = sft(places, "few").model_copy(update={"data": str(train_bases.conversations(tmp_path / "few", train=9))})
    with pytest.raises(UsageError, match=r"9 training rows are fewer than optimisation.global_batch=16; lower it"):
        job.run(config)


def test_the_same_command_is_the_same_run_wherever_the_data_lie(places: Places, tmp_path: Path) -> None:
    config = sft(places, "same")
    copied = shutil.copytree(places.conversations, tmp_path / "copied")
    assert plan_of(config).run == plan_of(config.model_copy(update={"data": str(copied)})).run


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
