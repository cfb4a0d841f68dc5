"""The torch engine of a reranker: a cross-encoder's own modules, on CPU or GPU.

Guaranteed: in float32 the scores of `CrossEncoder.predict` (within 1e-5); in bfloat16 only the transformer computes in
bfloat16, the head that makes scores of its output in float32, since 8 bits would tie scores that differ. Not
guaranteed: the same for a head that is no module of its own.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ray_jobs.models.adapter import AdaptedModel
from ray_jobs.models.chat_pairs import ChatPairs
from ray_jobs.models.cross_encoder import load_cross_encoder, prompt_of
from ray_jobs.models.embedder_config import Device, Precision
from ray_jobs.models.pair_tokenizer import PairTokenizer
from ray_jobs.models.pairs import PairBatch, PairModel
from ray_jobs.models.token_limit import max_tokens, position_limit

if TYPE_CHECKING:
    from sentence_transformers import CrossEncoder

_BATCH_TOKENS: dict[Device, int] = {"cpu": 4096, "cuda": 65536}


class TorchPairEngine:
    """Runs a loaded model. Safe to call from several threads."""

    def __init__(self, model: CrossEncoder, precision: Precision) -> None:
        import torch

        self._torch = torch
        self._model = model
        self._fixed = _fixed_features(model)
        self._segments = "token_type_ids" in model.tokenizer.model_input_names
        if precision == "bfloat16":
            _to_bfloat16(model[0].model)

    def forward(self, batch: PairBatch) -> NDArray[np.float32]:
        """Scores, float32 of shape (rows,)."""
        torch, device = self._torch, self._model.device
        features: dict[str, Any] = {
            **self._fixed,
            "input_ids": torch.from_numpy(batch.input_ids).to(device),
            "attention_mask": torch.from_numpy(batch.attention_mask).to(device),
        }
        if self._segments:
            features["token_type_ids"] = torch.from_numpy(batch.segments).to(device)
        with torch.inference_mode():
            for position, module in enumerate(self._model):
                features = module(features)
                if position == 0:
                    features = {key: _in_float32(value) for key, value in features.items()}
            scores: NDArray[np.float32] = self._model.activation_fn(features["scores"]).reshape(-1).cpu().numpy()
        return scores


def torch_pair_model(model: AdaptedModel, device: Device, precision: Precision, threads: int | None) -> PairModel:
    """Load a model and start its engine. Raises ModelError for what is no reranker."""
    import torch

    if threads is not None:
        torch.set_num_threads(threads)
    loaded = load_cross_encoder(model, device)
    tokenizer = loaded.tokenizer
    prompt = prompt_of(loaded)
    limit = position_limit(loaded[0].model)
    return PairModel(
        name=model.name,
        revision=model.revision,
        engine_name="torch",
        precision=precision,
        tokens=(
            ChatPairs(loaded, model.name, prompt)
            if "message" in loaded[0].modality_config
            else PairTokenizer(tokenizer.backend_tokenizer.to_str(), prompt)
        ),
        engine=TorchPairEngine(loaded, precision),
        max_tokens=max_tokens(tokenizer.model_max_length, limit),
        position_limit=limit,
        pad_id=int(tokenizer.pad_token_id),
        pad_left=tokenizer.padding_side == "left",
        pad_multiple=8,
        batch_tokens=_BATCH_TOKENS[device],
    )


def _fixed_features(model: CrossEncoder) -> dict[str, Any]:
    """What the first module wants to know besides tokens: how pairs were written, and which logits are used."""
    first = model[0]
    features: dict[str, Any] = {"modality": "message" if "message" in first.modality_config else "text"}
    if first.transformer_task == "text-generation":
        features["logits_to_keep"] = 1
    return features


def _to_bfloat16(network: Any) -> None:
    import torch

    network.to(torch.bfloat16)
    backbone = network.base_model
    # A language model's head shares its weights with the embeddings: it must stay as they are.
    if backbone is network or not type(network).__name__.endswith("ForSequenceClassification"):
        return
    for head in network.children():
        if head is not backbone:
            head.float()
            head.register_forward_pre_hook(_inputs_in_float32, with_kwargs=True)


def _inputs_in_float32(_: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[tuple[Any, ...], dict[str, Any]]:
    return tuple(map(_in_float32, args)), {key: _in_float32(value) for key, value in kwargs.items()}


def _in_float32(value: Any) -> Any:
    return value.float() if getattr(value, "is_floating_point", lambda: False)() else value
