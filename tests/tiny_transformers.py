"""Small transformers made on the spot, with a fixed seed, and their tokenizers: what readers and rerankers share."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tokenizers.normalizers import Normalizer
    from tokenizers.pre_tokenizers import PreTokenizer
    from transformers import PreTrainedModel, PreTrainedTokenizerFast

SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]")


def word_tokenizer(
    words: Sequence[str],
    divide: PreTokenizer,
    normalize: Normalizer | None = None,
    segments: bool = True,
    max_length: int = 64,
    pad: bool = True,
) -> PreTrainedTokenizerFast:
    """One token a word; `[CLS] first [SEP] second [SEP]`."""
    from tokenizers import Tokenizer
    from tokenizers.models import WordLevel
    from tokenizers.processors import TemplateProcessing
    from transformers import PreTrainedTokenizerFast

    vocabulary = {word: number for number, word in enumerate((*SPECIAL, *words))}
    backend = Tokenizer(WordLevel(vocabulary, unk_token="[UNK]"))
    if normalize is not None:
        backend.normalizer = normalize
    backend.pre_tokenizer = divide
    second = ":1" if segments else ""
    backend.post_processor = TemplateProcessing(
        single="[CLS] $A [SEP]",
        pair=f"[CLS] $A [SEP] $B{second} [SEP]{second}",
        special_tokens=[("[CLS]", vocabulary["[CLS]"]), ("[SEP]", vocabulary["[SEP]"])],
    )
    names = {
        "unk_token": "[UNK]",
        "cls_token": "[CLS]",
        "sep_token": "[SEP]",
        **({"pad_token": "[PAD]"} if pad else {}),
    }
    inputs = ["input_ids", *(["token_type_ids"] if segments else []), "attention_mask"]
    return PreTrainedTokenizerFast(
        tokenizer_object=backend, model_max_length=max_length, model_input_names=inputs, **names
    )


def network(head: Any, words: Sequence[str], architecture: str, **changes: Any) -> PreTrainedModel:
    """A two-layer transformer of 48 dimensions with the head of an AutoModel; weights are random, always the same."""
    import torch
    from transformers import AutoConfig

    torch.manual_seed(7)
    settings = {
        "vocab_size": len(SPECIAL) + len(words),
        "hidden_size": 48,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "intermediate_size": 96,
        "max_position_embeddings": 80,
        "pad_token_id": 0,
        "initializer_range": 0.2,
    }
    config = AutoConfig.for_model(architecture, **settings | changes)
    return head.from_config(config).eval()


def words_that_look_for_themselves(model: PreTrainedModel) -> PreTrainedModel:
    """The model with attention from each word to the same word, wherever it stands; what that says is to be learned."""
    import torch

    attention = model.bert.encoder.layer[0].attention.self
    with torch.no_grad():
        model.bert.embeddings.position_embeddings.weight.zero_()
        for projection in (attention.query, attention.key):
            projection.weight.copy_(2 * torch.eye(48))
    return model


def save(model: PreTrainedModel, tokens: PreTrainedTokenizerFast, folder: Path) -> Path:
    """Save as a plain Hugging Face model; returns the folder."""
    model.save_pretrained(folder)
    tokens.save_pretrained(folder)
    return folder
