"""What is watched at every step of a run: loss, weights, tokens, memory, peers."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from test_train_checkpoints import record
from train_runs import settings

from ray_jobs.errors import TandemError
from ray_jobs.storage import open_storage
from ray_jobs.train.checkpoints import Checkpoints
from ray_jobs.train.memory import memory_explained
from ray_jobs.train.steps import SaveCheckpoints, Tokens, watch
from ray_jobs.train.worker import check_world


def saving(last: int | None = 4) -> SaveCheckpoints:
    found = SaveCheckpoints(Checkpoints(open_storage("memory://"), "r"), record(step=0), "a", ("m", "min"), 1, int)
    found.last = last
    return found


def watched(losses: list[float], training: bool = True, device: str = "cpu") -> Any:
    """A trainer of which only the loss matters, at the last micro-batch of a step."""
    import torch

    coming = iter(losses)
    trainer = SimpleNamespace(
        compute_loss=lambda model, inputs: torch.tensor(next(coming), device=device),
        model=SimpleNamespace(training=training),
        accelerator=SimpleNamespace(sync_gradients=True),
        state=SimpleNamespace(global_step=6),
        args=SimpleNamespace(process_index=1, learning_rate=0.5, warmup_steps=3),
    )
    watch(trainer, Tokens(2), saving())
    return trainer


@pytest.mark.parametrize("loss", [float("nan"), float("inf")])
def test_a_loss_that_is_no_number_stops_at_its_step_and_batch(loss: float) -> None:
    trainer = watched([1.0, 1.0, loss, 1.0])
    trainer.compute_loss(None, {})  # a step by itself
    trainer.accelerator.sync_gradients = False
    for _ in range(2):
        trainer.compute_loss(None, {})
    trainer.accelerator.sync_gradients = True
    with pytest.raises(
        TandemError,
        match=rf"the loss is {loss} at step 7, micro-batch 2 of worker 1; the checkpoint of step 4 is kept: lower "
        r"optimisation.learning_rate=0.5, lengthen optimisation.warmup=3",
    ):
        trainer.compute_loss(None, {})


def test_a_device_is_waited_for_at_the_last_micro_batch_of_a_step_alone() -> None:
    # Whoever reads a value of this device fails.
    trainer = watched([1.0, 1.0], device="meta")
    trainer.accelerator.sync_gradients = False
    trainer.compute_loss(None, {})
    trainer.accelerator.sync_gradients = True
    with pytest.raises(NotImplementedError):
        trainer.compute_loss(None, {})


def test_a_loss_of_an_evaluation_does_not_stop_the_run() -> None:
    watched([float("nan")], training=False).compute_loss(None, {})


def test_weights_that_have_left_the_range_of_numbers_are_not_saved() -> None:
    from transformers import TrainerControl, TrainerState, TrainingArguments

    found, state = saving(None), TrainerState(global_step=8)
    metrics = {"m": 1.0, "eval_loss": float("nan")}
    with pytest.raises(TandemError, match=r"eval_loss is nan at step 8: .*; there is no checkpoint yet: lower opt"):
        found.on_evaluate(TrainingArguments(output_dir="x"), state, TrainerControl(), metrics=metrics)


def test_tokens_are_those_of_all_workers_without_padding() -> None:
    import torch

    tokens = Tokens(3)
    tokens.add({"a_attention_mask": torch.tensor([[1, 1, 0]]), "a_input_ids": torch.tensor([[5, 6, 0]])})
    tokens.add({"input_ids": torch.tensor([[5, 6, 7, 8]]), "position_ids": torch.tensor([[0, 1, 0, 1]])})
    assert tokens.total == 3 * (2 + 4)


def test_tokens_of_the_estimate_of_a_divergence_are_not_learned() -> None:
    import torch

    tokens, ones = Tokens(1), torch.ones(2, 3, dtype=torch.int64)
    tokens.add({"input_ids": ones, "attention_mask": ones, "KL_input_ids": ones, "KL_attention_mask": ones})
    assert tokens.total == 6


def test_tokens_that_a_loss_makes_of_texts_are_those_that_the_network_learns_from() -> None:
    import torch

    class First(torch.nn.Module):
        def forward(self, features: Any) -> Any:
            return features["attention_mask"].sum() * 1.0

    def loss(model: Any, inputs: Any) -> Any:
        mask = torch.tensor([[1, 1, 0], [1, 1, 1]])
        with torch.no_grad():
            model({"input_ids": mask, "attention_mask": mask})
        return model({"input_ids": mask, "attention_mask": mask})

    model, tokens = torch.nn.Sequential(First()), Tokens(2)
    trainer = SimpleNamespace(
        compute_loss=loss, model=model, accelerator=SimpleNamespace(sync_gradients=False), state=None, args=None
    )
    watch(trainer, tokens, saving())
    for _ in range(2):
        trainer.compute_loss(model, {"label": torch.ones(2), "query": ["a", "b"], "passage": ["c", "d"]})
    assert tokens.total == 2 * 2 * 5
    model.eval()
    trainer.compute_loss(model, {"query": ["a", "b"]})
    assert tokens.total == 2 * 2 * 5


@pytest.mark.parametrize(
    "error",
    [
        MemoryError(),
        RuntimeError("CUDA out of memory. Tried"),
        RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory"),
    ],
)
def test_a_lack_of_memory_says_which_knob(error: Exception) -> None:
    config = settings("sft", Path("b"), Path("d"), Path("s"), "model")
    with pytest.raises(TandemError, match=r"out of memory: lower optimisation.micro_batch=2"), memory_explained(config):
        raise error


def test_another_error_stays_what_it_is() -> None:
    config = settings("sft", Path("b"), Path("d"), Path("s"), "model")
    with pytest.raises(RuntimeError, match=r"shape"), memory_explained(config):
        raise RuntimeError("shape mismatch")


def test_a_trainer_that_does_not_see_its_peers_is_stopped() -> None:
    trainer = SimpleNamespace(args=SimpleNamespace(world_size=1, process_index=0))
    with pytest.raises(TandemError, match=r"the trainer is worker 0 of 1, not 1 of 2"):
        check_world(trainer, SimpleNamespace(rank=1, world_size=2, local_rank=1))
