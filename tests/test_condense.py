from __future__ import annotations

from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ray_jobs.answer.condense import condense_by_model, condense_by_rule
from ray_jobs.answer.engine import Message
from ray_jobs.errors import UsageError
from ray_jobs.index.analysis import Analyzer

ANALYZER = Analyzer()
SERVE = "How does Ray Serve scale replicas?"
TURNS = st.lists(st.builds(Message, st.sampled_from(["system", "user", "assistant"]), st.text(max_size=60)), max_size=5)


def conversation(*turns: str) -> list[Message]:
    """Turns of user and assistant in alternation, the user's first and last."""
    return [Message("user" if i % 2 == 0 else "assistant", turn) for i, turn in enumerate(turns)]


@pytest.mark.parametrize(
    "question",
    [
        "How many CPUs does a task reserve?",
        "Which port does the dashboard of a cluster use?",
        "Does it restart an actor of a failed node when max_restarts is set?",
    ],
)
def test_a_question_with_words_of_its_own_stays_as_it_is(question: str) -> None:
    assert condense_by_rule(conversation(SERVE, "By queue length.", question), ANALYZER) == question


@pytest.mark.parametrize("question", ["Why?", "And on GPUs?", "What is its default?", "How long does that take?"])
def test_a_question_that_leans_on_earlier_turns_gets_their_words(question: str) -> None:
    condensed = condense_by_rule(conversation(SERVE, "By queue length.", question), ANALYZER)
    assert condensed == f"{question} Ray Serve scale replicas"


def test_the_latest_turn_gives_its_words_first_and_no_more_are_added_than_help() -> None:
    long = " ".join(f"word{i}" for i in range(20))
    assert condense_by_rule(conversation(long, "Yes.", "And actors of Ray?", "No.", "Why?"), ANALYZER) == (
        "Why? actors Ray word0 word1 word2 word3 word4 word5"
    )


def test_the_assistants_words_are_not_added() -> None:
    assert "queue" not in condense_by_rule(conversation(SERVE, "By queue length.", "Why?"), ANALYZER)


@given(TURNS, st.text(min_size=1).filter(str.strip))
def test_the_rule_begins_with_the_question_and_adds_only_the_users_words(turns: list[Message], question: str) -> None:
    condensed = condense_by_rule([*turns, Message("user", question)], ANALYZER)
    assert condensed.startswith(question.strip())
    earlier = " ".join(turn.content for turn in turns if turn.role == "user")
    assert all(word in earlier for word in condensed.removeprefix(question.strip()).split())


@pytest.mark.parametrize(
    "messages",
    [[], [Message("user", "a"), Message("assistant", "b")], [Message("user", " \n")], [Message("system", "a")]],
)
def test_a_conversation_without_a_last_question_is_refused(messages: list[Message]) -> None:
    with pytest.raises(UsageError, match="ends with a question"):
        condense_by_rule(messages, ANALYZER)


def test_the_model_sees_the_conversation_and_its_question_is_taken() -> None:
    seen: list[Sequence[Message]] = []

    def write(prompt: Sequence[Message]) -> str:
        seen.append(prompt)
        return 'Question: "Why does Ray Serve scale replicas?"\n\nI hope this helps.'

    assert condense_by_model(conversation(SERVE, "By queue length.", "Why?"), ANALYZER, write) == (
        "Why does Ray Serve scale replicas?"
    )
    (prompt,) = seen
    assert [message.role for message in prompt] == ["system", "user"]
    assert f"user: {SERVE}\nassistant: By queue length.\n\nLast question: Why?" in prompt[1].content


def test_a_first_question_does_not_cost_a_call() -> None:
    def write(prompt: Sequence[Message]) -> str:
        raise AssertionError("asked")

    assert condense_by_model([Message("system", "Be kind."), Message("user", "Why?")], ANALYZER, write) == "Why?"


@pytest.mark.parametrize(
    "written",
    [
        "",
        " \n ",
        "Sure, here is the rewritten question you wanted",
        "What is the capital of France?",
        "How does Ray Serve scale replicas?",
        "What is the default? " * 40,
    ],
    ids=["nothing", "white space", "chatter", "made up", "another question", "endless"],
)
def test_what_a_model_writes_beside_the_point_is_not_taken(written: str) -> None:
    turns = conversation(SERVE, "By queue length.", "What is its default?")
    assert condense_by_model(turns, ANALYZER, lambda _: written) == condense_by_rule(turns, ANALYZER)
