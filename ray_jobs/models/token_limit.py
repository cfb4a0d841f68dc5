"""How many tokens a transformer takes, how many are read of an input, and how many an adapter was trained with."""

from __future__ import annotations

from typing import Any

from ray_jobs.errors import UsageError
from ray_jobs.models.adapter import AdaptedModel
from ray_jobs.models.card import max_tokens_of

# For networks that state no limit of their own (relative positions): the limit is memory.
_NO_POSITION_LIMIT = 1 << 17
_DEFAULT_MAX_TOKENS = 512


def position_limit(network: Any) -> int:
    """The longest input, in tokens, that a Hugging Face network can take."""
    positions = getattr(network.config, "max_position_embeddings", None)
    if not isinstance(positions, int) or positions <= 0:
        return _NO_POSITION_LIMIT
    # Networks whose embeddings keep a padding index (the RoBERTa family) count positions from the one after it.
    for module in network.modules():
        padding = getattr(module, "padding_idx", None)
        if isinstance(padding, int) and hasattr(module, "position_embeddings"):
            return positions - padding - 1
    return positions


def max_tokens(stated: int | None, limit: int) -> int:
    """The maximum to use of a model whose tokeniser states `stated` and whose network takes `limit`."""
    # A tokeniser that knows no maximum states one beyond all sense.
    if stated is not None and stated <= limit:
        return stated
    return limit if limit < _NO_POSITION_LIMIT else _DEFAULT_MAX_TOKENS


def tokens_read(asked: int | None, own: int, limit: int, name: str) -> int:
    """Tokens of one input that are read: those that the user asks for, else the model's `own` maximum.

    Raises UsageError for more than the `limit` of its positions.
    """
    if asked is None:
        return own
    if asked > limit:
        raise UsageError(f"max_tokens={asked} is above the {limit} positions of {name!r}: lower it")
    return asked


def batch_budget(asked: int | None, suits: int, longest: int, name: str) -> int:
    """Tokens of a batch: those that the user asks for, else what `suits` the engine, or one input where that is longer.

    Raises UsageError where what is asked for does not hold one input of the `longest` kind.
    """
    budget = asked or max(suits, longest)
    if budget < longest:
        raise UsageError(
            f"batch_tokens={budget} is below max_tokens={longest} of {name!r}: a batch must hold one whole input; "
            "raise batch_tokens or lower max_tokens"
        )
    return budget


def trained_length(model: AdaptedModel) -> int | None:
    """The longest input that an adapter was trained with, by its card or its tokeniser; None where neither lies there.

    Raises ModelError for a card that states no number of tokens.
    """
    from transformers import AutoTokenizer

    adapter = model.adapter
    if (stated := max_tokens_of(model)) is not None:
        return stated
    if adapter is None or not (adapter.path / "tokenizer_config.json").is_file():
        return None
    return int(AutoTokenizer.from_pretrained(str(adapter.path), local_files_only=True).model_max_length)
