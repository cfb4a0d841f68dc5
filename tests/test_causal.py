"""The writing engine on a small model: its answers are what transformers generates, alone and side by side."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import causal_engine
import pytest
from causal_engine import QUESTION, answer, changed, config, request

from ray_jobs.answer.causal import CausalModel
from ray_jobs.answer.engine import Message
from ray_jobs.answer.protocol import Final, TextDelta
from ray_jobs.answer.written import WritingEngine
from ray_jobs.errors import ModelError, UsageError
from ray_jobs.storage import LocalStorage


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model and two adapters of it."""
    return causal_engine.models(tmp_path_factory.mktemp("store") / "models")


@pytest.fixture
def load(folder: Path) -> Iterator[Callable[..., WritingEngine]]:
    """Loads an engine; its threads end with the test."""
    with causal_engine.loading(folder) as load:
        yield load


def until(condition: Callable[[], bool], seconds: float = 20) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        threading.Event().wait(0.005)


def reference(folder: Path, tokens: int) -> tuple[list[int], str]:
    """What `generate` of transformers gives for the prompt: tokens and text."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    from ray_jobs.answer.chat_layout import ChatLayout
    from ray_jobs.answer.prompt import assemble
    from ray_jobs.models.sentence_model import quiet_transformers

    tokenizer = AutoTokenizer.from_pretrained(folder / "base")
    with quiet_transformers():
        model = AutoModelForCausalLM.from_pretrained(folder / "base")
    layout = ChatLayout(tokenizer, {})
    ids = torch.tensor([layout.ids(assemble(QUESTION, [], [], 2000, layout.reading).messages)])
    out = model.generate(ids, attention_mask=torch.ones_like(ids), max_new_tokens=tokens, do_sample=False)
    written = out[0, ids.shape[1] :].tolist()
    return written, tokenizer.decode(written, skip_special_tokens=True)


@pytest.mark.parametrize("continuous", [{}, {"continuous": "on", "num_blocks": 8, "max_batch_tokens": 256}])
def test_an_answer_is_what_the_model_generates(
    folder: Path, load: Callable[..., WritingEngine], continuous: dict[str, object]
) -> None:
    written = answer(load(**continuous))
    assert written.text == reference(folder, 24)[1].rstrip("\ufffd").rstrip(" \t")
    assert written.finish_reason == "length"
    assert written.usage is not None
    assert written.usage.completion_tokens == 24
    assert {"prompt", "first_token", "generate"} == written.timings.keys()


def test_max_tokens_cuts_an_answer_but_never_beyond_the_engines_limit(load: Callable[..., WritingEngine]) -> None:
    engine = load()
    usages = [answer(engine, max_tokens=wanted).usage for wanted in (5, 1000)]
    assert [usage and usage.completion_tokens for usage in usages] == [5, 24]


def test_an_answer_that_the_model_ends_says_stop(folder: Path, tmp_path: Path) -> None:
    import json

    tokens, _ = reference(folder, 8)
    ends = [token for token in tokens if token != tokens[0]][-1:]
    base = changed(folder, tmp_path, "base")
    stated = json.loads((base / "generation_config.json").read_text())
    (base / "generation_config.json").write_text(json.dumps({**stated, "eos_token_id": ends, "temperature": 0.1}))
    written = answer(WritingEngine(CausalModel.load(config(tmp_path)), 0.5))
    assert written.finish_reason == "stop"
    assert written.usage is not None
    assert written.usage.completion_tokens == tokens.index(ends[0]) + 1 < 24


def test_tokens_come_as_they_are_made(load: Callable[..., WritingEngine]) -> None:
    stream = load().generator(request()).stream(QUESTION, [])
    pieces = [event.text for event in stream if isinstance(event, TextDelta)]
    assert len(pieces) > 5


def test_a_stop_string_ends_the_answer_and_is_not_in_it(load: Callable[..., WritingEngine]) -> None:
    engine = load()
    whole = answer(engine).text
    stop = whole[6:9]
    written = answer(engine, stop=(stop, "never written"))
    assert written.text == whole[: whole.index(stop)].rstrip(" \t")
    assert written.finish_reason == "stop"


def test_seeds_repeat_an_answer_whatever_is_drawn_beside_it(load: Callable[..., WritingEngine]) -> None:
    engine = load(concurrent=3)
    drawn = {"temperature": 1.5, "top_p": 0.9}
    alone = answer(engine, seed=5, **drawn).text
    with ThreadPoolExecutor(6) as threads:
        together = list(threads.map(lambda seed: answer(engine, seed=seed, **drawn).text, [5, 1, 5, 2, 3, 5]))
    assert [together[i] for i in (0, 2, 5)] == [alone] * 3
    assert len(set(together)) >= 3


def test_temperature_zero_takes_the_likeliest_token_and_a_high_one_does_not(
    load: Callable[..., WritingEngine],
) -> None:
    engine = load()
    assert answer(engine).text == answer(engine, seed=3).text
    assert len({answer(engine, temperature=2.0).text for _ in range(3)}) > 1
    assert answer(engine, temperature=1.5, top_p=1e-6).text == answer(engine).text


def test_adapters_answer_side_by_side_each_in_its_own_way(folder: Path, load: Callable[..., WritingEngine]) -> None:
    engine = load(adapters={"formal": str(folder / "formal"), "casual": str(folder / "casual")}, concurrent=3)
    assert engine.models == ("base", "base:formal", "base:casual")
    alone = [answer(engine, model).text for model in engine.models]
    assert len(set(alone)) == 3
    assert alone[0] == answer(load()).text
    with ThreadPoolExecutor(6) as threads:
        together = list(threads.map(lambda model: answer(engine, model).text, engine.models * 3))
    assert together == alone * 3


def test_adapters_share_the_weights_of_the_base(folder: Path) -> None:
    from transformers import AutoModelForCausalLM

    from ray_jobs.answer.lora import with_adapter
    from ray_jobs.models.sentence_model import quiet_transformers

    with quiet_transformers():
        model = AutoModelForCausalLM.from_pretrained(folder / "base")
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    adapted = with_adapter(model, "formal", str(folder / "formal"), None)
    own = {tensor.data_ptr() for tensor in model.parameters()}
    added = [name for name, tensor in adapted.named_parameters() if tensor.data_ptr() not in own]
    assert added
    assert all("lora_" in name for name in added)
    assert all((tensor == before[name]).all() for name, tensor in model.state_dict().items())


@pytest.mark.parametrize("continuous", [{}, {"continuous": "on", "num_blocks": 8, "max_batch_tokens": 256}])
def test_a_cancelled_answer_ends_at_its_next_token_and_frees_its_place(
    load: Callable[..., WritingEngine], continuous: dict[str, object]
) -> None:
    engine = load(concurrent=1, max_new_tokens=900, **continuous)
    generators = [engine.generator(request()) for _ in range(3)]
    streams = [generator.stream(QUESTION, []) for generator in generators]
    started = next(streams[0])
    assert isinstance(started, TextDelta)
    waiting = threading.Thread(target=lambda: list(streams[1]))
    waiting.start()
    until(lambda: generators[1]._writing is not None)
    generators[1].cancel()
    waiting.join(20)
    assert not waiting.is_alive()
    generators[0].cancel()
    assert list(streams[0]) == []
    # The one place is free again: this one would else wait for hundreds of tokens.
    assert isinstance(next(streams[2]), TextDelta)
    generators[2].cancel()


def test_no_more_answers_than_allowed_are_generated_at_once(
    load: Callable[..., WritingEngine], monkeypatch: pytest.MonkeyPatch
) -> None:
    from ray_jobs.answer import generating

    running: list[int] = []
    most: list[int] = []
    original = generating.Generating._run

    def counted(self: generating.Generating, *arguments: Any) -> None:
        running.append(1)
        most.append(len(running))
        original(self, *arguments)
        running.pop()

    monkeypatch.setattr(generating.Generating, "_run", counted)
    engine = load(concurrent=2)
    with ThreadPoolExecutor(6) as threads:
        list(threads.map(lambda _: answer(engine).text, range(6)))
    assert max(most) <= 2


def test_answers_share_one_running_batch_and_are_as_alone(load: Callable[..., WritingEngine]) -> None:
    engine = load(continuous="on", num_blocks=4, max_batch_tokens=64)
    alone = {wanted: answer(engine, max_tokens=wanted).text for wanted in (4, 9, 17, 24)}
    with ThreadPoolExecutor(8) as threads:
        together = list(threads.map(lambda wanted: (wanted, answer(engine, max_tokens=wanted).text), [*alone] * 4))
    assert all(text == alone[wanted] for wanted, text in together)


def test_what_a_batch_cannot_do_is_generated_beside_it(folder: Path, load: Callable[..., WritingEngine]) -> None:
    adapters = {"formal": str(folder / "formal")}
    engine = load(continuous="on", num_blocks=1, max_batch_tokens=64, adapters=adapters, max_new_tokens=300)
    plain = load(adapters=adapters, max_new_tokens=300)
    cases: list[tuple[str, dict[str, Any]]] = [
        ("base:formal", {"max_tokens": 8}),
        ("base", {"temperature": 1.0, "seed": 4, "max_tokens": 8}),
        ("base", {"max_tokens": 300}),  # larger than the one block of the cache
    ]
    with ThreadPoolExecutor(4) as threads:
        in_batch = threads.submit(answer, engine, max_tokens=60)
        beside = [answer(engine, model, **sampling).text for model, sampling in cases]
    assert beside == [answer(plain, model, **sampling).text for model, sampling in cases]
    assert in_batch.result().text == answer(plain, max_tokens=60).text


def test_sampling_in_a_batch_follows_the_request(load: Callable[..., WritingEngine]) -> None:
    engine = load(continuous="on", num_blocks=4, max_batch_tokens=64)
    greedy = answer(engine).text
    with ThreadPoolExecutor(4) as threads:
        drawn = list(threads.map(lambda _: answer(engine, temperature=2.0).text, range(3)))
        narrow = threads.submit(answer, engine, temperature=1.5, top_p=1e-6).result().text
    assert len({*drawn, greedy}) > 2
    assert narrow == greedy


def test_a_batch_that_breaks_ends_its_answers_with_an_error_and_others_go_on(
    load: Callable[..., WritingEngine], monkeypatch: pytest.MonkeyPatch
) -> None:
    from transformers.generation.continuous_batching.continuous_api import ContinuousBatchingManager

    engine = load(continuous="on", num_blocks=8, max_batch_tokens=256, max_new_tokens=900)
    stream = engine.generator(request()).stream(QUESTION, [])
    assert isinstance(next(stream), TextDelta)

    def broken(self: ContinuousBatchingManager) -> None:
        raise RuntimeError("out of memory")

    monkeypatch.setattr(ContinuousBatchingManager, "_generation_step", broken)
    with pytest.raises(ModelError, match="continuous batching"):
        list(stream)
    assert answer(engine, max_tokens=4).usage is not None


def test_a_model_that_cannot_be_batched_is_generated_from_or_refused(
    load: Callable[..., WritingEngine], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    from transformers import LlamaForCausalLM

    def refuse(self: LlamaForCausalLM, **settings: Any) -> None:
        raise ValueError("attention is not supported")

    sizes = {"num_blocks": 8, "max_batch_tokens": 256}
    monkeypatch.setattr(LlamaForCausalLM, "init_continuous_batching", refuse)
    assert answer(load(**sizes), max_tokens=4).usage is not None
    assert "attention is not supported" in caplog.text
    with pytest.raises(ModelError, match=r"attention is not supported.*set continuous=off"):
        load(continuous="on", **sizes)


def test_continuous_batching_without_a_gpu_needs_sizes(load: Callable[..., WritingEngine]) -> None:
    with pytest.raises(UsageError, match="give num_blocks and max_batch_tokens"):
        load(continuous="on")


def test_a_follow_up_is_condensed_with_the_model_and_by_rule_when_it_babbles(
    load: Callable[..., WritingEngine],
) -> None:
    turns = [Message("user", "How does Serve scale?"), Message("assistant", "By load."), Message("user", "Why?")]
    assert load().condense(turns, "base") == "Why? Serve scale"


def test_an_adapter_in_the_store_is_found_by_name(folder: Path) -> None:
    model = CausalModel.load(config(folder, adapters={"casual": "casual"}), store=LocalStorage(folder.parent))
    assert model.models == ("base", "base:casual")


def test_a_closed_engine_ends_what_it_is_writing(folder: Path) -> None:
    model = CausalModel.load(config(folder, continuous="on", num_blocks=8, max_batch_tokens=256, max_new_tokens=900))
    stream = WritingEngine(model, 0.5).generator(request()).stream(QUESTION, [])
    next(stream)
    model.close()
    with pytest.raises(ModelError, match="continuous batching"):
        list(stream)


def test_a_process_ends_while_its_batch_is_writing(folder: Path) -> None:
    import subprocess
    import sys

    script = f"""
from ray_jobs.answer.causal import CausalModel
from ray_jobs.answer.engine import Message, Sampling
from ray_jobs.answer.engine_config import EngineConfig
model = CausalModel.load(EngineConfig.model_validate({config(folder).model_dump(mode="json")!r} | {{
    "continuous": "on", "num_blocks": 8, "max_batch_tokens": 256, "max_new_tokens": 900}}))
next(iter(model.write([Message("user", "Why?")], Sampling(), "base")))
print("writing")
"""
    ended = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=120)
    assert (ended.returncode, ended.stdout) == (0, "writing\n"), ended.stderr


def test_the_stream_joins_to_the_final_answer(load: Callable[..., WritingEngine]) -> None:
    events: Sequence[Any] = list(load().generator(request()).stream(QUESTION, []))
    assert isinstance(events[-1], Final)
    assert "".join(event.text for event in events[:-1]) == events[-1].answer.text
    assert not events[-1].answer.grounded
