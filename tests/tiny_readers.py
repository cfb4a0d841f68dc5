"""Tiny readers made on the spot, with a fixed seed: random ones, adapters, and one fitted to find a word."""

from __future__ import annotations

import random
from pathlib import Path
from typing import TYPE_CHECKING, Any

import tiny_transformers
from tiny_rerankers import WORDS
from tiny_transformers import save, words_that_look_for_themselves

from ray_jobs.models.reader import Reader, ReaderConfig

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerFast

KNOWN = (*WORDS, "cafe", *"猫狗鱼鸟马牛羊虎龙蛇")
UNKNOWN = "word"


def tokenizer(segments: bool = True, max_length: int = 64, pad: bool = True) -> PreTrainedTokenizerFast:
    """One token a word of KNOWN, whatever its case and accents, and a Chinese character; others are unknown."""
    from tokenizers.normalizers import BertNormalizer
    from tokenizers.pre_tokenizers import BertPreTokenizer

    return tiny_transformers.word_tokenizer(
        KNOWN, BertPreTokenizer(), BertNormalizer(), segments=segments, max_length=max_length, pad=pad
    )


def network(architecture: str = "bert", **changes: Any) -> PreTrainedModel:
    """A tiny transformer that knows KNOWN, with a span head."""
    from transformers import AutoModelForQuestionAnswering

    return tiny_transformers.network(AutoModelForQuestionAnswering, KNOWN, architecture, **changes)


def plain(folder: Path, **changes: Any) -> Path:
    return save(network(**changes), tokenizer(), folder / "plain")


def reader(path: Path | str, **settings: Any) -> Reader:
    return Reader.load(
        ReaderConfig.model_validate({"model": str(path), "precision": "float32", "device": "cpu", **settings})
    )


def fitted_to_find(session: Path) -> Path:
    """A plain model that learned to find the known word of the question in a passage, or that it is not there.

    It is fitted once for all tests that share the folder `session`.
    """
    folder = session / "fitted-to-find"
    return folder if folder.is_dir() else _fitted(folder)


def _fitted(folder: Path) -> Path:
    import torch

    model = words_that_look_for_themselves(
        network(hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0, initializer_range=0.1)
    )
    model.bert.embeddings.position_embeddings.weight.requires_grad_(False)
    optimizer = torch.optim.AdamW((part for part in model.train().parameters() if part.requires_grad), lr=2e-3)
    chance, tokens = random.Random(0), tokenizer()
    for _ in range(400):
        pairs, targets = examples(chance, 32)
        places = torch.tensor(targets)
        loss = model(
            **tokens(pairs, return_tensors="pt", padding=True), start_positions=places, end_positions=places
        ).loss
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return save(model.eval(), tokens, folder)


def examples(chance: random.Random, count: int) -> tuple[list[tuple[str, str]], list[int]]:
    """Questions with one known word, passages of any length, and the token at which the word stands; 0: nowhere."""
    pairs, targets = [], []
    for _ in range(count):
        word, *others = chance.sample(KNOWN, 12)
        asked = [word, *[UNKNOWN] * chance.randrange(5)]
        passage = chance.choices([*others, *[UNKNOWN] * 6], k=chance.randrange(1, 50))
        chance.shuffle(asked)
        place = chance.randrange(len(passage))
        present = chance.random() < 0.6
        if present:
            passage[place] = word
        pairs.append((" ".join(asked), " ".join(passage)))
        targets.append(2 + len(asked) + place if present else 0)
    return pairs, targets
