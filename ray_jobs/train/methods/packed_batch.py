"""Packed rows as a batch for attention by masks: one sequence below the other, padded to the longest.

TRL lays all sequences of a batch end to end, which attention that is told lengths (FlashAttention) reads as they are.
Attention by masks would compare every token with those of all other sequences, only to throw that away: time and memory
would grow with the square of the batch. Guaranteed: the first token of a row is not learned, as it follows none;
padding has the position 0 throughout, and a network sees each padding token as a row by itself. Expected: rows of two
tokens or more, since of one there is nothing to learn.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from ray_jobs.train.methods.turns import IGNORED

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True, slots=True)
class PackedCollator:
    """Sequences of rows with their lengths (`seq_lengths`) as tensors."""

    pad_id: int

    def __call__(self, sequences: Sequence[Mapping[str, Any]]) -> dict[str, torch.Tensor]:
        """`input_ids`, `labels` and `position_ids`, int64 of shape (sequences, tokens) each."""
        import torch

        shape = len(sequences), max(len(sequence["input_ids"]) for sequence in sequences)
        found = {name: np.full(shape, fill, np.int64) for name, fill in self._fills().items()}
        for place, sequence in enumerate(sequences):
            own = np.s_[place, : len(sequence["input_ids"])]
            found["input_ids"][own] = sequence["input_ids"]
            found["labels"][own] = sequence["labels"]
            found["position_ids"][own] = np.concatenate([np.arange(length) for length in sequence["seq_lengths"]])
        found["labels"][found["position_ids"] == 0] = IGNORED
        return {name: torch.from_numpy(values) for name, values in found.items()}

    def _fills(self) -> dict[str, int]:
        return {"input_ids": self.pad_id, "labels": IGNORED, "position_ids": 0}


def tokens_in(position_ids: torch.Tensor) -> torch.Tensor:
    """How many tokens of packed rows are no padding, a scalar: a first token without a second one is padding."""
    import torch

    begins = position_ids == 0
    alone = begins & torch.nn.functional.pad(begins[:, 1:], (0, 1), value=True)
    return position_ids.numel() - alone.sum()
