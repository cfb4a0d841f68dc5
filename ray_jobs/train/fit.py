"""What a library says of a base, or of an adapter's targets, that do not fit: in one line, by the key of the user's.

Guaranteed: errors of Tandem's, a lack of memory, broken links and errors that no library of models has raised pass as
they are. Not guaranteed: that a network that can be made learns anything.
"""

from __future__ import annotations

import traceback
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

from ray_jobs.errors import ModelError, TandemError, UsageError
from ray_jobs.train.config import LoraConfig, TrainConfig
from ray_jobs.train.methods import Task, method_of

_LIBRARIES = ("huggingface_hub", "peft", "safetensors", "sentence_transformers", "tokenizers", "transformers", "trl")
# Where an error may come from besides: the data, the machine, or a defect of Tandem's.
_OTHERS = ("accelerate", "datasets", "deepspeed", "pyarrow", "ray_jobs")
_SETTINGS = "transformers.training_args"
_LONGEST_REASON = 300  # characters


def explained(task: Task) -> AbstractContextManager[None]:
    """As `base_explained`, of what a worker is to train."""
    return base_explained(task.config, task.base)


@contextmanager
def base_explained(config: TrainConfig, base: Path) -> Iterator[None]:
    """Turn what libraries say of a base into a ModelError, and what PEFT says of an adapter into a UsageError.

    `base` is the folder of the base.
    """
    try:
        yield
    except Exception as error:
        library = _origin(error)
        if library is None or _passes(error, base):
            raise
        reason = f"{type(error).__name__}: {' '.join(str(error).split())[:_LONGEST_REASON]}"
        if library == "peft" and config.lora is not None:
            raise UsageError(_of_adapter(config, config.lora, reason)) from error
        raise ModelError(
            f"base={config.base} does not fit method={config.method} ({reason}); check its files, or choose "
            f"{method_of(config.method).fitting}"
        ) from error


def _of_adapter(config: TrainConfig, lora: LoraConfig, reason: str) -> str:
    if "target" not in reason:
        return f"lora does not fit base={config.base} ({reason}); change its keys, or leave lora out"
    named, remedy = (
        (lora.targets, "leave lora out")
        if isinstance(lora.targets, str)
        else (f"[{', '.join(lora.targets)}]", "set lora.targets=all-linear")
    )
    return f"lora.targets={named} does not fit base={config.base} ({reason}); name linear layers of it, or {remedy}"


def _origin(error: BaseException) -> str | None:
    """The library of models that raised it, if one did; what Python's own code raised counts for whoever called it."""
    for frame, _ in reversed(list(traceback.walk_tb(error.__traceback__))):
        module = str(frame.f_globals.get("__name__"))
        package = module.partition(".")[0]
        if package in _OTHERS or module == _SETTINGS:
            return None
        if package in _LIBRARIES:
            return package
    return None


def _passes(error: Exception, base: Path) -> bool:
    """Whether it says nothing of the base: an error of Tandem's, of memory, of a link, of a disk."""
    if isinstance(error, RuntimeError):
        # All that loading says of weights of other shapes; the rest are devices and peers.
        return "mismatch" not in str(error)
    if isinstance(error, OSError):
        elsewhere = error.filename is None or not Path(str(error.filename)).is_relative_to(base)
        return isinstance(error, ConnectionError | TimeoutError) or (error.errno is not None and elsewhere)
    return isinstance(error, TandemError | MemoryError)
