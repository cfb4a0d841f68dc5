"""A language model that is a LoRA adapter of the store is served by its name alone."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from tiny_language_models import byte_tokenizer, save, save_adapter, tiny_llama

from ray_jobs.answer.causal import CausalModel
from ray_jobs.answer.engine import Message, Request
from ray_jobs.answer.engine_config import EngineConfig
from ray_jobs.answer.protocol import complete
from ray_jobs.answer.written import WritingEngine
from ray_jobs.errors import ModelError, NotFoundError, UsageError
from ray_jobs.models.resolve import resolve
from ray_jobs.storage import LocalStorage

QUESTION = "What does Ray run?"
SETTINGS = {"engine": "transformers", "device": "cpu", "precision": "float32", "max_new_tokens": 24}

Ask = Callable[..., str]


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> LocalStorage:
    """A store with the base `chat`, and `my-model`, an adapter as `tandem train` publishes it."""
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.chdir(tmp_path)
    models = tmp_path / "store" / "models"
    tokenizer = byte_tokenizer()
    model = tiny_llama(tokenizer)
    model.lm_head.weight.data[tokenizer.eos_token_id] = 0  # so that answers are as long as they may be
    base = save(models / "chat", model, tokenizer)
    adapter = save_adapter(models / "my-model", base, seed=1)
    tokenizer.save_pretrained(adapter)
    settings = adapter / "adapter_config.json"
    settings.write_text(json.dumps({**json.loads(settings.read_text()), "base_model_name_or_path": "chat"}))
    found = LocalStorage(tmp_path / "store")
    card(found, resolve("chat", found).revision)
    return found


def card(store: LocalStorage, revision: str) -> None:
    about = {"method": "sft", "form": "adapter", "base": {"name": "chat", "revision": revision}}
    (store.root / "models" / "my-model" / "card.json").write_text(json.dumps(about))


@pytest.fixture
def ask(store: LocalStorage) -> Iterator[Ask]:
    """Asks an engine of these settings, by the name of one of its models; its threads end with the test."""
    loaded: list[CausalModel] = []

    def ask(asked: str, **changes: Any) -> str:
        chosen = EngineConfig.model_validate({**SETTINGS, **changes})
        loaded.append(CausalModel.load(chosen, store))
        engine = WritingEngine(loaded[-1], chosen.min_support)
        assert asked in engine.models
        request = Request(asked, (Message("user", QUESTION),), closed_book=True)
        answer = complete(engine.generator(request), QUESTION, [])
        assert answer is not None
        return answer.text

    yield ask
    for model in loaded:
        model.close()


def test_an_adapter_by_its_name_answers_as_it_does_beside_its_base(ask: Ask) -> None:
    alone = ask("my-model", model="my-model")
    assert alone == ask("chat:it", model="chat", adapters={"it": "my-model"})
    assert alone != ask("chat", model="chat")


def test_it_answers_in_a_running_batch_too(ask: Ask) -> None:
    batch = {"continuous": "on", "num_blocks": 8, "max_batch_tokens": 256}
    assert ask("my-model", model="my-model", **batch) == ask("my-model", model="my-model")


def test_it_reads_by_the_chat_template_that_it_was_trained_with(store: LocalStorage, ask: Ask) -> None:
    before = ask("my-model", model="my-model")
    tokenizer = byte_tokenizer()
    tokenizer.chat_template = "{% for message in messages %}{{ message.content }}<|end|>{% endfor %}<|assistant|>"
    tokenizer.save_pretrained(store.root / "models" / "my-model")
    assert ask("my-model", model="my-model") != before


def test_an_adapter_without_a_tokeniser_takes_its_bases(store: LocalStorage, ask: Ask) -> None:
    before = ask("my-model", model="my-model")
    for path in (store.root / "models" / "my-model").glob("*token*"):
        path.unlink()
    assert not (store.root / "models" / "my-model" / "tokenizer_config.json").exists()
    assert ask("my-model", model="my-model") == before


def load(store: LocalStorage, **changes: Any) -> None:
    CausalModel.load(EngineConfig.model_validate({**SETTINGS, **changes}), store).close()


def test_a_base_of_another_revision_is_refused(store: LocalStorage) -> None:
    card(store, "0" * 32)
    with pytest.raises(ModelError, match=r"adapter 'my-model' was trained on revision 0+ of its base, but 'chat' in"):
        load(store, model="my-model")


def test_an_adapter_whose_base_is_gone_is_refused(store: LocalStorage) -> None:
    (store.root / "models" / "chat").rename(store.root / "models" / "gone")
    with pytest.raises(NotFoundError, match=r"adapter 'my-model' needs its base: model 'chat' not found"):
        load(store, model="my-model")


def test_adapters_over_an_adapter_are_refused(store: LocalStorage) -> None:
    with pytest.raises(
        UsageError, match=r"^model=my-model with adapters=it: .*; set model=chat and name my-model among the adapters$"
    ):
        load(store, model="my-model", adapters={"it": "my-model"})
