"""What happens at the steps of a run besides learning: saving, reporting, and stopping when something is wrong.

Guaranteed: a loss that is no number stops the run before it reaches a weight; a checkpoint is complete only once every
worker has stored its part. All of it runs on every worker, in the same order.
"""

from __future__ import annotations

import math
import shutil
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

from transformers import Trainer, TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from ray_jobs.errors import TandemError
from ray_jobs.train.checkpoints import Checkpoint, Checkpoints
from ray_jobs.train.methods import Mode
from ray_jobs.train.methods.packed_batch import tokens_in

Tell = Callable[[Mapping[str, float]], None]
_LOSS = "eval_loss"
_SHOW_SECONDS = 0.5


class SaveCheckpoints(TrainerCallback):  # type: ignore[misc]
    """Stores what the trainer has saved, each worker its own part, and keeps the last and the best."""

    def __init__(
        self,
        checkpoints: Checkpoints,
        draft: Checkpoint,
        attempt: str,
        metric: tuple[str, Mode],
        keep: int,
        barrier: Callable[[], None],
    ) -> None:
        self._checkpoints = checkpoints
        self._draft = draft
        self._attempt = attempt
        self._metric, self._mode = metric
        self._keep = keep
        self._barrier = barrier
        self._measured: dict[str, float] = {}
        self._measured_at = -1
        self.last: int | None = draft.step or None
        """Step of the last checkpoint that is complete."""
        self.seconds: list[float] = []
        """Pause of the run for each checkpoint."""

    def on_evaluate(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **given: Any) -> None:
        """Remember what the evaluation found; raise TandemError, before a checkpoint is made, if it is no number."""
        if self._metric not in given["metrics"]:
            raise TandemError(
                f"checkpoints.metric={self._metric}: the evaluation gave {', '.join(sorted(given['metrics']))}; choose "
                "one of them"
            )
        if not math.isfinite(value := float(given["metrics"].get(_LOSS, 0.0))):
            raise TandemError(
                f"{_LOSS} is {value} at step {state.global_step}: the weights have left the range of numbers; "
                f"{self.kept()}: {_tamer(args)}"
            )
        self._measured = _numbers(given["metrics"])
        self._measured_at = state.global_step

    def on_save(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **given: Any) -> None:
        """Store the checkpoint that the trainer has just written."""
        started = time.monotonic()
        folder = Path(args.output_dir) / f"checkpoint-{state.global_step}"
        key = self._checkpoints.key(state.global_step, self._attempt)
        first = state.is_world_process_zero
        if folder.is_dir():
            self._checkpoints.upload(key, folder, first)
        self._barrier()
        if first:
            self._checkpoints.commit(self._record(key, state.global_step))
            self._checkpoints.retain(self._keep, self._mode)
        self.last = state.global_step
        shutil.rmtree(folder, ignore_errors=True)
        self.seconds.append(time.monotonic() - started)

    def kept(self) -> str:
        """What a run that stops here leaves, as a user reads it."""
        return "there is no checkpoint yet" if self.last is None else f"the checkpoint of step {self.last} is kept"

    def _record(self, key: str, step: int) -> Checkpoint:
        metrics = self._measured if self._measured_at == step else {}
        chosen = {"key": key, "step": step, "metric": metrics.get(self._metric), "metrics": metrics}
        return self._draft.model_copy(update=chosen)


class Tokens:
    """Tokens that a run has learned from since its workers began: those of one worker, times `workers`."""

    def __init__(self, workers: int) -> None:
        self._workers = workers
        self._own: Any = 0

    def add(self, inputs: Mapping[str, Any]) -> bool:
        """Count those of a micro-batch, without waiting for the device; False where there are none to be seen."""
        masks = [value for key, value in inputs.items() if _is_learned(key, "attention_mask")]
        ids = [value for key, value in inputs.items() if _is_learned(key, "input_ids")]
        if masks:
            found = sum(mask.sum() for mask in masks)
        elif "position_ids" in inputs:
            found = tokens_in(inputs["position_ids"])
        else:
            found = sum(value.numel() for value in ids)
        self._own = self._own + found
        return bool(masks or ids)

    @property
    def total(self) -> float:
        """The sum so far."""
        return float(self._own) * self._workers


class ReportProgress(TrainerCallback):  # type: ignore[misc]
    """Shows how far the run is and what is logged, and reports what evaluations find.

    Each entry of the trainer's history with a loss gets `tokens` and `seconds`, both since the workers began to learn.
    """

    def __init__(self, show: Tell, report: Tell, tokens: Tokens) -> None:
        self._show = show
        self._report = report
        self._tokens = tokens
        self._started = self._shown = time.monotonic()

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **given: Any
    ) -> None:
        """Show from which step on this group of workers learns."""
        self._started = time.monotonic()
        self._show(_place(state) | {"begun": float(state.global_step)})

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **given: Any) -> None:
        """Show the step, now and then."""
        if time.monotonic() - self._shown > _SHOW_SECONDS:
            self._shown = time.monotonic()
            self._show(_place(state) | {"tokens": self._tokens.total})

    def on_log(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **given: Any) -> None:
        """Show one entry of the trainer's log."""
        counted = {"tokens": self._tokens.total, "seconds": round(time.monotonic() - self._started, 3)}
        if "loss" in given["logs"]:
            state.log_history[-1].update(counted)
        self._show(_numbers(given["logs"]) | counted | _place(state))

    def on_evaluate(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **given: Any) -> None:
        """Report what an evaluation has found."""
        self._report(_numbers(given["metrics"]) | _place(state))


def watch(trainer: Trainer, tokens: Tokens, saving: SaveCheckpoints) -> None:
    """Make `trainer` count its tokens, and stop with TandemError at a loss that is no number.

    It stops before a weight changes, and says which micro-batch it was. The device is waited for once a step, before
    the last micro-batch goes backward.
    """
    import torch

    compute = trainer.compute_loss
    losses: list[torch.Tensor] = []

    def counted(module: Any, given: tuple[Mapping[str, Any], ...]) -> None:
        if torch.is_grad_enabled():
            tokens.add(given[0])

    def checked(model: Any, inputs: Mapping[str, Any], *given: Any, **named: Any) -> Any:
        learning = trainer.model.training
        if not learning:
            return compute(model, inputs, *given, **named)
        # Losses of cross-encoders are given texts, and make the tokens that they hand to the network.
        texts = not tokens.add(inputs) and any(isinstance(value, list) for value in inputs.values())
        with _before_each_forward(trainer.model[0], counted) if texts else nullcontext():
            found = compute(model, inputs, *given, **named)
        loss = found[0] if isinstance(found, tuple) else found
        losses.append(loss.detach())
        if trainer.accelerator.sync_gradients:
            values = torch.stack(losses).tolist()
            losses.clear()
            for batch, value in enumerate(values, start=1):
                if not math.isfinite(value):
                    raise TandemError(
                        f"the loss is {value} at step {trainer.state.global_step + 1}, micro-batch {batch} of worker "
                        f"{trainer.args.process_index}; {saving.kept()}: {_tamer(trainer.args)}"
                    )
        return found

    trainer.compute_loss = checked


@contextmanager
def _before_each_forward(module: Any, look: Callable[[Any, tuple[Any, ...]], None]) -> Iterator[None]:
    """Let `look` see what each pass through `module` is given."""
    handle = module.register_forward_pre_hook(look)
    try:
        yield
    finally:
        handle.remove()


def _is_learned(key: str, name: str) -> bool:
    """Whether an input is the `name` of rows that are learned; those of KTO's estimate of the divergence are not."""
    return key.endswith(name) and not key.startswith("KL_")


def _tamer(args: TrainingArguments) -> str:
    return (
        f"lower optimisation.learning_rate={args.learning_rate:g}, lengthen optimisation.warmup="
        f"{args.warmup_steps:g}, or look for rows without words"
    )


def _place(state: TrainerState) -> dict[str, float]:
    return {"step": float(state.global_step), "steps": float(state.max_steps)}


def _numbers(found: Mapping[str, Any]) -> dict[str, float]:
    return {
        key: float(value)
        for key, value in found.items()
        if isinstance(value, int | float) and math.isfinite(float(value))
    }
