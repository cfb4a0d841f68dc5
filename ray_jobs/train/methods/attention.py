"""Which attention an encoder learns with.

On a CPU torch's fused attention is slow on its way back: for MiniLM with an adapter, batches of 32 on two cores with
amx_bf16, a step in bfloat16 took 1.63 s with it and 1.00 s without at 128 tokens, 1.74 and 1.31 s at 192, 2.70 and
2.29 s at 256, 3.49 and 2.44 s at 320; in float32 it makes no difference. Guaranteed: the same function up to rounding;
nothing of it is saved with the model.
"""

from __future__ import annotations

from typing import Any

from ray_jobs.train.methods import Place

_LONGEST = 512  # tokens of a row: beyond, what the fused one never holds, rows x heads x tokens², costs more


def suit_attention(network: Any, length: int, place: Place) -> None:
    """Let `network`, of transformers, compute attention the way that is fastest for rows of up to `length` tokens."""
    if place.device == "cpu" and place.precision == "bfloat16" and length <= _LONGEST:
        network.set_attn_implementation("eager")
