"""Small sentence-transformers models made on the spot, with a fixed seed: every pooling and module, no download."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ray_jobs.models.resolve import resolve

DEFAULT_MODEL = "sentence-transformers/all-MiniLM-L6-v2"
TEXTS = [
    "Ray Data streams blocks between operators.",
    "A snapshot is all or nothing; a reader sees manifest N or N+1. " * 9,
    "",
    "短い文も長い文も。",
    "naïve café — 1,024 tokens?",
    "retrieval " * 400,
    "fine-tuning and retrieval, in tandem",
]


def tiny_model(
    folder: Path,
    *,
    pooling: str | tuple[str, ...] = "mean",
    dense: int | None = None,
    normalize: bool = False,
    architecture: str = "bert",
    max_seq_length: int = 64,
    include_prompt: bool = True,
    **settings: Any,
) -> Path:
    """Save a two-layer transformer of 32 dimensions with the default model's tokeniser; returns its folder.

    `settings` go to SentenceTransformer: prompts, default_prompt_name, similarity_fn_name, truncate_dim.
    """
    import torch
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.sentence_transformer.modules import Dense, Normalize, Pooling, Transformer
    from transformers import AutoConfig, AutoModel, AutoTokenizer

    torch.manual_seed(7)
    tokenizer = AutoTokenizer.from_pretrained(resolve(DEFAULT_MODEL).path)
    config = AutoConfig.for_model(
        architecture,
        vocab_size=len(tokenizer),
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=4,
        intermediate_size=48,
        max_position_embeddings=130,
        pad_token_id=tokenizer.pad_token_id,
        initializer_range=0.2,
    )
    bare = folder / "bare"
    AutoModel.from_config(config).save_pretrained(bare)
    tokenizer.save_pretrained(bare)
    modules: list[torch.nn.Module] = [Transformer(str(bare), max_seq_length=max_seq_length)]
    modules.append(Pooling(32, pooling_mode=pooling, include_prompt=include_prompt))
    if dense is not None:
        modules.append(Dense(modules[-1].get_embedding_dimension(), dense))
    if normalize:
        modules.append(Normalize())
    saved = folder / "model"
    SentenceTransformer(modules=modules, device="cpu", **settings).save(str(saved), create_model_card=False)
    return saved
