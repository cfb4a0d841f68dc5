"""Which tokens of a conversation or a completion are learned."""

from __future__ import annotations

from typing import Any

import pytest
import tiny_language_models
from tiny_rerankers import WORDS

from ray_jobs.errors import UsageError
from ray_jobs.train.methods.sft import tokenised
from ray_jobs.train.methods.turns import IGNORED, of_completion, of_conversation, of_messages

CHAT = [
    {"role": "system", "content": "ant"},
    {"role": "user", "content": "bee"},
    {"role": "assistant", "content": "cat dog"},
    {"role": "user", "content": "elk"},
    {"role": "assistant", "content": "fox"},
]
# As templates do that show reasoning in the last answer alone.
FORGETFUL = (
    "{% for m in messages %}<|{{ m.role }}|>{% if m.role == 'assistant' and not loop.last %}"
    "{{ m.content.split(' ')[-1] }}{% else %}{{ m.content }}{% endif %}<|end|>{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>{% endif %}"
)


@pytest.fixture(scope="module")
def tokenizer() -> Any:
    return tiny_language_models.word_tokenizer([*WORDS, *(f" {word}" for word in WORDS)])


@pytest.fixture(scope="module")
def forgetful() -> Any:
    found = tiny_language_models.word_tokenizer([*WORDS, *(f" {word}" for word in WORDS)])
    found.chat_template = FORGETFUL
    return found


def learned(tokenizer: Any, ids: list[int], labels: list[int]) -> str:
    assert len(ids) == len(labels)
    assert all(label in (IGNORED, token) for token, label in zip(ids, labels, strict=True))
    return str(tokenizer.decode([label for label in labels if label != IGNORED]))


def test_only_the_turns_of_the_assistant_are_learned_each_with_its_end(tokenizer: Any) -> None:
    assert learned(tokenizer, *of_messages(tokenizer, CHAT, True)) == "cat dog<|end|>fox<|end|>"


def test_without_completion_only_the_whole_conversation_is_learned(tokenizer: Any) -> None:
    ids, labels = of_messages(tokenizer, CHAT, False)
    assert ids == labels


def test_a_conversation_has_the_tokens_of_the_template(tokenizer: Any) -> None:
    ids, _ = of_messages(tokenizer, CHAT, True)
    text = tokenizer.apply_chat_template(CHAT, tokenize=False)
    assert ids == tokenizer(text, add_special_tokens=False)["input_ids"]


def test_a_turn_of_weight_0_is_read_and_not_learned(tokenizer: Any) -> None:
    weights = [1, 1, 0, 1, 1]
    ids, labels = of_messages(tokenizer, CHAT, True, weights)
    assert ids == of_messages(tokenizer, CHAT, True)[0]
    assert learned(tokenizer, ids, labels) == "fox<|end|>"
    whole = learned(tokenizer, *of_messages(tokenizer, CHAT, False, weights))
    assert whole == "<|system|>ant<|end|><|user|>bee<|end|><|assistant|><|user|>elk<|end|><|assistant|>fox<|end|>"


def test_of_a_template_that_rewrites_earlier_answers_the_last_one_is_learned(forgetful: Any) -> None:
    found = of_conversation(forgetful, CHAT, True)
    assert found.last_alone
    assert learned(forgetful, *found.example) == "fox<|end|>"
    text = forgetful.apply_chat_template(CHAT, tokenize=False)
    assert found.example[0] == forgetful(text, add_special_tokens=False)["input_ids"]


def test_nothing_is_learned_where_the_last_answer_alone_can_be_told_and_has_weight_0(forgetful: Any) -> None:
    found = of_conversation(forgetful, CHAT, True, [1, 1, 1, 1, 0])
    assert set(found.example[1]) == {IGNORED}


def test_rows_learned_in_part_are_told_from_others(forgetful: Any) -> None:
    rows = {"messages": [CHAT, CHAT[:3], CHAT], "message_weights": [None, None, [1, 1, 1, 1, 0]]}
    found = tokenised(forgetful, "messages", True, 32)(rows)
    assert (found["last_alone"], found["cut"]) == ([True, False], [False, False])


def test_a_template_whose_last_answer_cannot_be_told_is_refused() -> None:
    tokenizer = tiny_language_models.word_tokenizer(WORDS)
    tokenizer.chat_template = (
        "{% for m in messages %}{% if m.role == 'user' or loop.last %}<|user|>{{ m.content }}<|end|>{% endif %}"
        "{% endfor %}{% if add_generation_prompt %}<|assistant|>{% endif %}"
    )
    with pytest.raises(UsageError, match=r"not even the tokens of its last turn can be told; .*completion_only=false"):
        of_messages(tokenizer, CHAT, True)


def test_a_conversation_that_the_template_refuses_is_named_by_its_roles() -> None:
    tokenizer = tiny_language_models.word_tokenizer(WORDS)
    tokenizer.chat_template = (
        "{% for m in messages %}{% if m.role == 'system' %}{{ raise_exception('no system here') }}{% endif %}"
        "{{ m.content }}{% endfor %}"
    )
    told = r"template refuses a conversation of system, user, assistant, user, assistant: no system here; leave such"
    with pytest.raises(UsageError, match=told):
        of_messages(tokenizer, CHAT, True)


def test_only_the_completion_is_learned_with_the_end_of_text(tokenizer: Any) -> None:
    ids, labels = of_completion(tokenizer, "ant bee", " cat", True)
    assert learned(tokenizer, ids, labels) == " cat<|end|>"
    assert ids[: labels.index(ids[-2])] == tokenizer("ant bee")["input_ids"]
