"""The torch engine of a reader: a question-answering model's own modules, on CPU or GPU.

Guaranteed: in float32 the logits of the model itself (within 1e-5); in bfloat16 only the transformer computes in
bfloat16, the span head in float32, since 8 bits would tie logits that differ.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ray_jobs.models.adapter import AdaptedModel
from ray_jobs.models.card import max_tokens_of, threshold_of
from ray_jobs.models.embedder_config import Device, Precision
from ray_jobs.models.pairs import PairBatch
from ray_jobs.models.reader_model import ReaderModel, SpanLogits
from ray_jobs.models.reader_network import load_reader_network
from ray_jobs.models.reader_windows import WindowTokenizer
from ray_jobs.models.token_limit import max_tokens, position_limit

if TYPE_CHECKING:
    from transformers import PreTrainedModel

_BATCH_TOKENS: dict[Device, int] = {"cpu": 4096, "cuda": 65536}


class TorchReaderEngine:
    """Runs a loaded network. Safe to call from several threads."""

    def __init__(self, network: PreTrainedModel, segments: bool, precision: Precision) -> None:
        """`segments` tells whether the network takes segment ids."""
        import torch

        self._torch = torch
        self._network = network
        self._segments = segments
        if precision == "bfloat16":
            _to_bfloat16(network)

    def forward(self, batch: PairBatch) -> SpanLogits:
        """Logits of every token, each float32 of shape (rows, tokens)."""
        torch, device = self._torch, self._network.device
        features: dict[str, Any] = {
            "input_ids": torch.from_numpy(batch.input_ids).to(device),
            "attention_mask": torch.from_numpy(batch.attention_mask).to(device),
        }
        if self._segments:
            features["token_type_ids"] = torch.from_numpy(batch.segments).to(device)
        with torch.inference_mode():
            found = self._network(**features)
            return SpanLogits(_array(found.start_logits), _array(found.end_logits))


def torch_reader_model(model: AdaptedModel, device: Device, precision: Precision, threads: int | None) -> ReaderModel:
    """Load a model and start its engine. Raises ModelError for what is no reader."""
    import torch

    if threads is not None:
        torch.set_num_threads(threads)
    threshold = threshold_of(model)
    network, tokenizer = load_reader_network(model, device)
    limit = position_limit(network)
    return ReaderModel(
        name=model.name,
        revision=model.revision,
        precision=precision,
        tokens=WindowTokenizer(tokenizer.backend_tokenizer.to_str(), tokenizer.cls_token_id),
        engine=TorchReaderEngine(network, "token_type_ids" in tokenizer.model_input_names, precision),
        threshold=threshold,
        max_tokens=max_tokens(max_tokens_of(model) or tokenizer.model_max_length, limit),
        position_limit=limit,
        pad_id=int(tokenizer.pad_token_id),
        pad_left=tokenizer.padding_side == "left",
        pad_multiple=8,
        batch_tokens=_BATCH_TOKENS[device],
    )


def _array(logits: Any) -> NDArray[np.float32]:
    array: NDArray[np.float32] = logits.float().cpu().numpy()
    return array


def _to_bfloat16(network: Any) -> None:
    import torch

    network.to(torch.bfloat16)
    backbone = network.base_model
    for head in network.children():
        if head is not backbone:
            head.float()
            head.register_forward_pre_hook(_inputs_in_float32)


def _inputs_in_float32(_: Any, inputs: tuple[Any, ...]) -> tuple[Any, ...]:
    return tuple(part.float() for part in inputs)
