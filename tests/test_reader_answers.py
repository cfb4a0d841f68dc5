"""Answers of a reader: the exact span in its sentence, cited as the extractive reader cites."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError
from tiny_readers import fitted_to_find, reader

from ray_jobs.answer.engine import Message, Request
from ray_jobs.answer.engine_config import EngineConfig, load_engine
from ray_jobs.answer.extractive import ReaderConfig
from ray_jobs.answer.grounding import problems, unquoted
from ray_jobs.answer.protocol import Answer, Cited, Final, Generator, Passage, TextDelta, complete
from ray_jobs.answer.quotable import MAX_LENGTH, sentence_around
from ray_jobs.answer.quoting import ABSTENTION
from ray_jobs.answer.reading import AnswerReader
from ray_jobs.errors import ModelError, NotFoundError, UsageError
from ray_jobs.models.embedder import EmbedderConfig
from ray_jobs.models.reader import PassageSpan, Reader, ReaderOptions
from ray_jobs.storage import LocalStorage

ZOO = "The fox sleeps all day. An owl sees in the dark. Bees make honey."
FARM = "# The hen\n\nA hen and a pig live here.\n\n| animal | food |\n| yak | kale |\n"
FAKE = EmbedderConfig(engine="fake")


def passage(number: int, text: str, start: int = 0) -> Passage:
    chunk = f"doc{number}@0#0"
    return Passage(number, f"doc{number}", chunk, "Zoo", "", None, "zoo.md", start, start + len(text), text, 1 / number)


class Pointing:
    """A reader that says what it is told of each passage."""

    threshold = 0.0

    def __init__(self, *found: tuple[int, int, float] | None) -> None:
        self._found = found

    def spans(self, question: str, passages: Sequence[str]) -> list[PassageSpan | None]:
        return [None if span is None else PassageSpan(span[0], span[1], span[2], 0.0) for span in self._found]


def at(text: str, part: str, margin: float = 1.0) -> tuple[int, int, float]:
    start = text.index(part)
    return start, start + len(part), margin


def answer(generator: Generator, question: str, passages: Sequence[Passage]) -> Answer:
    given = complete(generator, question, passages)
    assert given is not None
    return given


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return fitted_to_find(tmp_path_factory.getbasetemp())


@pytest.fixture(scope="module")
def finder(folder: Path) -> Reader:
    return reader(folder)


def test_the_answer_is_the_exact_span_and_its_sentence(finder: Reader) -> None:
    passages = [passage(1, FARM), passage(2, ZOO, start=500)]
    given = answer(AnswerReader(finder), "Where is the owl?", passages)
    assert given.text == "owl [2]\nAn owl sees in the dark. [2]"
    assert given.grounded
    assert [citation.quote for citation in given.citations] == ["owl", "An owl sees in the dark."]
    for citation in given.citations:
        assert citation.quote == ZOO[citation.start - 500 : citation.end - 500]
        assert (citation.doc_id, citation.number, citation.source) == ("doc2", 2, "zoo.md")
    assert problems(given.text, given.citations, passages) == unquoted(given.text, given.citations) == []
    assert given.timings.keys() == {"read"}


def test_it_abstains_when_no_passage_passes_the_threshold(finder: Reader, folder: Path) -> None:
    passages = [passage(1, FARM), passage(2, ZOO)]
    for abstained in (
        answer(AnswerReader(finder), "Where is the zebra?", passages),
        answer(AnswerReader(finder), "Where is the owl?", [passage(1, "")]),
        answer(AnswerReader(finder), "Where is the owl?", []),
        answer(AnswerReader(reader(folder, threshold=1000)), "Where is the owl?", passages),
    ):
        assert (abstained.text, abstained.citations, abstained.grounded) == (ABSTENTION, (), False)


def test_the_largest_margin_answers_and_of_equals_the_first_passage() -> None:
    passages = [passage(1, ZOO), passage(2, FARM), passage(3, ZOO)]
    margins = Pointing(at(ZOO, "fox", 1), at(FARM, "pig", 2), at(ZOO, "owl", 2))
    assert answer(AnswerReader(margins), "?", passages).text == "pig [2]\nA hen and a pig live here. [2]"
    refused = Pointing(at(ZOO, "fox", -1), None, at(ZOO, "owl", 0))
    assert answer(AnswerReader(refused), "?", passages).text == "owl [3]\nAn owl sees in the dark. [3]"


def test_a_sentence_that_is_the_span_is_said_once() -> None:
    text = "Bees make honey."
    given = answer(AnswerReader(Pointing(at(text, text))), "?", [passage(1, text)])
    assert given.text == "Bees make honey. [1]"
    assert len(given.citations) == 1


def test_the_stream_joins_to_the_final_answer(finder: Reader) -> None:
    events = list(AnswerReader(finder).stream("Where is the owl?", [passage(1, ZOO)]))
    final = events[-1]
    assert isinstance(final, Final)
    assert "".join(event.text for event in events if isinstance(event, TextDelta)) == final.answer.text
    assert tuple(event.citation for event in events if isinstance(event, Cited)) == final.answer.citations


def test_a_cancelled_stream_ends_without_a_final_and_the_next_one_runs(finder: Reader) -> None:
    generator = AnswerReader(finder)
    running = generator.stream("Where is the owl?", [passage(1, ZOO)])
    assert isinstance(next(running), TextDelta)
    generator.cancel()
    assert list(running) == []
    assert complete(generator, "Where is the owl?", [passage(1, ZOO)]) is not None


def test_a_reader_that_loses_passages_is_caught() -> None:
    with pytest.raises(ModelError, match="returned 1 spans for 2 passages"):
        answer(AnswerReader(Pointing(None)), "?", [passage(1, ZOO), passage(2, ZOO)])


@pytest.mark.parametrize(
    ("text", "said", "first", "second"),
    [
        ("It has 2 legs.", "2", "2 [2]", "It has 2 legs. [2]"),
        ("It was in 1963 [2].", "1963", "1963 [2]", "It was in 1963 [2]. [2]"),
        ("See part [2] there of it.", "[2]", "See part [2] there of it. [2]", ""),
        ("An array [2 of bytes.", "[2", "An array [2 of bytes. [2]", ""),
    ],
)
def test_numbers_and_brackets_are_told_from_markers(text: str, said: str, first: str, second: str) -> None:
    passages = [passage(1, ZOO), passage(2, text)]
    given = answer(AnswerReader(Pointing(None, at(text, said))), "?", passages)
    assert given.text.split("\n") == [line for line in (first, second) if line]
    assert problems(given.text, given.citations, passages) == []


@given(
    text=st.text(st.sampled_from("12[] ab.\n|"), min_size=1, max_size=60),
    places=st.tuples(st.integers(0), st.integers(0)),
    number=st.sampled_from([1, 2, 12]),
)
def test_an_answer_always_holds(text: str, places: tuple[int, int], number: int) -> None:
    start, end = sorted(place % (len(text) + 1) for place in places)
    while start < end and text[start].isspace():
        start += 1
    while start < end and text[end - 1].isspace():
        end -= 1
    found = None if start == end else (start, end, 1.0)
    cited = replace(passage(number, text), start=7, end=7 + len(text))
    given = answer(AnswerReader(Pointing(found)), "?", [cited])
    assert problems(given.text, given.citations, [cited]) == []
    assert given.grounded == bool(given.citations)
    for citation in given.citations:
        assert text[citation.start - 7 : citation.end - 7] == citation.quote


@pytest.mark.parametrize(
    ("text", "part", "around"),
    [
        (ZOO, "owl", "An owl sees in the dark."),
        (ZOO, "day. An owl", "The fox sleeps all day. An owl sees in the dark."),
        (FARM, "hen", "# The hen"),
        (FARM, "kale", "| yak | kale |"),
        ("猫在房子里睡觉。羊在河边吃草。", "河边", "羊在河边吃草。"),
        ("x = 1\n    return owl\n", "owl", "return owl"),
        ("first line\nsecond", "line\nsec", "first line\nsecond"),
        ("owl " * MAX_LENGTH, "owl", "owl"),
    ],
)
def test_a_span_is_shown_in_its_sentence_or_else_its_line(text: str, part: str, around: str) -> None:
    start = text.index(part)
    first, last = sentence_around(text, start, start + len(part))
    assert text[first:last] == around


def asked(**changes: object) -> Request:
    return Request(**{"model": "fitted-to-find", "messages": (Message("user", "Where is the owl?"),), **changes})  # type: ignore[arg-type]


def configured(folder: Path, **changes: object) -> EngineConfig:
    options = {"precision": "float32", "device": "cpu"}
    return EngineConfig.model_validate({"reader": str(folder), "reader_options": options, **changes})


def test_an_engine_reads_by_the_reader_that_is_named(folder: Path) -> None:
    engine = load_engine(configured(folder))
    assert engine.models == ("fitted-to-find",)
    assert engine.needs_passages
    passages = [passage(1, ZOO)]
    assert (
        answer(engine.generator(asked()), "Where is the owl?", passages).text == "owl [1]\nAn owl sees in the dark. [1]"
    )
    assert not answer(engine.generator(asked()), "Where is the zebra?", passages).grounded


def test_an_engine_that_reads_needs_passages_and_knows_one_model(folder: Path) -> None:
    engine = load_engine(configured(folder, name="finder"))
    assert engine.models == ("finder",)
    with pytest.raises(UsageError, match="nothing to quote without retrieval"):
        engine.generator(asked(model="finder", closed_book=True))
    with pytest.raises(NotFoundError, match="expected finder"):
        engine.generator(asked())
    with pytest.raises(NotFoundError, match="expected finder"):
        engine.condense([Message("user", "owl?")], "other")
    turns = [Message("user", "How do bees make honey?"), Message("assistant", "-"), Message("user", "Why?")]
    assert engine.condense(turns, "finder") == "Why? bees make honey"


def test_an_engine_that_reads_loads_no_embedder(folder: Path) -> None:
    def loading() -> None:
        raise AssertionError("an embedder was loaded")

    load_engine(configured(folder), embedder=loading)  # type: ignore[arg-type]


def test_a_reader_in_the_store_is_found_by_its_name(folder: Path, tmp_path: Path) -> None:
    shutil.copytree(folder, tmp_path / "models" / "finder")
    assert load_engine(configured(Path("finder")), store=LocalStorage(tmp_path)).models == ("finder",)


def test_without_a_reader_the_engine_quotes_as_before() -> None:
    assert load_engine(EngineConfig(embedder=FAKE)).models == ("extractive",)
    quoting = EngineConfig.model_validate({"embedder": FAKE, "reader": {"max_quotes": 1}})
    assert quoting.reader == ReaderConfig(max_quotes=1)
    assert EngineConfig.model_validate(quoting.model_dump(mode="json")) == quoting
    assert EngineConfig.model_validate({"reader": "n"}).model_dump(mode="json", exclude_defaults=True) == {
        "reader": "n"
    }


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"reader": " "}, "expected the name or path of a reader"),
        ({"reader": {"max_quotes": 0}}, "greater than or equal to 1"),
        ({"reader": {"quotes": 1}}, "Extra inputs are not permitted"),
        ({"reader": 3}, "valid dictionary"),
        ({"engine": "transformers", "model": "m", "reader": "r"}, "engine=transformers with reader=r: only"),
        ({"reader_options": {"model": "m"}}, "Extra inputs are not permitted"),
    ],
)
def test_a_reader_that_cannot_be_is_refused_before_anything_is_loaded(settings: dict[str, object], said: str) -> None:
    with pytest.raises(ValidationError) as caught:
        EngineConfig.model_validate(settings)
    assert said in str(caught.value)
    assert len(caught.value.errors()) == 1


def test_options_of_a_reader_have_no_name() -> None:
    assert "model" not in ReaderOptions.model_fields
