"""Losses of a causal language model before and after, and the distance between both, at every token that is learned.

Guaranteed: exact over the whole vocabulary; a batch is as small as its logits ask for. Where one model at a time is on
the device, several batches are read by the base before the tuned model comes: as many as their logits, of learned
tokens alone, take of the machine's own memory what `_KEPT_BYTES` says; one batch at least.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from ray_jobs.train.evaluation.tuned import Sides
from ray_jobs.train.methods.turns import IGNORED, Example

if TYPE_CHECKING:
    import torch

_LOGIT_BYTES = 1 << 28  # of one model's logits in a batch
_KEPT_BYTES = 1 << 31  # of the base's logits that wait for those of the tuned model
_ROWS = 64  # of a batch at most
_POSITIONS = 1 << 25  # logits compared at a time, in float32


@dataclass(frozen=True, slots=True)
class Batch:
    """Padded rows, and where their learned tokens stand."""

    places: list[int]  # of its rows among all
    ids: torch.Tensor  # (rows, length)
    attended: torch.Tensor
    kept: int  # of the last tokens whose logits count
    row: torch.Tensor  # of each learned token
    column: torch.Tensor  # among the kept ones
    wanted: torch.Tensor


def measured(models: Sides, examples: Sequence[Example], pad: int) -> Any:
    """Sums over the learned tokens of each example: loss before, loss after, KL, tokens; (examples, 4)."""
    import torch

    found = np.zeros((len(examples), 4))
    with models.state(False) as base:
        width = int(base.config.get_text_config().vocab_size) * base.dtype.itemsize
    kept = 0 if models.together else _KEPT_BYTES
    with torch.inference_mode():
        for group in _groups(_batches([len(ids) for ids, _ in examples], width), examples, width, kept):
            with models.state(False) as network:
                batches = [_padded(places, examples, pad, network.device) for places in group]
                waits_on = network.device if models.together else "cpu"
                before = [_logits(network, batch).to(waits_on) for batch in batches]
            with models.state(True) as network:
                for batch in batches:
                    found[batch.places] = _compared(batch, before.pop(0), _logits(network, batch))
    return found


def _padded(places: list[int], examples: Sequence[Example], pad: int, device: torch.device) -> Batch:
    import torch

    rows = [examples[place] for place in places]
    length = max(len(ids) for ids, _ in rows)
    ids, labels = (
        torch.tensor([part + [fill] * (length - len(part)) for part in parts], device=device)
        for parts, fill in (([ids for ids, _ in rows], pad), ([labels for _, labels in rows], IGNORED))
    )
    lengths = torch.tensor([len(ids) for ids, _ in rows], device=device)
    targets = torch.nn.functional.pad(labels[:, 1:], (0, 1), value=IGNORED)
    kept = length - int((targets != IGNORED).any(0).nonzero()[0])
    row, column = (targets[:, -kept:] != IGNORED).nonzero(as_tuple=True)
    attended = (torch.arange(length, device=device) < lengths[:, None]).long()
    return Batch(places, ids, attended, kept, row, column, targets[:, -kept:][row, column])


def _logits(network: Any, batch: Batch) -> torch.Tensor:
    """Logits at the learned tokens, (tokens, vocabulary)."""
    inner = network.get_base_model() if hasattr(network, "get_base_model") else network
    takes = "logits_to_keep" in inspect.signature(inner.forward).parameters
    found: torch.Tensor = network(
        input_ids=batch.ids,
        attention_mask=batch.attended,
        use_cache=False,
        **({"logits_to_keep": batch.kept} if takes else {}),
    ).logits
    return found[:, -batch.kept :][batch.row, batch.column]


def _compared(batch: Batch, before: torch.Tensor, after: torch.Tensor) -> Any:
    """The sums of each row of a batch, (rows, 4)."""
    import torch

    found = torch.zeros((len(batch.places), 4), dtype=torch.float64, device=after.device)
    step = max(1, _POSITIONS // after.shape[-1])
    for start in range(0, len(batch.row), step):
        part = slice(start, start + step)
        old, new = (torch.log_softmax(logits[part].to(after.device).float(), -1) for logits in (before, after))
        likelihoods = [-side.gather(1, batch.wanted[part, None])[:, 0] for side in (old, new)]
        divergence = (old.exp() * (old - new)).sum(-1).clamp(min=0)
        values = torch.stack([*likelihoods, divergence, torch.ones_like(divergence)], 1).double()
        found.index_add_(0, batch.row[part], values)
    return found.cpu().numpy()


def _batches(lengths: Sequence[int], width: int) -> Iterator[list[int]]:
    """Places of rows of like length, as many as their logits, of `width` bytes a token, leave room for."""
    ranked = sorted(range(len(lengths)), key=lambda place: lengths[place])
    batch: list[int] = []
    for place in ranked:
        size = (len(batch) + 1) * lengths[place] * width
        if batch and (size > _LOGIT_BYTES or len(batch) == _ROWS):
            yield batch
            batch = []
        batch.append(place)
    if batch:
        yield batch


def _groups(
    batches: Iterator[list[int]], examples: Sequence[Example], width: int, kept: int
) -> Iterator[list[list[int]]]:
    """Batches whose logits at learned tokens take `kept` bytes at most; one of them at least."""
    group: list[list[int]] = []
    size = 0
    for batch in batches:
        own = width * sum(label != IGNORED for place in batch for label in examples[place][1][1:])
        if group and size + own > kept:
            yield group
            group, size = [], 0
        group.append(batch)
        size += own
    if group:
        yield group
