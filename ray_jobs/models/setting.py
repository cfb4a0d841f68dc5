"""What a user says of a model: its name, or all that can be set of it.

`embedder: NAME` is short for `embedder: {model: NAME}`; on a command line further keys may follow, as in
`--embedder NAME --embedder.engine torch`. Guaranteed: what is wrong with a key is said under that key. To type
checkers a setting is the configuration that comes of it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, TypeAlias

from pydantic import BeforeValidator

from ray_jobs.models.embedder_config import EmbedderConfig
from ray_jobs.models.reranker_config import RerankerConfig


def _embedder(value: object) -> object:
    return None if value is None else EmbedderConfig.model_validate(_keys(value, "an embedder"))


def _reranker(value: object) -> object:
    return None if value is None else RerankerConfig.model_validate(_keys(value, "a reranker"))


def _keys(value: object, what: str) -> object:
    if isinstance(value, str):
        if not value.strip():
            raise ValueError(f"expected the name or path of {what}")
        return {"model": value}
    return value


if TYPE_CHECKING:
    EmbedderSetting: TypeAlias = EmbedderConfig
    RerankerSetting: TypeAlias = RerankerConfig
else:
    # A command line takes a plain name only where the type has text in it.
    EmbedderSetting = Annotated[EmbedderConfig | str, BeforeValidator(_embedder)]
    RerankerSetting = Annotated[RerankerConfig | str, BeforeValidator(_reranker)]
