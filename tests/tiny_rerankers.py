"""Small cross-encoders made on the spot, with a fixed seed: every make, adapters, and one fitted to match words."""

from __future__ import annotations

import json
import random
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import tiny_transformers
from numpy.typing import NDArray
from tiny_transformers import save, words_that_look_for_themselves

from ray_jobs.models.reranker import Reranker, RerankerConfig

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerFast

# fmt: off
WORDS = (
    "ant", "bee", "cat", "dog", "elk", "fox", "gnu", "hen", "ibis", "jay", "kiwi", "lynx", "mole", "newt", "owl",
    "pig", "quail", "ram", "seal", "toad", "urchin", "vole", "wasp", "yak", "zebra", "apple", "bread", "cheese",
    "date", "egg", "fig", "grape", "honey", "ice", "jam", "kale", "lemon", "mint", "nut", "olive",
)
# fmt: on
PAIRS = [
    ("cat", "the cat and the dog"),
    ("cat dog fox", "bee"),
    ("owl", ""),
    ("lemon jam", "honey lemon jam bread " * 60),
    ("zebra yak", "yak " * 7),
    ("unknown words only", "nothing here is known"),
    ("egg", "a b c d e f g egg"),
]


def tokenizer(segments: bool = True, max_length: int = 64, pad: bool = True) -> PreTrainedTokenizerFast:
    """One token a word of WORDS."""
    from tokenizers.pre_tokenizers import Whitespace

    return tiny_transformers.word_tokenizer(WORDS, Whitespace(), segments=segments, max_length=max_length, pad=pad)


def network(architecture: str = "bert", **changes: Any) -> PreTrainedModel:
    """A tiny transformer that knows WORDS, with a head for sequences."""
    from transformers import AutoModelForSequenceClassification

    return tiny_transformers.network(
        AutoModelForSequenceClassification, WORDS, architecture, **{"num_labels": 1, **changes}
    )


def save_as_cross_encoder(plain: Path, folder: Path, **settings: Any) -> Path:
    """Save a plain model as a CrossEncoder with `settings` (activation, prompts); returns the folder."""
    from sentence_transformers import CrossEncoder

    CrossEncoder(str(plain), device="cpu", **settings).save_pretrained(str(folder), create_model_card=False)
    return folder


def save_adapter(base: str, plain: PreTrainedModel, folder: Path, head: str | None = "classifier") -> Path:
    """Save a LoRA adapter of `plain`, whose base has the name `base`, with weights that change every score."""
    import torch
    from peft import LoraConfig, get_peft_model

    torch.manual_seed(11)
    config = LoraConfig(r=4, target_modules=["query", "value"], modules_to_save=[head] if head else None)
    with peft_is_behind():
        adapted = get_peft_model(plain, config)
    for name, weight in adapted.named_parameters():
        if "lora_B" in name or "modules_to_save" in name:
            torch.nn.init.normal_(weight, std=0.3)
    adapted.save_pretrained(str(folder))
    settings = folder / "adapter_config.json"
    settings.write_text(json.dumps({**json.loads(settings.read_text()), "base_model_name_or_path": base}))
    (folder / "README.md").unlink()
    return folder


@contextmanager
def peft_is_behind() -> Iterator[None]:
    """PEFT asks models for a property that transformers has renamed."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="`is_gradient_checkpointing`", category=FutureWarning)
        yield


def fitted_to_words(session: Path) -> Path:
    """A plain model that learned to score texts by how many of the query's words they hold.

    It is fitted once for all tests that share the folder `session`.
    """
    folder = session / "fitted-to-words"
    return folder if folder.is_dir() else _fitted(folder)


def _fitted(folder: Path) -> Path:
    import torch
    from torch.nn.functional import binary_cross_entropy_with_logits

    # What words that look for themselves say of a text is what is learned.
    model = words_that_look_for_themselves(
        network(hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0, initializer_range=0.1)
    )
    optimizer = torch.optim.AdamW(model.train().parameters(), lr=2e-3)
    chance, tokens = random.Random(0), tokenizer()
    for _ in range(300):
        pairs, shares = _examples(chance, 64)
        features = tokens(pairs, return_tensors="pt")
        loss = binary_cross_entropy_with_logits(model(**features).logits[:, 0], torch.tensor(shares))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return save(model.eval(), tokens, folder)


def _examples(chance: random.Random, count: int) -> tuple[list[tuple[str, str]], list[float]]:
    """Queries of three words, texts of six, and the share of the query's words that each text holds."""
    pairs, shares = [], []
    for _ in range(count):
        query = chance.sample(WORDS, 3)
        shared = chance.randrange(4)
        text = query[:shared] + chance.sample([word for word in WORDS if word not in query], 6 - shared)
        pairs.append((" ".join(query), " ".join(chance.sample(text, 6))))
        shares.append(shared / 3)
    return pairs, shares


def reranker(path: Path | str, **settings: Any) -> Reranker:
    return Reranker.load(
        RerankerConfig.model_validate({"model": str(path), "precision": "float32", "device": "cpu", **settings})
    )


def predicted(path: Path, pairs: list[tuple[str, str]] = PAIRS) -> NDArray[np.float32]:
    from sentence_transformers import CrossEncoder

    scores: NDArray[np.float32] = CrossEncoder(str(path), device="cpu").predict(pairs)
    return scores


def assert_same(found: NDArray[np.float32], expected: NDArray[np.float32]) -> None:
    np.testing.assert_allclose(found, expected, atol=1e-5, rtol=1e-5)


def plain(folder: Path, **changes: Any) -> Path:
    return save(network(**changes), tokenizer(), folder / "plain")
