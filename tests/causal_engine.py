"""A small model with two adapters, and an engine that writes with it."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tiny_language_models import byte_tokenizer, save, save_adapter, tiny_llama

from ray_jobs.answer.causal import CausalModel
from ray_jobs.answer.engine import Message, Request, Sampling
from ray_jobs.answer.engine_config import EngineConfig
from ray_jobs.answer.protocol import Answer, complete
from ray_jobs.answer.written import WritingEngine

QUESTION = "What does Ray run?"


def models(root: Path) -> Path:
    """A model and two adapters of it, in the new folder `root`; returns it."""
    tokenizer = byte_tokenizer()
    # The end token is never the most likely one, so that answers are as long as they may be.
    model = tiny_llama(tokenizer)
    model.lm_head.weight.data[tokenizer.eos_token_id] = 0
    base = save(root / "base", model, tokenizer)
    save_adapter(root / "formal", base, seed=1)
    save_adapter(root / "casual", base, seed=2)
    return root


def config(folder: Path, **changes: object) -> EngineConfig:
    settings = {"engine": "transformers", "model": str(folder / "base"), "device": "cpu", "precision": "float32"}
    return EngineConfig.model_validate({**settings, "max_new_tokens": 24, **changes})


@contextmanager
def loading(folder: Path) -> Iterator[Callable[..., WritingEngine]]:
    """Loads engines; their threads end with it."""
    loaded: list[CausalModel] = []

    def load(**changes: object) -> WritingEngine:
        chosen = config(folder, **changes)
        loaded.append(CausalModel.load(chosen))
        return WritingEngine(loaded[-1], chosen.min_support)

    try:
        yield load
    finally:
        for model in loaded:
            model.close()


def request(model: str = "base", **sampling: Any) -> Request:
    return Request(model, (Message("user", QUESTION),), Sampling(**sampling), closed_book=True)


def answer(engine: WritingEngine, model: str = "base", **sampling: Any) -> Answer:
    written = complete(engine.generator(request(model, **sampling)), QUESTION, [])
    assert written is not None
    return written


def changed(folder: Path, target: Path, name: str) -> Path:
    shutil.copytree(folder / name, target / name)
    return target / name
