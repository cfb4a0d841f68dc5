"""Models, adapters and questions that the writing engine refuses, each in one line."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import causal_engine
import pytest
from causal_engine import answer, changed, config, request
from tiny_language_models import byte_tokenizer, save, save_adapter, tiny_llama

from ray_jobs.answer.causal import CausalModel
from ray_jobs.answer.engine import Message
from ray_jobs.answer.engine_config import EngineConfig, load_engine
from ray_jobs.answer.written import WritingEngine
from ray_jobs.errors import ModelError, NotFoundError, UsageError


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model and two adapters of it."""
    return causal_engine.models(tmp_path_factory.mktemp("store") / "models")


@pytest.fixture
def load(folder: Path) -> Iterator[Callable[..., WritingEngine]]:
    """Loads an engine; its threads end with the test."""
    with causal_engine.loading(folder) as load:
        yield load


def test_a_model_or_adapter_that_is_not_loaded_is_refused_with_a_list(
    folder: Path, load: Callable[..., WritingEngine]
) -> None:
    engine = load(adapters={"formal": str(folder / "formal")})
    for unknown in ("other", "base:other"):
        with pytest.raises(NotFoundError, match=f"model={unknown}: .*expected one of base, base:formal"):
            engine.generator(request(unknown))
        with pytest.raises(NotFoundError, match="expected one of base, base:formal"):
            engine.condense([Message("user", "Why?")], unknown)


def test_a_question_that_the_model_cannot_hold_is_refused(load: Callable[..., WritingEngine]) -> None:
    engine = load(context_tokens=128)
    long = "word " * 200
    with pytest.raises(UsageError, match=r"tokens, expected at most \d+ beside the answer"):
        list(engine.generator(request()).stream(long, []))


def test_attention_that_is_not_installed_is_not_fetched(load: Callable[..., WritingEngine]) -> None:
    assert answer(load(attention="sdpa")).text == answer(load()).text
    with pytest.raises(UsageError, match="attention=flash_attention_2: its package is not installed"):
        load(attention="flash_attention_2")


def test_more_context_than_the_model_has_is_refused(load: Callable[..., WritingEngine]) -> None:
    with pytest.raises(UsageError, match=r"context_tokens=4096: .* reads 2048"):
        load(context_tokens=4096)


def test_pickled_weights_are_refused(folder: Path, tmp_path: Path) -> None:
    import torch
    from safetensors.torch import load_file

    base = changed(folder, tmp_path, "base")
    torch.save(load_file(base / "model.safetensors"), base / "pytorch_model.bin")
    (base / "model.safetensors").unlink()
    with pytest.raises(ModelError, match=r"cannot be loaded.*expected a folder with .*safetensors"):
        CausalModel.load(config(tmp_path))


def test_code_of_a_models_repository_is_refused(folder: Path, tmp_path: Path) -> None:
    import json

    base = changed(folder, tmp_path, "base")
    stated = json.loads((base / "config.json").read_text())
    stated.update(model_type="own", auto_map={"AutoConfig": "own.Own", "AutoModelForCausalLM": "own.OwnModel"})
    (base / "config.json").write_text(json.dumps(stated))
    (base / "own.py").write_text("raise SystemExit('ran')")
    with pytest.raises(ModelError, match="cannot be loaded"):
        CausalModel.load(config(tmp_path))


def test_a_model_that_generates_no_text_is_refused(folder: Path, tmp_path: Path) -> None:
    from transformers import LlamaModel

    tokenizer = byte_tokenizer()
    bare: LlamaModel = tiny_llama(tokenizer).model
    save(tmp_path / "base", bare, tokenizer)
    with pytest.raises(ModelError, match=r"lacks 1 weights .* lm_head.weight: choose a model that generates text"):
        CausalModel.load(config(tmp_path))


def test_a_model_that_is_nowhere_is_not_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(NotFoundError, match="model 'no/such-model' not found; looked in"):
        load_engine(EngineConfig(engine="transformers", model="no/such-model"))


@pytest.mark.parametrize(
    ("settings", "said"),
    [({"target_modules": ["c_attn"]}, "does not fit|cannot be loaded"), ({"r": 4}, "has no adapter_model.safetensors")],
    ids=["another model's", "pickled"],
)
def test_an_adapter_that_does_not_fit_is_refused(
    folder: Path, tmp_path: Path, settings: dict[str, Any], said: str
) -> None:
    import json

    adapter = changed(folder, tmp_path, "formal")
    if "target_modules" in settings:
        stated = json.loads((adapter / "adapter_config.json").read_text())
        (adapter / "adapter_config.json").write_text(json.dumps({**stated, **settings}))
    else:
        (adapter / "adapter_model.safetensors").rename(adapter / "adapter_model.bin")
    with pytest.raises(ModelError, match=said):
        CausalModel.load(config(folder, adapters={"formal": str(adapter)}))


def test_an_adapter_of_a_larger_model_is_refused(folder: Path, tmp_path: Path) -> None:
    tokenizer = byte_tokenizer()
    larger = save(tmp_path / "larger", tiny_llama(tokenizer, hidden_size=64), tokenizer)
    adapter = save_adapter(tmp_path / "wide", larger, seed=1)
    with pytest.raises(ModelError, match="adapter 'wide'"):
        CausalModel.load(config(folder, adapters={"wide": str(adapter)}))
