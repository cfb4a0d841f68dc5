"""Windows with the place of their answer, and the batches that are made of them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from evaluation_tasks import columns
from hypothesis import given
from hypothesis import strategies as st
from tiny_readers import tokenizer

from ray_jobs.models.reader_windows import Window, WindowTokenizer
from ray_jobs.train.span_targets import QuestionRow, SpanCollator, features, rows_of, target, windows_of

TOKENS = WindowTokenizer(tokenizer().backend_tokenizer.to_str(), 2)
LENGTH = 24


def row(question: str, passage: str, *answers: str) -> QuestionRow:
    return QuestionRow(question, passage, answers, tuple(passage.index(answer) for answer in answers))


def targets(item: QuestionRow, stride: int = 4) -> list[tuple[Window, tuple[int, int]]]:
    return [(window, target(window, found)) for window, found in windows_of([item], TOKENS, LENGTH, stride)]


def said(window: Window, place: tuple[int, int], passage: str) -> str:
    first, last = place
    return "" if first == window.null else passage[window.spans[first][0] : window.spans[last][1]]


@pytest.mark.parametrize(
    ("passage", "answer", "learned"),
    [
        ("the cat and the dog", "cat", "cat"),
        ("the cat and the dog", " cat and ", "cat and"),
        ("the cats and dogs", "cat", "cats"),
        ("猫在房子里。", "房子", "房子"),
        ("👍🏽 cafe\u0301 🙂", "cafe\u0301", "cafe\u0301"[:4]),
        ("the cat\u200b and", "cat\u200b", "cat"),
        ("the cat", " ", ""),
        ("a \u200b b", "\u200b", ""),
    ],
)
def test_targets_are_the_tokens_that_touch_the_answer(passage: str, answer: str, learned: str) -> None:
    ((window, place),) = targets(row("where", passage, answer))
    assert said(window, place, passage) == learned


def test_a_row_without_answer_has_the_null_token_as_target() -> None:
    for passage in ("the cat and the dog", "cat " * 60, ""):
        assert {place for _, place in targets(row("where", passage))} == {(0, 0)}


@pytest.mark.parametrize(
    ("answers", "learned"),
    [
        (("dog", "cat"), "dog"),
        (("the cat and the dog", "dog", "dog"), "dog"),
        (("cat and the dog", "dog", "the dog"), "dog"),
    ],
)
def test_of_several_answers_the_one_most_agree_with_is_learned(answers: tuple[str, ...], learned: str) -> None:
    ((window, place),) = targets(row("where", "the cat and the dog", *answers))
    assert said(window, place, "the cat and the dog") == learned


@given(
    words=st.lists(st.sampled_from(["cat", "dog", "猫", "word,", "naïve"]), min_size=1, max_size=70),
    place=st.integers(0),
    length=st.integers(1, 4),
    stride=st.integers(4, 12),
)
def test_only_windows_that_hold_the_whole_answer_point_at_it(
    words: list[str], place: int, length: int, stride: int
) -> None:
    first = place % len(words)
    passage = " ".join(words)
    start = len(" ".join(words[:first])) + (first > 0)
    answer = " ".join(words[first : first + length])
    item = QuestionRow("where", passage, (answer,), (start,))
    found = targets(item, stride)
    for window, (begin, end) in found:
        own = window.spans[window.readable]
        held = own[0][0] <= start and start + len(answer) <= own[-1][1]
        assert (begin != window.null) == held
        if held:
            assert (window.spans[begin][0], window.spans[end][1]) == (start, start + len(answer))
    # Four words have at most eight tokens; what is not longer than the overlap is whole in some window.
    if length <= 2:
        assert any(begin != window.null for window, (begin, _) in found)


def test_a_question_that_leaves_no_room_has_no_window() -> None:
    rows = [row("cat " * 30, "dog"), row("cat", "dog", "dog")]
    assert [item.question for _, item in windows_of(rows, TOKENS, LENGTH, 4)] == ["cat"]


@pytest.mark.parametrize("segments", [True, False])
def test_batches_are_padded_on_the_right_to_multiples_of_64(segments: bool) -> None:
    long = WindowTokenizer(tokenizer().backend_tokenizer.to_str(), 2)
    rows = [row("where", "the cat", "cat"), row("where", "dog " * 70), row("owl bee", "cat dog " * 40, "dog")]
    columns = features(windows_of(rows, long, 80, 16))
    items = [{name: values[n] for name, values in columns.items()} for n in range(len(columns["input_ids"]))]
    batch = SpanCollator(pad_id=0, segments=segments, longest=512)(items)
    assert batch.keys() == {"input_ids", "attention_mask", "start_positions", "end_positions"} | (
        {"token_type_ids"} if segments else set()
    )
    assert batch["input_ids"].shape == batch["attention_mask"].shape == (len(items), 128)
    for n, item in enumerate(items):
        length = len(item["input_ids"])
        np.testing.assert_array_equal(batch["input_ids"][n, :length], item["input_ids"])
        assert batch["attention_mask"][n].sum() == batch["attention_mask"][n, :length].sum() == length
        assert not batch["input_ids"][n, length:].any()
        assert batch["start_positions"][n] == item["start_positions"] < length
    # No network takes more tokens than it has positions.
    assert SpanCollator(0, segments, longest=80)(items)["input_ids"].shape == (len(items), 80)
    assert SpanCollator(0, segments, longest=80)(items[:1])["input_ids"].shape == (1, 64)


def test_rows_come_from_prepared_parquet(tmp_path: Path) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    rows = [row("where", "the cat", "cat"), row("who", "nobody")]
    table = pa.table(
        {
            "id": ["1", "2"],
            "question": [item.question for item in rows],
            "passage": [item.passage for item in rows],
            "answers": pa.array([list(item.answers) for item in rows], pa.list_(pa.string())),
            "starts": pa.array([list(item.starts) for item in rows], pa.list_(pa.int32())),
        }
    )
    pq.write_table(table, tmp_path / "train.parquet")
    assert rows_of(columns(tmp_path / "train.parquet")) == rows
