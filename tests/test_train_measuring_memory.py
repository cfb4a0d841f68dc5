"""Measuring before and after where memory is short: one model at a time, and a run that is published all the same."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import in_process
import numpy as np
import pytest
import tiny_language_models
import train_bases
from evaluation_tasks import columns, task
from local_runs import train
from ray.exceptions import OutOfMemoryError, RayError, WorkerCrashedError
from tiny_rerankers import WORDS
from train_runs import plan_of, settings

from ray_jobs.errors import TandemError
from ray_jobs.storage import open_storage
from ray_jobs.train import before_after, job
from ray_jobs.train.config import TrainConfig
from ray_jobs.train.evaluation import likelihood, tuned
from ray_jobs.train.evaluation.language import LanguageJudge
from ray_jobs.train.evaluation.tuned import TwoNetworks, has_room_beside
from ray_jobs.train.hardware import of_this_machine
from ray_jobs.train.plan import Plan


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two whole language models and rows."""
    made = tmp_path_factory.mktemp("short")
    train_bases.language_model(made / "base")
    tokenizer = tiny_language_models.word_tokenizer([*WORDS, *(f" {word}" for word in WORDS)])
    other = tiny_language_models.tiny_llama(tokenizer, seed=5, initializer_range=0.2, max_position_embeddings=128)
    tiny_language_models.save(made / "other", other, tokenizer)
    train_bases.conversations(made / "conversations", validation=12)
    return made


NOTHING: dict[str, Any] = {"test": False, "retained": {}}


class Network:
    """Notes where it is; a weight takes four bytes."""

    def __init__(self, name: str, seen: list[set[str]], on_gpu: set[str]) -> None:
        self.name, self.seen, self.on_gpu = name, seen, on_gpu
        self.to("cuda")

    def to(self, device: str) -> Network:
        (self.on_gpu.add if device == "cuda" else self.on_gpu.discard)(self.name)
        self.seen.append(set(self.on_gpu))
        return self

    def parameters(self) -> Any:
        yield SimpleNamespace(numel=lambda: 25, element_size=lambda: 4)


@pytest.mark.parametrize(("free", "most"), [(199, 1), (200, 2)])
def test_two_networks_are_on_a_gpu_together_only_where_it_has_room_for_both_and_their_work(
    monkeypatch: pytest.MonkeyPatch, free: int, most: int
) -> None:
    monkeypatch.setattr(tuned, "free_bytes", lambda device: free)
    seen: list[set[str]] = []
    on_gpu: set[str] = set()
    models = TwoNetworks(lambda: Network("base", seen, on_gpu), lambda: Network("tuned", seen, on_gpu), "cuda")
    for side in (False, True, True, False):
        with models.state(side) as network:
            assert network.name == ("tuned" if side else "base")
            assert network.name in on_gpu
    assert max(map(len, seen)) == most


def test_without_a_gpu_both_lie_in_the_same_memory_anyway() -> None:
    assert has_room_beside(SimpleNamespace(parameters=lambda: iter(())), "cpu")


@pytest.mark.parametrize("kept", [0, 20_000, 1 << 30])
def test_one_model_at_a_time_is_measured_as_both_together_are(
    folder: Path, monkeypatch: pytest.MonkeyPatch, kept: int
) -> None:
    rows = columns(folder / "conversations" / "validation.parquet")
    asked = task(folder, "sft", folder / "base", folder / "conversations")
    together = LanguageJudge(asked, folder / "other")
    expected = {scores.metric: scores for scores in together.scores(rows, "messages")}
    monkeypatch.setattr(tuned, "has_room_beside", lambda network, device: False)
    monkeypatch.setattr(likelihood, "_KEPT_BYTES", kept)
    monkeypatch.setattr(likelihood, "_ROWS", 4)
    apart = LanguageJudge(asked, folder / "other")
    assert not apart._models.together
    for scores in apart.scores(rows, "messages"):
        assert scores.before == pytest.approx(expected[scores.metric].before, abs=1e-5)
        assert scores.after == pytest.approx(expected[scores.metric].after, abs=1e-5)
    assert np.all(expected["token_kl"].after > 0)
    assert apart.samples(rows, "messages", [0, 5]) == together.samples(rows, "messages", [0, 5])


def test_as_many_batches_are_read_by_one_model_as_may_wait_for_the_other() -> None:
    example = ([1, 2, 3], [likelihood.IGNORED, 2, 3])
    groups = likelihood._groups(iter([[0, 1], [2], [3], [4, 5]]), [example] * 6, 10, 60)
    assert list(groups) == [[[0, 1], [2]], [[3], [4, 5]]]
    assert list(likelihood._groups(iter([[0, 1], [2]]), [example] * 3, 10, 0)) == [[[0, 1]], [[2]]]


@pytest.fixture
def trained(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> TrainConfig:
    """A run that is trained, whole weights and all, and is to be measured; jobs run in this process."""
    changes: dict[str, Any] = {
        "optimisation": {"max_steps": 2},
        "checkpoints": {"every_steps": 2},
        "evaluation": {"test": True, "retained": {"old": str(folder / "conversations" / "test.parquet")}},
    }
    config = settings("sft", folder / "base", folder / "conversations", tmp_path / "store", "model", **changes)
    train(config)
    monkeypatch.setattr(job, "session", in_process.session)
    monkeypatch.setattr(job, "of_workers", lambda config, cluster: of_this_machine(config))
    monkeypatch.setattr(before_after, "_streamed", before_after.measured)
    return config


def test_a_run_that_lacks_memory_when_it_is_measured_says_how_it_is_published(
    trained: TrainConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    import torch

    def fail(*given: Any) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB.")

    monkeypatch.setattr(before_after, "judge_of", fail)
    told = (
        r"^out of memory while measuring before and after; the run is trained and its checkpoints are kept: the same "
        r"command with evaluation.test=false and without evaluation.retained publishes the model unmeasured and trains "
        r"nothing again"
    )
    for _ in range(2):
        with pytest.raises(TandemError, match=told):
            job.run(trained)
    unmeasured = trained.model_copy(update={"evaluation": trained.evaluation.model_copy(update=NOTHING)})
    assert plan_of(unmeasured).run == plan_of(trained).run
    summary = job.run(unmeasured)
    assert not summary.trained
    card = json.loads(open_storage(trained.store).read("models/model/card.json"))
    assert (card["run"], card["evaluation"]) == (summary.run, [])


@pytest.mark.parametrize(
    ("error", "told"),
    [
        (
            OutOfMemoryError("Task was killed due to the node running low on memory."),
            r"^out of memory while measuring .* with evaluation.test=false publishes",
        ),
        (
            WorkerCrashedError(),
            r"^the worker that measured was lost \(The worker died.*the same command measures again; if it was stopped "
            r"for lack of memory: .* with evaluation.test=false publishes",
        ),
    ],
)
def test_a_worker_that_is_lost_while_it_measures_leaves_a_way_to_go_on(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: RayError, told: str
) -> None:
    import ray

    def stopped(*given: object) -> None:
        raise error

    config = settings("sft", folder / "base", folder / "conversations", tmp_path, "model", evaluation={"test": True})
    plan = Plan(config, config.store, "runs/model/1", "b", "d", "train", "validation", "cpu", "float32")
    monkeypatch.setattr(ray, "remote", lambda **given: lambda run: SimpleNamespace(remote=lambda *given: iter(())))
    monkeypatch.setattr(ray, "cancel", lambda references: None)
    monkeypatch.setattr(before_after, "_cpus", lambda plan, gpus: 1.0)
    monkeypatch.setattr(before_after, "wait_for", stopped)
    with pytest.raises(TandemError, match=told):
        list(before_after._streamed(plan, [("target", None)], None))  # type: ignore[arg-type, list-item]
