"""Every kind of row: what is accepted under which spelling, and what is rejected with which reason."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ray_jobs.train.data.cleaning import clean
from ray_jobs.train.data.kind import Content, content_id
from ray_jobs.train.data.kinds import EVALUATION_KINDS, KINDS, kind_of
from ray_jobs.train.data.raw_row import WrongRowError
from ray_jobs.train.data.validate import Accepted, Rejected, Rules

WORDS = st.text(min_size=1, max_size=30).filter(lambda text: bool(clean(text).strip()))


def accept(kind: str, raw: dict[str, object], **rules: object) -> list[Accepted]:
    return Rules(KINDS[kind], **rules).accept(raw)[0]  # type: ignore[arg-type]


def content(kind: str, raw: dict[str, object]) -> Content:
    (row,) = accept(kind, raw)
    return row.content


def reason(kind: str, raw: dict[str, object]) -> str:
    with pytest.raises(WrongRowError) as found:
        accept(kind, raw)
    return found.value.reason


@contextmanager
def allowed(*reasons: str) -> Iterator[None]:
    """Whatever is inside holds, unless the row is rejected for one of `reasons`."""
    try:
        yield
    except WrongRowError as error:
        if error.reason not in reasons:
            raise


def turns(*roles: str) -> list[dict[str, str]]:
    return [{"role": role, "content": f"{role} says"} for role in roles]


@pytest.mark.parametrize(
    ("raw", "kind"),
    [
        ({"messages": []}, "messages"),
        ({"conversations": []}, "messages"),
        ({"prompt": "", "completion": ""}, "completion"),
        ({"instruction": "", "input": "", "output": ""}, "completion"),
        ({"prompt": "", "chosen": "", "rejected": ""}, "preference"),
        ({"prompt": "", "completion": "", "label": True}, "label"),
        ({"query": "", "positive": "", "negative": ""}, "retrieval"),
        ({"anchor": "", "positive": ""}, "retrieval"),
        ({"question": "", "context": "", "answers": {}}, "qa"),
        ({"question": "", "passage": "", "answer": ""}, "qa"),
        ({"something": 1}, None),
    ],
)
def test_the_columns_tell_the_kind(raw: dict[str, object], kind: str | None) -> None:
    assert kind_of(raw.keys()) == kind


def test_openai_and_sharegpt_conversations_are_one() -> None:
    openai = {"messages": [{"role": "user", "content": "Why?"}, {"role": "assistant", "content": "So."}]}
    shared = {"conversations": [{"from": "human", "value": "Why?"}, {"from": "gpt", "value": "So."}]}
    assert content("messages", openai) == content("messages", shared)


@pytest.mark.parametrize(
    ("roles", "expected"),
    [
        (["user"], "no-assistant-turn"),
        (["system", "user"], "no-assistant-turn"),
        (["assistant", "user", "assistant"], "wrong-role-order"),
        (["user", "user", "assistant"], "wrong-role-order"),
        (["user", "system", "assistant"], "wrong-role-order"),
        (["user", "assistant", "user"], "last-turn-not-assistant"),
        ([], "empty-messages"),
    ],
)
def test_turns_in_a_wrong_order_are_rejected(roles: list[str], expected: str) -> None:
    assert reason("messages", {"messages": turns(*roles)}) == expected


@pytest.mark.parametrize(
    ("turn", "expected"),
    [
        ({"role": "tool", "content": "x"}, "unknown-role"),
        ({"role": "user", "content": "  "}, "empty-message"),
        ({"role": "user", "content": None}, "bad-message"),
        ({"role": "user", "content": "x", "weight": 0}, "weighted-turn"),
        ({"role": "user", "content": "x", "weight": "1"}, "weighted-turn"),
        ({"role": "user", "content": "x", "tool_calls": [1]}, "not-only-text"),
        ({"role": "user", "content": [{"type": "image_url"}]}, "not-only-text"),
        ("x", "bad-message"),
    ],
)
def test_a_turn_that_cannot_be_taught_is_rejected(turn: object, expected: str) -> None:
    assert reason("messages", {"messages": [turn, {"role": "assistant", "content": "y"}]}) == expected


def test_the_developer_is_the_system() -> None:
    found = content("messages", {"messages": turns("developer", "user", "assistant")})
    assert [turn["role"] for turn in found["messages"]] == ["system", "user", "assistant"]


def test_an_answer_of_weight_0_is_kept_with_its_weight() -> None:
    told = turns("user", "assistant", "user", "assistant")
    first = {**told[1], "weight": 0}
    found = content("messages", {"messages": [told[0], first, *told[2:]], "system": "be brief"})
    assert found["messages"] == [{"role": "system", "content": "be brief"}, *told]
    assert found["message_weights"] == [1, 1, 0, 1, 1]


def test_a_conversation_whose_answers_are_all_learned_has_no_weights() -> None:
    told = turns("user", "assistant")
    assert content("messages", {"messages": [told[0], {**told[1], "weight": 1}]}) == {"messages": told}


@pytest.mark.parametrize(("weight", "expected"), [(0, "nothing-learned"), (0.5, "weighted-turn"), (2, "weighted-turn")])
def test_a_conversation_without_anything_to_learn_or_of_other_weights_is_rejected(
    weight: object, expected: str
) -> None:
    told = turns("user", "assistant")
    assert reason("messages", {"messages": [told[0], {**told[1], "weight": weight}]}) == expected


def test_an_instruction_and_its_input_are_a_prompt_of_two_paragraphs() -> None:
    found = content("completion", {"instruction": "Add", "input": "1 and 2", "output": "3"})
    assert found == {"prompt": "Add\n\n1 and 2", "completion": "3"}
    assert content("completion", {"instruction": "Add", "input": "", "output": "3"})["prompt"] == "Add"


def test_the_first_space_of_a_completion_stays() -> None:
    assert content("completion", {"prompt": "Q:", "completion": " A"})["completion"] == " A"


@pytest.mark.parametrize(
    ("kind", "raw", "expected"),
    [
        ("completion", {"prompt": " ", "completion": "x"}, "empty-prompt"),
        ("completion", {"prompt": "x"}, "missing-completion"),
        ("completion", {"prompt": 3, "completion": "x"}, "bad-prompt"),
        ("preference", {"prompt": "p", "chosen": "a", "rejected": "a "}, "equal-answers"),
        ("label", {"prompt": "p", "completion": "c", "label": "yes"}, "bad-label"),
        ("retrieval", {"query": "q", "positive": "p", "negative": ["p"]}, "negative-is-positive"),
        ("retrieval", {"query": "q", "positive": []}, "missing-positive"),
        ("qa", {"question": "q", "passage": "a b", "answers": ["b"], "starts": [1]}, "answer-not-at-offset"),
        ("qa", {"question": "q", "passage": "a b", "answer": "c"}, "answer-not-in-passage"),
        ("qa", {"question": "q", "passage": "a b"}, "missing-answers"),
        ("qa", {"question": "q", "passage": "a b", "answers": ["b"], "starts": [1, 2]}, "bad-starts"),
    ],
)
def test_a_wrong_row_is_rejected_with_its_reason(kind: str, raw: dict[str, object], expected: str) -> None:
    assert reason(kind, raw) == expected


ASKED = turns("system", "user", "assistant", "user")
SAID = [{"role": "assistant", "content": "yes"}]
OTHER = [{"role": "assistant", "content": "no"}]


def test_a_preference_between_conversations_keeps_the_one_that_they_share() -> None:
    found = content("preference", {"chosen": [*ASKED, *SAID], "rejected": [*ASKED, *OTHER]})
    text = "system: system says\n\nuser: user says\n\nassistant: assistant says\n\nuser: user says"
    assert found == {"prompt": text, "prompt_messages": ASKED, "chosen": "yes", "rejected": "no"}
    assert content("preference", {"prompt": ASKED, "chosen": SAID, "rejected": OTHER}) == found


def test_a_question_as_text_with_answers_as_messages_is_a_conversation() -> None:
    found = content("preference", {"prompt": "user says", "chosen": SAID, "rejected": OTHER})
    assert (found["prompt"], found["prompt_messages"]) == ("user says", turns("user"))


def test_a_labelled_answer_to_a_conversation_keeps_it() -> None:
    found = content("label", {"prompt": turns("user"), "completion": SAID, "label": True})
    assert found == {"prompt": "user says", "prompt_messages": turns("user"), "completion": "yes", "label": True}


def test_preferences_between_texts_have_no_messages_and_the_ids_that_they_had() -> None:
    (row,) = accept("preference", {"prompt": "p", "chosen": "a", "rejected": "b"})
    assert row.content == {"prompt": "p", "chosen": "a", "rejected": "b"}
    assert row.id == "42852391bf83cf9e333669abf45253cb"  # data prepared earlier have it


@pytest.mark.parametrize(
    ("kind", "raw", "expected"),
    [
        ("preference", {"prompt": ASKED, "chosen": "yes", "rejected": "no"}, "bad-prompt"),
        ("preference", {"prompt": ASKED, "chosen": SAID, "rejected": "no"}, "bad-rejected"),
        ("preference", {"chosen": SAID, "rejected": OTHER}, "wrong-role-order"),
        ("label", {"prompt": turns("user", "assistant"), "completion": SAID, "label": True}, "wrong-role-order"),
        ("label", {"prompt": turns("user"), "completion": [], "label": True}, "empty-completion"),
    ],
)
def test_prompts_and_answers_that_are_no_conversation_are_rejected(
    kind: str, raw: dict[str, object], expected: str
) -> None:
    assert reason(kind, raw) == expected


def test_preferences_that_answer_different_prompts_are_rejected() -> None:
    other = [{"role": "user", "content": "other"}, {"role": "assistant", "content": "no"}]
    assert reason("preference", {"chosen": turns("user", "assistant"), "rejected": other}) == "different-prompts"


def test_a_list_of_positives_is_one_row_each() -> None:
    rows = accept("retrieval", {"query": "q", "positive": ["a", "b"], "positive_id": [1, 2], "negative": "n"})
    assert [(row.content["positive"], row.content["positive_id"]) for row in rows] == [("a", "1"), ("b", "2")]


@pytest.mark.parametrize(
    "answers",
    [
        {"answers": {"text": ["b"], "answer_start": [2]}},
        {"answers": [{"text": "b", "answer_start": 2}]},
        {"answers": ["b"], "answer_starts": [2]},
        {"answer": "b"},
    ],
)
def test_every_spelling_of_an_answer_is_the_same_span(answers: dict[str, object]) -> None:
    found = content("qa", {"question": "q", "context": "a b", **answers})
    assert (found["answers"], found["starts"]) == (["b"], [2])


def test_a_passage_without_an_answer_is_a_row() -> None:
    found = content("qa", {"question": "q", "context": "a b", "answers": {"text": [], "answer_start": []}})
    assert (found["answers"], found["starts"]) == ([], [])


@given(before=st.text(max_size=20), answer=WORDS, after=st.text(max_size=20))
def test_an_answer_stays_at_its_offset_through_cleaning(before: str, answer: str, after: str) -> None:
    raw = {"question": "q", "passage": before + answer + after, "answers": [answer], "starts": [len(before)]}
    with allowed("answer-not-at-offset"):  # it composed with what stood beside it
        found = content("qa", raw)
        assert found["passage"].startswith(found["answers"][0], found["starts"][0])


@given(st.text())
def test_cleaning_twice_changes_nothing_more(text: str) -> None:
    assert clean(clean(text)) == clean(text)


def test_a_renamed_column_takes_the_place_of_the_expected_one() -> None:
    raw: dict[str, object] = {"question": "Why?", "answer": "So.", "prompt": "not this"}
    (row,) = accept("completion", raw, columns=(("completion", "answer"), ("prompt", "question")))
    assert row.content == {"prompt": "Why?", "completion": "So."}


def conversation(asked: str) -> dict[str, object]:
    return {"prompt": asked, "prompt_messages": [{"role": "user", "content": asked}]}


# As a prepared row has it: cleaned.
PROMPTS = WORDS.map(clean).flatmap(lambda asked: st.sampled_from([{"prompt": asked}, conversation(asked)]))
CONTENTS = {
    "messages": st.builds(
        lambda a, b, weights: {
            "messages": 2 * [{"role": "user", "content": a}, {"role": "assistant", "content": b}],
            "message_weights": weights,
        },
        WORDS,
        WORDS,
        st.sampled_from([None, [1, 0, 1, 1]]),
    ),
    "completion": st.fixed_dictionaries({"prompt": WORDS, "completion": WORDS}),
    "label": st.builds(
        lambda prompt, answer, label: {**prompt, "completion": answer, "label": label}, PROMPTS, WORDS, st.booleans()
    ),
    "preference": st.builds(
        lambda prompt, *said: {**prompt, "chosen": said[0], "rejected": said[1]}, PROMPTS, WORDS, WORDS
    ),
    "retrieval": st.fixed_dictionaries({"query": WORDS, "positive": WORDS, "negatives": st.lists(WORDS, max_size=2)}),
    "qa": st.fixed_dictionaries({"question": WORDS, "passage": WORDS, "answers": st.just([])}),
}


@pytest.mark.parametrize("kind", sorted(KINDS))
@given(data=st.data())
def test_canonical_rows_survive_a_round_trip_through_parquet(
    kind: str, data: st.DataObject, tmp_path_factory: pytest.TempPathFactory
) -> None:
    with allowed("equal-answers", "negative-is-positive"):
        (row,) = accept(kind, data.draw(CONTENTS[kind]))
        path: Path = tmp_path_factory.mktemp("round") / "row.parquet"
        pq.write_table(pa.Table.from_pylist([row.content], schema=pa.schema(KINDS[kind].columns)), path)
        (back,) = accept(kind, pq.read_table(path).to_pylist()[0])
        assert back.content == row.content
        assert back.id == row.id == content_id(KINDS[kind], row.content)


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(st.characters(), max_size=4),
    lambda value: (
        st.lists(value, max_size=3)
        | st.dictionaries(
            st.sampled_from(["role", "content", "from", "value", "text", "answer_start", "type", "weight", "\ud800"]),
            value,
            max_size=3,
        )
    ),
    max_leaves=8,
)


@pytest.mark.parametrize("kind", sorted(EVALUATION_KINDS))
@settings(max_examples=300)
@given(data=st.data())
def test_whatever_a_row_holds_it_ends_in_rows_or_in_a_rejection_that_can_be_written(
    kind: str, data: st.DataObject
) -> None:
    names = st.sampled_from([*sorted(EVALUATION_KINDS[kind].spellings), "id", "title", "\ud800"])
    raw = data.draw(st.dictionaries(names, VALUES | st.sampled_from(["a", "b", [{"role": ["user"]}]])))
    try:
        rows, _ = Rules(EVALUATION_KINDS[kind]).accept(raw)
    except WrongRowError as error:
        Rejected(row=1, input="a", reason=error.reason, message=str(error)).model_dump_json()
    else:
        pa.Table.from_pylist([row.content for row in rows], schema=pa.schema(EVALUATION_KINDS[kind].columns))
