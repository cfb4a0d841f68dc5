"""The torch engine: a sentence-transformers model's own modules, on CPU or GPU.

Guaranteed: in float32 the vectors of `SentenceTransformer.encode` (cosine at least 0.99999); in bfloat16 only the
transformer computes in bfloat16 (cosine at least 0.9995), pooling and what follows in float32.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ray_jobs.models.embedder_config import Precision
from ray_jobs.models.engine import EncoderSpec, TokenBatch
from ray_jobs.models.sentence_model import run_modules

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer


class TorchEngine:
    """Runs a loaded model. Torch parallelises inside one forward pass, so one batch at a time keeps it busy."""

    parallel = 1

    def __init__(self, model: SentenceTransformer, spec: EncoderSpec, precision: Precision) -> None:
        import torch

        self._torch = torch
        self._model = model
        self._spec = spec
        if precision == "bfloat16":
            model[0].to(torch.bfloat16)

    def forward(self, batch: TokenBatch) -> NDArray[np.float32]:
        """Embeddings, float32 of shape (rows of the batch, dimension)."""
        torch = self._torch
        ids = torch.from_numpy(batch.input_ids).to(self._model.device)
        features: dict[str, Any] = {
            "input_ids": ids,
            "attention_mask": torch.from_numpy(batch.attention_mask).to(self._model.device),
        }
        if self._spec.segments:
            features["token_type_ids"] = torch.zeros_like(ids)
        if batch.prompt_tokens and not self._spec.pools_prompt:
            features["prompt_length"] = batch.prompt_tokens
        with torch.inference_mode():
            vectors: NDArray[np.float32] = run_modules(self._model, features).cpu().numpy()
        return vectors


def cuda_available() -> bool:
    """Whether torch can use a GPU here; a CPU build of torch says so without the second that importing it takes."""
    from importlib.metadata import version

    if version("torch").endswith("+cpu"):
        return False
    import torch

    return bool(torch.cuda.is_available())


def cuda_has_bfloat16() -> bool:
    """Whether the GPU computes in bfloat16 itself; what older ones do instead is slower than float32."""
    import torch

    return bool(torch.cuda.is_bf16_supported(including_emulation=False))
