"""A model before and after, as two networks or as one with an adapter that is switched on and off.

Before is what the run began from: the base, or the base with the adapter that its own began as.

Guaranteed: of two networks only one at a time is on a GPU that has no room for both and for what they compute; the
other then lies in the machine's own memory. Not guaranteed: that one of them fits.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from typing import Any, Protocol

from ray_jobs.models.adapter import ADAPTER_CONFIG
from ray_jobs.models.sentence_model import quiet_transformers

_TUNED, _START = "default", "start"


class Sides(Protocol):
    """A model before and after."""

    together: bool
    """Whether it costs nothing to change sides."""

    def state(self, tuned: bool) -> AbstractContextManager[Any]:
        """The model before or after on its device, for as long as the context lasts; one context at a time."""
        ...


class TwoNetworks:
    """Base and tuned model, both on the device where it has room for both."""

    def __init__(self, base: Callable[[], Any], tuned: Callable[[], Any], device: str) -> None:
        """Both functions load a network onto `device`."""
        self._device = device
        self._networks = {False: base()}
        self.together = has_room_beside(self._networks[False], device)
        if not self.together:
            self._networks[False].to("cpu")
        self._networks[True] = tuned()
        self._placed = True

    @contextmanager
    def state(self, tuned: bool) -> Iterator[Any]:
        """The network of that side."""
        if not self.together and tuned != self._placed:
            self._networks[self._placed].to("cpu")
            self._networks[tuned].to(self._device)
            self._placed = tuned
        yield self._networks[tuned]


class OneNetwork:
    """A model, or a model of modules, with an adapter somewhere inside."""

    together = True

    def __init__(self, model: Any, adapter: Any) -> None:
        """`adapter` is the PeftModel inside `model`, or `model` itself."""
        self._model = model
        self._adapter = adapter

    @contextmanager
    def state(self, tuned: bool) -> Iterator[Any]:
        """The model with its adapter switched on or off, or in place of it the one that it began as."""
        begun = _START in self._adapter.peft_config
        with nullcontext() if tuned or begun else self._adapter.disable_adapter():
            if begun:
                self._adapter.set_adapter(_TUNED if tuned else _START)
            yield self._model


def has_room_beside(network: Any, device: str) -> bool:
    """Whether `device`, which holds `network`, has room for another like it, and as much again to compute."""
    if device == "cpu":
        return True
    size: int = sum(weight.numel() * weight.element_size() for weight in network.parameters())
    return free_bytes(device) >= 2 * size


def free_bytes(device: str) -> int:
    """The free memory of a GPU."""
    import torch

    free, _ = torch.cuda.mem_get_info(device)
    return int(free)


def is_adapter(folder: Path) -> bool:
    """Whether a folder of a checkpoint has an adapter, and not a whole model."""
    return (folder / ADAPTER_CONFIG).is_file()


def over(network: Any, folder: Path, start: Path | None = None) -> Any:
    """The network with the adapter of `folder` (a PeftModel), ready for inference; the network itself is changed.

    The adapter of `start`, if any, stands ready beside it.
    """
    from peft import PeftModel

    with quiet_transformers(), warnings.catch_warnings():
        # PEFT asks models for a property that transformers has renamed.
        warnings.filterwarnings("ignore", message="`is_gradient_checkpointing`", category=FutureWarning)
        found = PeftModel.from_pretrained(network, str(folder), adapter_name=_TUNED)
        if start is not None:
            found.load_adapter(str(start), adapter_name=_START)
        return found.eval()
