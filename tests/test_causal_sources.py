"""A language model that was taught to copy from its sources, behind the engine: what they say reaches the answer."""

from __future__ import annotations

import random
from collections.abc import Iterator

import pytest
from tiny_language_models import fit, save, tiny_llama, word_tokenizer, words_of

from ray_jobs.answer.chat_layout import ChatLayout
from ray_jobs.answer.engine import Engine, Message, Request
from ray_jobs.answer.engine_config import EngineConfig, load_engine
from ray_jobs.answer.grounding import problems
from ray_jobs.answer.prompt import FROM_SOURCES, assemble
from ray_jobs.answer.protocol import Answer, Passage, complete
from ray_jobs.answer.quoting import ABSTENTION

THINGS = ["door", "roof", "tower", "garden", "bridge", "river", "castle", "market", "harbour", "station"]
COLOURS = ["red", "green", "blue", "white", "black", "yellow", "brown", "grey", "golden", "silver", "orange", "purple"]
UNSEEN = [(thing, colour) for i, thing in enumerate(THINGS) for j, colour in enumerate(COLOURS) if (i + j) % 6 == 0]
WEATHER = "The weather is fine."
# What is the same in every prompt is one token each: the model has the rest to learn.
FIXED = [
    FROM_SOURCES,
    ABSTENTION,
    "Sources, each between <source-",
    "> and </source-",
    ">:\n<source-",
    ' number="1">\n',
    ' number="2">\n',
    "\n</source-",
    ">\n<source-",
    ">\n\nQuestion:",
]


def passages(*texts: str) -> list[Passage]:
    return [Passage(n, f"d{n}", f"d{n}@0#0", "", "", None, "s", 0, len(t), t, 1.0) for n, t in enumerate(texts, 1)]


def fact(thing: str, colour: str) -> str:
    return f"The {thing} is {colour}."


def examples(layout: ChatLayout, tokenizer: object, count: int, seed: int) -> Iterator[tuple[list[int], list[int]]]:
    """Prompts with and without the fact that is asked for, and the right answers; never an unseen pair."""
    chance = random.Random(seed)
    seen = [pair for thing in THINGS for colour in COLOURS if (pair := (thing, colour)) not in UNSEEN]
    for _ in range(count):
        thing, colour = chance.choice(seen)
        told = fact(thing, colour)
        texts = chance.choice([[told], [told, WEATHER], [WEATHER, told], [WEATHER], [WEATHER, WEATHER]])
        cited = f"The {thing} is {colour} [{texts.index(told) + 1}]." if told in texts else ABSTENTION
        prompt = assemble(f"What colour is the {thing}?", passages(*texts), (), 2000, layout.reading)
        ids = tokenizer(cited, add_special_tokens=False)["input_ids"]  # type: ignore[operator]
        yield layout.ids(prompt.messages), [*ids, tokenizer.eos_token_id]  # type: ignore[attr-defined]


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory) -> Engine:
    texts = [fact(thing, colour) for thing in THINGS for colour in COLOURS]
    tokenizer = word_tokenizer(words_of(" [1] [2]", WEATHER, " What colour is the ?", *texts))
    tokenizer.add_tokens(FIXED)
    layout = ChatLayout(tokenizer, {})
    rows = list(examples(layout, tokenizer, 16 * 300, seed=1))
    model = tiny_llama(
        tokenizer,
        hidden_size=64,
        intermediate_size=128,
        num_key_value_heads=4,
        initializer_range=0.05,
        tie_word_embeddings=True,
    )
    fit(model, (rows[start : start + 16] for start in range(0, len(rows), 16)), rate=6e-3)
    folder = save(tmp_path_factory.mktemp("copying"), model, tokenizer)
    return load_engine(EngineConfig(engine="transformers", model=str(folder), device="cpu", precision="float32"))


def ask(engine: Engine, thing: str, *texts: str) -> Answer:
    question = f"What colour is the {thing}?"
    request = Request(engine.models[0], (Message("user", question),))
    given = passages(*texts)
    answer = complete(engine.generator(request), question, given)
    assert answer is not None
    assert problems(answer.text, answer.citations, given) == []
    return answer


def test_what_stands_in_a_source_reaches_the_answer_with_its_citation(engine: Engine) -> None:
    told = [(pair, ask(engine, pair[0], WEATHER, fact(*pair))) for pair in UNSEEN]
    right = [answer for (thing, colour), answer in told if answer.text == f"The {thing} is {colour} [2]."]
    assert len(right) >= len(UNSEEN) - 1
    assert all(answer.grounded and answer.finish_reason == "stop" for answer in right)
    assert all(answer.citations[0].quote in {fact(*pair) for pair in UNSEEN} for answer in right)


def test_what_stands_in_no_source_does_not(engine: Engine) -> None:
    for thing, colour in UNSEEN[:6]:
        answer = ask(engine, thing, WEATHER)
        assert colour not in answer.text
        assert (answer.text, answer.grounded, answer.citations) == (ABSTENTION, False, ())


def test_without_any_source_the_model_is_not_asked(engine: Engine) -> None:
    answer = ask(engine, "door")
    assert (answer.text, answer.grounded, answer.usage) == (ABSTENTION, False, None)
