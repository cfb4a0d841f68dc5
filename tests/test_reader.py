"""The reader against transformers' own logits decoded by brute force, on tiny models of every make."""

from __future__ import annotations

import math
import unicodedata
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tiny_readers import KNOWN, fitted_to_find, network, plain, reader, tokenizer
from tiny_transformers import save

from ray_jobs.errors import ModelError, UsageError
from ray_jobs.models.pairs import PairBatch
from ray_jobs.models.reader import PassageSpan, Reader, ReaderConfig
from ray_jobs.models.reader_model import SpanLogits
from ray_jobs.models.reader_text import whole_characters

Pair = tuple[str, str]
PAIRS = [
    ("where cat?", "the cat and the dog"),
    ("cat dog fox", "bee"),
    ("lemon jam", "honey lemon jam bread " * 60),
    ("zebra yak", "yak " * 7),
    ("unknown words only", "nothing here is known"),
    ("egg", "a b c d e f g egg"),
]


def without_segments(folder: Path) -> Path:
    return save(network("distilbert", dim=48, hidden_dim=96), tokenizer(False), folder / "plain")


def positions_from_the_padding_index(folder: Path) -> Path:
    return save(network("roberta", type_vocab_size=2), tokenizer(), folder / "plain")


def padding_on_the_left(folder: Path) -> Path:
    tokens = tokenizer(False)
    tokens.padding_side = "left"
    return save(network("llama", num_key_value_heads=2), tokens, folder / "plain")


MAKES: dict[str, Callable[[Path], Path]] = {
    "plain": plain,
    "no segments": without_segments,
    "padding on the left": padding_on_the_left,
    "positions from the padding index": positions_from_the_padding_index,
}


@pytest.fixture(scope="module", params=MAKES, ids=str)
def made(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return MAKES[request.param](tmp_path_factory.mktemp("made"))


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return plain(tmp_path_factory.mktemp("model"))


@pytest.fixture(scope="module")
def loaded(model: Path) -> Reader:
    return reader(model, batch_tokens=128)


@pytest.fixture(scope="module")
def finder(tmp_path_factory: pytest.TempPathFactory) -> Reader:
    return reader(fitted_to_find(tmp_path_factory.getbasetemp()))


@cache
def transformers_model(path: Path) -> tuple[Any, Any]:
    from transformers import AutoModelForQuestionAnswering, AutoTokenizer

    return AutoModelForQuestionAnswering.from_pretrained(path).eval(), AutoTokenizer.from_pretrained(path)


def by_brute_force(path: Path, pair: Pair, max_tokens: int, overlap: int, max_answer_tokens: int) -> PassageSpan | None:
    """Every span of every window that transformers makes, one window at a time, and of the best ones the first."""
    import torch

    network, tokens = transformers_model(path)
    question, passage = pair
    room = max_tokens - len(tokens(question, "")["input_ids"])
    encoded = tokens(
        question,
        passage,
        max_length=max_tokens,
        truncation="only_second",
        stride=min(overlap, room // 2),
        return_overflowing_tokens=True,
        return_offsets_mapping=True,
    )
    best: PassageSpan | None = None
    for number in range(len(encoded["input_ids"])):
        inputs = {name: torch.tensor([encoded[name][number]]) for name in tokens.model_input_names}
        with torch.inference_mode():
            found = network(**inputs)
        start, end = found.start_logits[0].tolist(), found.end_logits[0].tolist()
        own = [place for place, source in enumerate(encoded.sequence_ids(number)) if source == 1]
        offsets = encoded["offset_mapping"][number]
        scored = [(start[i] + end[j], -i, -j) for i in own for j in own if i <= j < i + max_answer_tokens]
        if not scored:
            continue
        score, first, last = max(scored)
        null = encoded["input_ids"][number].index(tokens.cls_token_id)
        span = PassageSpan(offsets[-first][0], offsets[-last][1], score, start[null] + end[null])
        if best is None or span.margin > best.margin + 1e-4:
            best = span
    return best


def assert_same(found: PassageSpan | None, expected: PassageSpan | None) -> None:
    assert (found is None) == (expected is None)
    if found is None or expected is None:
        return
    assert found.margin == pytest.approx(expected.margin, abs=1e-4)
    assert found.score == pytest.approx(expected.score, abs=1e-4)
    assert (found.start, found.end) == (expected.start, expected.end)


texts = st.lists(st.sampled_from([*KNOWN[:12], "猫", "狗", "naïve", "。", "🙂"]), max_size=90).map(" ".join)
questions = st.lists(st.sampled_from(KNOWN), min_size=1, max_size=20).map(" ".join)


def test_spans_are_those_of_brute_force(made: Path) -> None:
    found = reader(made, overlap=16, max_answer_tokens=5).read_pairs(PAIRS)
    for pair, span in zip(PAIRS, found, strict=True):
        assert_same(span, by_brute_force(made, pair, 64, 16, 5))


@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    pairs=st.lists(st.tuples(questions, texts), min_size=1, max_size=4),
    overlap=st.integers(0, 40),
    longest=st.integers(1, 80),
)
def test_texts_of_any_length_are_read_as_by_brute_force(
    model: Path, pairs: list[Pair], overlap: int, longest: int
) -> None:
    found = sized(model, overlap, longest).read_pairs(pairs)
    for pair, span in zip(pairs, found, strict=True):
        expected = by_brute_force(model, pair, 64, overlap, longest)
        if expected is not None:
            # Where two spans score alike, rounding decides between them.
            assert span is not None
            assert span.margin == pytest.approx(expected.margin, abs=1e-4)
        else:
            assert span is None


@cache
def base_reader(path: Path) -> Reader:
    return reader(path)


def sized(path: Path, overlap: int, max_answer_tokens: int) -> Reader:
    """A reader of the same network with other settings."""
    config = ReaderConfig(model=str(path), overlap=overlap, max_answer_tokens=max_answer_tokens)
    return Reader(base_reader(path)._model, config)


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(question=questions, passage=st.text(st.characters(codec="utf-8"), max_size=300))
def test_a_span_is_cut_from_its_passage_in_whole_characters(model: Path, question: str, passage: str) -> None:
    (span,) = sized(model, 16, 8).spans(question, [passage])
    if span is None:
        return
    said = passage[span.start : span.end]
    assert 0 <= span.start < span.end <= len(passage)
    assert said == said.strip()
    assert math.isfinite(span.margin)
    if span.end < len(passage):
        assert unicodedata.category(passage[span.end]) not in ("Mn", "Me", "Mc")


@pytest.mark.parametrize("budget", [64, 130, 4096])
def test_a_passage_has_the_same_span_alone_and_among_others(model: Path, budget: int) -> None:
    together = reader(model, batch_tokens=budget)
    for (question, passage), span in zip(PAIRS, together.read_pairs(PAIRS), strict=True):
        assert_same(together.spans(question, [passage])[0], span)


@settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(pair=st.tuples(questions, texts), others=st.lists(st.tuples(questions, texts), max_size=5), place=st.integers(0))
def test_a_span_does_not_depend_on_what_else_is_in_the_batch(
    finder: Reader, pair: Pair, others: list[Pair], place: int
) -> None:
    at = place % (len(others) + 1)
    found = finder.read_pairs([*others[:at], pair, *others[at:]])[at]
    (alone,) = finder.read_pairs([pair])
    assert (found is None) == (alone is None)
    if found is not None and alone is not None:
        assert (found.start, found.end) == (alone.start, alone.end)
        assert found.margin == pytest.approx(alone.margin, abs=1e-4)


def said(finder: Reader, question: str, passage: str) -> str:
    (span,) = finder.spans(question, [passage])
    assert span is not None
    return passage[span.start : span.end] if span.margin >= finder.threshold else ""


@pytest.mark.parametrize(
    ("question", "passage", "answer"),
    [
        ("where is the owl", "A fox, a bee; an Owl and a hen.", "Owl"),
        ("where is the owl", "A fox, a bee and a hen.", ""),
        ("猫在哪里", "虎和马在山上，猫在房子里，羊在河边。", "猫"),
        ("龙在哪里", "虎和马在山上，猫在房子里，羊在河边。", ""),
        ("cafe", "👩‍👩‍👧 fox 🏳️‍🌈 猫 cafe\u0301 🙂 bee", "cafe\u0301"),
        ("cafe", "ﬁne \u200bcaf\u00e9\u200b, bee", "caf\u00e9"),
        ("bee", "𝔘𝔫𝔦𝔠𝔬𝔡𝔢 👍🏽 bee 狗", "bee"),
        ("狗", "e\u0301e\u0301e\u0301 👍🏽狗👍🏽", "狗"),
    ],
)
def test_offsets_are_code_points_in_every_script(finder: Reader, question: str, passage: str, answer: str) -> None:
    assert said(finder, question, passage) == answer


@pytest.mark.parametrize("place", [0, 40, 57, 120, 211, 299])
def test_a_long_passage_is_read_to_its_end(finder: Reader, place: int) -> None:
    words = ["fox", "bee", "word", "猫", "hen"] * 60
    words[place] = "Lemon"
    passage = " ".join(words)
    (span,) = finder.spans("lemon", [passage])
    assert span is not None
    assert passage[span.start : span.end] == "Lemon"
    assert span.margin > 0
    assert words.index("Lemon") == passage[: span.start].count(" ") == place


def test_spans_never_cross_into_the_question(finder: Reader) -> None:
    assert finder.spans("lemon lemon jam", ["", " \n", "\u200b"])[:2] == [None, None]
    (span,) = finder.spans("lemon", ["bee"])
    assert span is not None
    assert (span.start, span.end) == (0, 3)
    assert span.margin < 0


def test_a_window_holds_question_and_passage_and_no_more_than_fits(loaded: Reader) -> None:
    tokens = loaded._model.tokens
    for question in ("owl", "owl bee " * 25):
        windows = tokens.windows([(question, "cat dog " * 100)], 64, 16)
        own = [window.spans[window.readable] for window in windows]
        assert all(len(window.ids) <= 64 for window in windows)
        assert own[0][0][0] == 0
        assert own[-1][-1][1] == 799
        shared = min(16, (64 - tokens.overhead(question)) // 2)
        for before, after in pairwise(own):
            assert after[0][0] == before[-shared][0]


def test_a_question_that_leaves_no_room_is_refused(loaded: Reader) -> None:
    longest = " ".join(["owl"] * 60)
    assert loaded.spans(longest, ["cat dog"])[0] is not None
    with pytest.raises(UsageError, match=r"takes 64 tokens .* max_tokens=64 .* shorten the question"):
        loaded.spans(longest + " owl", ["cat"])


@pytest.mark.parametrize("question", ["", "  \n"])
def test_an_empty_question_is_refused(loaded: Reader, question: str) -> None:
    with pytest.raises(UsageError, match="question is empty"):
        loaded.spans(question, [])


def test_no_passage_gives_no_span(loaded: Reader) -> None:
    assert loaded.spans("cat", []) == []


def test_text_that_is_no_valid_unicode_is_read(finder: Reader) -> None:
    assert said(finder, "bee \ud800", "\udfff fox \ud800 bee") == "bee"


def test_several_threads_may_share_a_reader(loaded: Reader) -> None:
    expected = loaded.read_pairs(PAIRS)
    with ThreadPoolExecutor(4) as pool:
        for found in pool.map(lambda _: loaded.read_pairs(PAIRS), range(8)):
            for span, known in zip(found, expected, strict=True):
                assert_same(span, known)


def test_in_bfloat16_margins_are_near(made: Path) -> None:
    exact = reader(made, overlap=16).read_pairs(PAIRS)
    near = reader(made, overlap=16, precision="bfloat16").read_pairs(PAIRS)
    for span, known in zip(near, exact, strict=True):
        assert span is not None
        assert known is not None
        assert span.margin == pytest.approx(known.margin, abs=0.3)


def test_in_bfloat16_the_head_keeps_apart_what_8_bits_would_tie(tmp_path: Path) -> None:
    import torch

    high = network()
    with torch.no_grad():
        high.qa_outputs.bias += 100
    path = save(high, tokenizer(), tmp_path / "high")
    found = reader(path, precision="bfloat16").read_pairs(PAIRS)
    assert len({span.score for span in found if span is not None}) == len(PAIRS)


def test_what_the_user_sets_is_taken(model: Path) -> None:
    short = reader(model, max_tokens=16, max_answer_tokens=1, threshold=2.5, threads=1)
    assert (short.max_tokens, short.identity.max_tokens, short.threshold) == (16, 16, 2.5)
    for (_, passage), span in zip(PAIRS, short.read_pairs(PAIRS), strict=True):
        assert span is not None
        assert " " not in passage[span.start : span.end]


def test_what_does_not_fit_the_model_is_refused(model: Path) -> None:
    with pytest.raises(UsageError, match="max_tokens=81 is above the 80 positions"):
        reader(model, max_tokens=81)
    with pytest.raises(UsageError, match="batch_tokens=63 is below max_tokens=64"):
        reader(model, batch_tokens=63)


def test_a_gpu_that_is_not_there_is_a_usage_error(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ray_jobs.models.engine_choice.cuda_available", lambda: False)
    with pytest.raises(UsageError, match="device=cuda"):
        reader(model, device="cuda", precision="auto")


class Saying:
    """An engine that says the same logits of every token."""

    def __init__(self, value: float, tokens: int = 0) -> None:
        self._value, self._tokens = value, tokens

    def forward(self, batch: PairBatch) -> SpanLogits:
        rows, tokens = batch.input_ids.shape
        logits = np.full((rows, tokens + self._tokens), self._value, np.float32)
        return SpanLogits(logits, logits)


@pytest.mark.parametrize(("engine", "said"), [(Saying(math.nan), "NaN or infinite"), (Saying(0, 1), "expected")])
def test_an_engine_that_returns_nonsense_is_caught(model: Path, engine: Saying, said: str) -> None:
    from dataclasses import replace

    broken = Reader(replace(base_reader(model)._model, engine=engine), ReaderConfig(model="m"))
    with pytest.raises(ModelError, match=said):
        broken.spans("cat", ["dog"])


def test_of_equal_spans_the_first_and_shortest_is_taken(model: Path) -> None:
    from dataclasses import replace

    even = Reader(replace(base_reader(model)._model, engine=Saying(1)), ReaderConfig(model="m"))
    assert even.spans("cat", ["dog bee fox " * 60]) == [PassageSpan(0, 3, 2, 2)]


@pytest.mark.parametrize(
    ("text", "span", "whole"),
    [
        ("a cafe\u0301 b", (2, 6), (2, 7)),
        ("a cafe\u0301 b", (1, 8), (2, 7)),
        ("a\u0301b", (1, 2), (0, 2)),
        ("👍🏽!", (0, 1), (0, 2)),
        ("x👩\u200d👩\u200d👧y", (1, 2), (1, 6)),
        ("x👩\u200d👩\u200d👧y", (3, 4), (1, 6)),
        ("❤\ufe0f.", (0, 1), (0, 2)),
        ("நி", (0, 1), (0, 2)),
        (" \u0301a", (1, 3), (1, 3)),
        ("猫。", (0, 1), (0, 1)),
        ("  ", (0, 2), (2, 2)),
    ],
)
def test_a_character_of_several_code_points_is_never_cut(
    text: str, span: tuple[int, int], whole: tuple[int, int]
) -> None:
    assert whole_characters(text, *span) == whole
