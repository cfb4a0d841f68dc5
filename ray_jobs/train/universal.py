"""A ZeRO checkpoint of some number of workers, for any other number: DeepSpeed's universal form.

Guaranteed: the checkpoint itself is only read; the result holds weights, optimiser and scheduler of every parameter
whole. Not guaranteed: room on the disk; the universal form is about as large as the checkpoint.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import shutil
import socket
from argparse import Namespace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ray_jobs.errors import CorruptError, first_line
from ray_jobs.storage.objects import cache_folder

if TYPE_CHECKING:
    from transformers import Trainer

_LATEST = "latest"


def folder_of(store: str, run: str, attempt: str) -> Path:
    """Where a machine keeps what it converts for an attempt of a run.

    Two runs do not meet there, nor two machines that share a home; two workers of a machine do.
    """
    owner = f"{store} {run} {socket.gethostname()}"
    return cache_folder() / "universal" / hashlib.sha256(owner.encode()).hexdigest()[:16] / attempt


def sweep(folder: Path) -> None:
    """Remove `folder`, and what other attempts of its run have left beside it when they were killed."""
    shutil.rmtree(folder.parent, ignore_errors=True)


def convert(checkpoint: Path, folder: Path) -> Path:
    """Write the universal form of `checkpoint` into `folder`, beside links to its other files; returns `folder`.

    Raises CorruptError when the checkpoint is not one of DeepSpeed's or cannot be converted.
    """
    from deepspeed.checkpoint import ds_to_universal

    if not (checkpoint / _LATEST).is_file():
        raise CorruptError(
            f"checkpoint {str(checkpoint)!r} has no file {_LATEST!r}: expected one that ZeRO has written"
        )
    tag = (checkpoint / _LATEST).read_text().strip()
    universal = f"{tag}_universal"
    folder.mkdir(parents=True, exist_ok=True)
    for path in checkpoint.iterdir():
        if path.name not in (tag, _LATEST):
            (folder / path.name).symlink_to(path.resolve())
    arguments = Namespace(
        input_folder=str(checkpoint / tag),
        output_folder=str(folder / universal),
        # In this process: it may be a worker, which shall have no children.
        num_extract_workers=1,
        num_merge_workers=1,
        keep_temp_folder=False,
        strict=True,
        inject_missing_state=True,
    )
    said = io.StringIO()
    try:
        with contextlib.redirect_stdout(said), contextlib.redirect_stderr(said):
            ds_to_universal.main(arguments)
    except Exception as error:
        # The converter fails in many ways on what it cannot read: the reason is kept, the user gets one line.
        reason = first_line(error)
        raise CorruptError(
            f"checkpoint {str(checkpoint)!r} cannot be converted for another number of workers ({reason}): go on with "
            "as many workers as it was made by"
        ) from error
    (folder / "latest_universal").write_text(universal)
    return folder


def repair(trainer: Trainer) -> None:
    """Make `trainer` undo what loading the universal form of ZeRO-3 mixes up.

    All groups of weights come back with one counter of steps, one object that each of them then counts up, and with
    the decay of the first group.
    """
    import torch
    from transformers import TrainerCallback

    decays: list[float] = []
    create = trainer.create_optimizer

    def remembered(*given: Any) -> Any:
        optimizer = create(*given)
        # DeepSpeed drops groups without weights: an adapter has none that do not decay.
        decays[:] = [group["weight_decay"] for group in optimizer.param_groups if group["params"]]
        return optimizer

    class Repair(TrainerCallback):  # type: ignore[misc]
        def on_train_begin(self, args: Any, state: Any, control: Any, **given: Any) -> None:
            optimizer = given["optimizer"]
            while hasattr(optimizer, "optimizer"):
                optimizer = optimizer.optimizer
            for kept in optimizer.state.values():
                if isinstance(kept.get("step"), torch.Tensor):
                    kept["step"] = kept["step"].clone()
            for group, decay in zip(optimizer.param_groups, decays, strict=True):
                group["weight_decay"] = decay

    trainer.create_optimizer = remembered
    trainer.add_callback(Repair())
