"""What the methods over sentence-transformers share: adapters inside a model of modules, saved and loaded right.

Guaranteed: weights are learned in float32, in whatever dtype the base is stored; only the first worker writes a model;
under ZeRO-3 it writes the gathered weights, never empty ones; an adapter is saved as PEFT saves it, so that every
loader of adapters takes it. Not covered, and refused with ModelError: ZeRO-3 where other modules than the transformer
have weights.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias, TypeVar

from ray_jobs.errors import ModelError
from ray_jobs.models.sentence_model import quiet_transformers
from ray_jobs.models.token_limit import position_limit
from ray_jobs.train.methods import Task
from ray_jobs.train.methods.arguments import adapter, row_length

if TYPE_CHECKING:
    from datasets import Dataset
    from sentence_transformers import CrossEncoder, SentenceTransformer
    from transformers import Trainer

    SentenceModel: TypeAlias = SentenceTransformer | CrossEncoder

Model = TypeVar("Model", bound="SentenceModel")


def load(kind: type[Model], folder: Path, task: Task, **given: Any) -> Model:
    """The model of `folder`, of sentence-transformers' class `kind`, in float32 whatever dtype it is stored in.

    Rows are cut at the length that the user sets, the model's own where they set none. Raises UsageError where the
    user asks for more than the model takes.
    """
    import torch

    with quiet_transformers():
        model: Model = kind(
            str(folder),
            device=task.place.device,
            local_files_only=True,
            model_kwargs={"dtype": torch.float32},
            **given,
        )
    if task.config.sequence.max_length is not None:
        model.max_seq_length = row_length(task.config, position_limit(model[0].model))
    return model


def with_adapter(model: SentenceModel, task: Task, task_type: str, heads: tuple[str, ...] = ()) -> None:
    """Put the adapter that `task` asks for, if any, into the transformer of `model`; `heads` are trained whole.

    All else stays as it is, the modules after the transformer too: an adapter has no place for them.
    """
    from peft import get_peft_model

    if task.config.lora is None:
        return
    model[0].model = get_peft_model(model[0].model, adapter(task.config.lora, task_type, heads))
    for module in list(model)[1:]:
        module.requires_grad_(False)


def check_shardable(model: SentenceModel, task: Task) -> None:
    """Raise ModelError where ZeRO-3 would shard weights that nothing gathers when they are saved."""
    others = sum(weight.numel() for module in list(model)[1:] for weight in module.parameters())
    if task.config.zero.stage == 3 and others:
        raise ModelError(
            f"zero.stage=3 with base={task.config.base}: {others} weights lie outside its transformer and would be "
            "saved empty; set zero.stage=2"
        )


def saving_rightly(trainer: type[Trainer]) -> type[Trainer]:
    """The class `trainer` of sentence-transformers with its saving and loading made fit for several workers."""

    class Saving(trainer):  # type: ignore[misc]
        def _save(self, output_dir: str | None = None, state_dict: dict[str, Any] | None = None) -> None:
            if not self.args.should_save:
                return
            # For the card's examples the first worker would run the network, and wait for ever where others have parts
            # of the weights.
            with _saved_with(self.model, create_model_card=False):
                if state_dict is None or not self.is_deepspeed_enabled:
                    super()._save(output_dir)
                    return
                # Gathered by the engine; the weights in the modules may be shards.
                network = self.model[0].model
                place = next(name for name, module in self.model.named_modules() if module is network)
                own = {
                    key.removeprefix(f"{place}."): value for key, value in state_dict.items() if key.startswith(place)
                }
                with _saved_with(network, state_dict=own):
                    super()._save(output_dir)

        def _load_from_checkpoint(self, resume_from_checkpoint: str, model: Any = None) -> None:
            from peft import PeftModel, load_peft_weights, set_peft_model_state_dict

            network = self.model[0].model
            if isinstance(network, PeftModel):
                set_peft_model_state_dict(network, load_peft_weights(resume_from_checkpoint, device="cpu"))
            else:
                super()._load_from_checkpoint(resume_from_checkpoint)

    Saving.__name__ = trainer.__name__
    return Saving


@contextmanager
def _saved_with(model: Any, **given: Any) -> Iterator[None]:
    """Let whoever saves `model` save it with these arguments besides."""
    model.save_pretrained = partial(model.save_pretrained, **given)
    try:
        yield
    finally:
        del model.save_pretrained


def as_they_lie(dataset: Dataset, **settings: Any) -> Any:
    """The sampler of batches for sentence-transformers: rows lie in the order in which they are learned."""
    from sentence_transformers.base.sampler import DefaultBatchSampler
    from torch.utils.data import SequentialSampler

    return DefaultBatchSampler(SequentialSampler(dataset), **settings)
