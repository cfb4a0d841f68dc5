from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError

from ray_jobs.answer.engine_config import ENGINES, EngineConfig, EngineName


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"engine": "transformers"}, "engine=transformers without model"),
        ({"engine": "openai", "base_url": "http://h/v1"}, "engine=openai without model"),
        ({"engine": "openai", "model": "m"}, "engine=openai without base_url"),
        ({"engine": "transformers", "model": "m", "base_url": "http://h"}, "only engine=openai has an endpoint"),
        ({"adapters": {"a": "b"}}, "engine=extractive with adapters"),
        ({"engine": "transformers", "model": "m", "adapters": {"a:b": "c"}}, "name 'a:b': ':' stands between"),
        ({"name": "a:b"}, "name 'a:b': ':' stands between"),
        ({"continuous": "off", "num_blocks": 4}, "continuous=off with num_blocks"),
        ({"engine": "vllm"}, "'extractive', 'transformers' or 'openai'"),
        ({"api_key": "sk-123"}, "Extra inputs are not permitted"),
        ({"max_new_tokens": 0}, "greater than or equal to 1"),
    ],
)
def test_what_cannot_be_is_refused_before_anything_is_loaded(settings: dict[str, Any], said: str) -> None:
    with pytest.raises(ValidationError) as caught:
        EngineConfig.model_validate(settings)
    assert said in str(caught.value)


@pytest.mark.parametrize(
    ("settings", "name"),
    [
        ({}, "extractive"),
        ({"engine": "transformers", "model": "Qwen/Qwen3-8B"}, "Qwen3-8B"),
        ({"engine": "transformers", "model": "/models/own/"}, "own"),
        ({"engine": "transformers", "model": "/models/own", "name": "base"}, "base"),
    ],
)
def test_a_model_is_called_as_configured_or_as_its_folder(settings: dict[str, Any], name: str) -> None:
    assert EngineConfig.model_validate(settings).public_name == name


def test_every_engine_that_can_be_configured_can_be_loaded() -> None:
    from typing import get_args

    assert set(ENGINES) == set(get_args(EngineName))
