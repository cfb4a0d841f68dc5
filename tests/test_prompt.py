from __future__ import annotations

import re
from collections.abc import Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ray_jobs.answer.engine import Message
from ray_jobs.answer.fencing import fence_for, neutralise
from ray_jobs.answer.grounding import cited_numbers
from ray_jobs.answer.prompt import CLOSED_BOOK, FROM_SOURCES, Prompt, Reading, assemble
from ray_jobs.answer.protocol import Passage
from ray_jobs.answer.quoting import ABSTENTION
from ray_jobs.errors import UsageError

RESERVED = ("<|im_start|>", "<|im_end|>", "</s>", "[INST]", "a b")
SPECIAL = st.sampled_from(
    [
        *RESERVED,
        "<|IM_END|>",
        "[1]",
        "[23]",
        "</source-",
        '<source-0123abcd number="1">',
        "\x00",
        "\u202e",
        "\U000e0041",
    ]
)
WORDS = st.sampled_from(["Ray", "runs", "tasks.", "Actors", "keep", "state.", "One", "CPU", "\n", "Is", "it?"])
TEXTS = st.lists(WORDS | SPECIAL | st.text(max_size=5), max_size=12).map(" ".join)
TURNS = st.lists(st.builds(Message, st.sampled_from(["user", "assistant", "system"]), TEXTS), max_size=5)
BLOCK = re.compile(r'<source-(\w{8}) number="(\d+)">\n(.*?)\n</source-\1>', re.DOTALL)


def words(messages: Sequence[Message]) -> int:
    """A reading whose tokens are words."""
    return sum(len(message.content.split()) + 1 for message in messages)


READING = Reading(words, RESERVED)


def passage(number: int, text: str, title: str = "Guide", heading: str = "") -> Passage:
    return Passage(
        number, f"doc{number}", f"doc{number}@0#0", title, heading, None, "guide.md", 0, len(text), text, 1.0 / number
    )


def passages(texts: Sequence[str]) -> list[Passage]:
    return [passage(number, text, title=text[:9]) for number, text in enumerate(texts, 1)]


def sources(prompt: Prompt) -> list[tuple[int, str]]:
    """Number and text of each source as it stands in the prompt, headers included."""
    return [(int(number), text) for _, number, text in BLOCK.findall(prompt.messages[-1].content)]


RAY = "Ray runs tasks. Each asks for one CPU. Actors keep state."
TEA = "Tea is brewed hot."


def test_a_prompt_has_instructions_turns_sources_and_the_question() -> None:
    earlier = [Message("user", "What is Ray?"), Message("assistant", "A framework [1].")]
    prompt = assemble("How many CPUs?", [passage(1, RAY, "Tasks", "Guide > CPUs")], earlier, 999, READING)
    system, *turns, asked = prompt.messages
    assert system == Message("system", FROM_SOURCES)
    assert turns == [Message("user", "What is Ray?"), Message("assistant", "A framework.")]
    assert sources(prompt) == [(1, f"Title: Tasks\nSection: Guide > CPUs\n{RAY}")]
    assert asked.role == "user"
    assert asked.content.endswith("\n\nQuestion: How many CPUs?")
    assert ABSTENTION in system.content


def test_without_passages_the_model_answers_from_what_it_knows() -> None:
    prompt = assemble("Why?", [], [Message("system", "Answer like a pirate.")], 999, READING)
    assert prompt.messages == (
        Message("system", f"{CLOSED_BOOK}\n\nAnswer like a pirate."),
        Message("user", "Why?"),
    )


@given(TEXTS, st.lists(TEXTS, max_size=4), TURNS, st.integers(90, 400))
def test_no_prompt_is_longer_than_its_budget_and_every_question_is_whole(
    question: str, texts: list[str], turns: list[Message], budget: int
) -> None:
    given_passages = passages(texts)
    try:
        prompt = assemble(question, given_passages, turns, budget, READING)
    except UsageError:
        assert words(assemble(question, given_passages, [], 10**6, READING).messages) > budget or any(
            turn.role == "system" for turn in turns
        )
        return
    assert words(prompt.messages) <= budget
    assert prompt.messages[-1].content.endswith(neutralise(question, RESERVED).strip())


@given(TEXTS, st.lists(TEXTS, max_size=4), TURNS, st.integers(90, 400))
def test_sources_are_the_first_passages_and_end_at_sentence_ends(
    question: str, texts: list[str], turns: list[Message], budget: int
) -> None:
    try:
        prompt = assemble(question, passages(texts), turns, budget, READING)
    except UsageError:
        return
    found = sources(prompt)
    assert [number for number, _ in found] == list(range(1, len(found) + 1)) == [p.number for p in prompt.passages]
    for number, text in found:
        whole = neutralise(texts[number - 1], RESERVED).strip()
        shown = text.removeprefix(f"Title: {neutralise(' '.join(texts[number - 1][:9].split()), RESERVED)}\n")
        assert whole.startswith(shown)
        assert number == len(found) or shown == whole


@given(TEXTS, st.lists(TEXTS, min_size=1, max_size=4), TURNS)
def test_no_text_can_close_a_fence_or_speak_as_anyone_else(
    question: str, texts: list[str], turns: list[Message]
) -> None:
    prompt = assemble(question, passages(texts), turns, 10**6, READING)
    everything = "\n".join(message.content for message in prompt.messages)
    for ours in (FROM_SOURCES, "Question"):
        everything = everything.replace(ours, "")
    assert not any(string.lower() in everything.lower() for string in RESERVED)
    assert not re.search("[\x00-\x08\u202a-\u202e\U000e0000-\U000e007f]", everything)
    if found := re.search(r"each between <(source-\w{8})>", everything):
        shown = len(sources(prompt))
        assert everything.count(found[1]) == 2 + 2 * shown
        assert all(found[1] not in text for _, text in sources(prompt))
    roles = [message.role for message in prompt.messages]
    assert roles == ["system", *(["user", "assistant"] * len(roles))[: len(roles) - 1]]


@given(st.lists(TEXTS, min_size=1, max_size=4))
def test_no_source_holds_a_marker_of_its_own(texts: list[str]) -> None:
    assert all(not cited_numbers(text) for _, text in sources(assemble("Why?", passages(texts), [], 10**6, READING)))


def test_sources_are_cut_at_a_sentence_before_the_question_is() -> None:
    whole = words(assemble("How many?", passages([TEA, RAY]), [], 999, READING).messages)
    prompt = assemble("How many?", passages([TEA, RAY]), [], whole - 1, READING)
    assert [text.splitlines()[-1] for _, text in sources(prompt)] == [TEA, "Ray runs tasks. Each asks for one CPU."]


def test_old_turns_go_before_new_ones_and_leave_room_for_sources() -> None:
    turns = [Message("user" if i % 2 == 0 else "assistant", f"turn{i} " + "word " * 30) for i in range(6)]
    prompt = assemble("How many?", passages([RAY] * 6), turns, 260, READING)
    kept = [message.content.split()[0] for message in prompt.messages[1:-1]]
    assert kept == [f"turn{i}" for i in range(6)][len(turns) - len(kept) :]
    assert 0 < len(kept) < 6
    assert len(prompt.passages) >= 3


def test_turns_take_what_sources_leave() -> None:
    turns = [Message("user" if i % 2 == 0 else "assistant", "word " * 30) for i in range(6)]
    whole = words(assemble("How many?", passages([TEA]), turns, 9999, READING).messages)
    assert len(assemble("How many?", passages([TEA]), turns, whole - 1, READING).messages) >= 6


def test_a_question_without_room_is_refused_with_numbers() -> None:
    with pytest.raises(UsageError, match=r"have \d{3} tokens, expected at most 90 beside the answer"):
        assemble("word " * 100, passages([RAY]), [], 90, READING)


def test_the_same_request_gives_the_same_prompt() -> None:
    assert assemble("Why?", passages([RAY]), [], 999, READING) == assemble("Why?", passages([RAY]), [], 999, READING)


@settings(max_examples=50)
@given(st.lists(TEXTS, max_size=4))
def test_a_fence_stands_in_none_of_the_texts(texts: list[str]) -> None:
    chosen = fence_for(texts)
    assert not any(chosen in text.lower() for text in texts)
    # A text that knows the word that the others get changes it.
    assert fence_for([*texts, chosen.upper()]) != chosen


def test_code_keeps_its_meaning_and_special_tokens_lose_theirs() -> None:
    assert neutralise("x = values[0]\r\nok<|Im_End|>\x1b[0m", RESERVED) == "x = values[ 0 ]\nok< |Im_End|>[0m"


def test_a_special_token_of_one_character_is_blanked() -> None:
    assert neutralise("a§b", ("§",)) == "a b"
