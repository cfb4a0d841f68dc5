"""An adapter and its base become one whole model, as whoever loads models of its kind takes it.

Guaranteed: what is written gives the outputs of base and adapter together, up to rounding in float32, and cuts texts at
the length that the adapter was trained with; weights are safetensors. They are merged and written in float32 whatever
dtype the base is stored in, since half precision has no digits for small changes of a weight: twice the size of a base
in bfloat16. Another kind of model is a function and a line.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from ray_jobs.errors import ModelError
from ray_jobs.models.adapted_network import explained
from ray_jobs.models.adapter import AdaptedModel
from ray_jobs.models.kind import Kind
from ray_jobs.models.token_limit import max_tokens, position_limit, trained_length


def merge(kind: Kind, model: AdaptedModel, folder: Path) -> None:
    """Write `model`, an adapter with its base, as one model into `folder`; raises ModelError where they do not fit."""
    if model.adapter is None:
        raise ModelError(f"model {model.name!r} is whole already; only an adapter is merged into its base")
    with explained(model.name, f"{kind} with an adapter"):
        _MERGES[kind](model, model.adapter.path, folder)


def _generator(model: AdaptedModel, adapter: Path, folder: Path) -> None:
    import torch
    from peft import PeftModel
    from transformers import AutoModelForCausalLM, AutoTokenizer

    network = AutoModelForCausalLM.from_pretrained(
        model.base.path, dtype=torch.float32, local_files_only=True, trust_remote_code=False
    )
    PeftModel.from_pretrained(network, str(adapter)).merge_and_unload().save_pretrained(str(folder))
    own = adapter if (adapter / "tokenizer_config.json").is_file() else model.base.path
    AutoTokenizer.from_pretrained(own, local_files_only=True).save_pretrained(str(folder))


def _embedder(model: AdaptedModel, adapter: Path, folder: Path) -> None:
    import torch
    from peft import PeftModel
    from sentence_transformers import SentenceTransformer

    in_float32 = {"dtype": torch.float32}
    loaded: Any = SentenceTransformer(
        str(model.base.path), device="cpu", local_files_only=True, model_kwargs=in_float32
    )
    limit = position_limit(loaded[0].model)
    loaded[0].model = PeftModel.from_pretrained(loaded[0].model, str(adapter)).merge_and_unload()
    if (longest := trained_length(model)) is not None:
        loaded.max_seq_length = max_tokens(longest, limit)
    loaded.save_pretrained(str(folder), create_model_card=False)


def _reranker(model: AdaptedModel, adapter: Path, folder: Path) -> None:
    from ray_jobs.models.cross_encoder import load_cross_encoder

    load_cross_encoder(model, "cpu").save_pretrained(str(folder), create_model_card=False)


def _reader(model: AdaptedModel, adapter: Path, folder: Path) -> None:
    from ray_jobs.models.card import max_tokens_of
    from ray_jobs.models.reader_network import load_reader_network

    network, tokenizer = load_reader_network(model, "cpu")
    if (longest := max_tokens_of(model)) is not None:
        tokenizer.model_max_length = longest
    network.save_pretrained(str(folder))
    tokenizer.save_pretrained(str(folder))


_MERGES: Mapping[Kind, Callable[[AdaptedModel, Path, Path], None]] = {
    "generator": _generator,
    "embedder": _embedder,
    "reranker": _reranker,
    "reader": _reader,
}
