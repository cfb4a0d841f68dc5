from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ray_jobs.answer.cited import CitedText, Outcome
from ray_jobs.answer.grounding import problems
from ray_jobs.answer.protocol import AnswerEvent, Cited, Passage, TextDelta
from ray_jobs.answer.quoting import ABSTENTION
from ray_jobs.answer.support import Sources, abstains, statements
from ray_jobs.index.analysis import Analyzer

RAY = "Ray runs functions as tasks [12]. A task reserves one CPU. Actors keep their state between calls."
TEA = "Green tea is brewed with water of seventy degrees. Black tea needs boiling water."
ANALYZER = Analyzer()


def passage(number: int, text: str, start: int = 0) -> Passage:
    end = start + len(text)
    return Passage(number, f"doc{number}", f"doc{number}@0#0", "Guide", "", None, "g.md", start, end, text, 1.0)


def write(
    passages: Sequence[Passage], *pieces: str, question: str = "How many CPUs?", min_support: float = 0.5
) -> tuple[list[AnswerEvent], Outcome]:
    cited = CitedText(question, Sources(passages, ANALYZER), min_support)
    events = [event for piece in pieces for event in cited.feed(piece)]
    events += cited.finish()
    return events, cited.outcome


PASSAGES = [passage(1, TEA, start=100), passage(2, RAY)]


def test_a_marker_becomes_a_citation_of_the_sentence_that_says_so() -> None:
    events, outcome = write(PASSAGES, "A task reserv", "es one CPU [", "2]. And actors keep state [2].")
    assert outcome.text == "A task reserves one CPU [2]. And actors keep state [2]."
    assert [c.quote for c in outcome.citations] == [
        "A task reserves one CPU.",
        "Actors keep their state between calls.",
    ]
    assert outcome.grounded
    place = next(i for i, event in enumerate(events) if isinstance(event, Cited))
    said = "".join(event.text for event in events[:place] if isinstance(event, TextDelta))
    assert said == "A task reserves one CPU [2]"
    assert problems(outcome.text, outcome.citations, PASSAGES) == []


def test_a_marker_behind_the_full_stop_speaks_for_the_sentence_before_it() -> None:
    _, outcome = write(PASSAGES, "Tea is a plant. Black tea needs boiling water. [1] It is brewed. [1]")
    assert outcome.citations[0].quote == "Black tea needs boiling water."


def test_numbers_that_were_not_given_are_left_out_of_the_text() -> None:
    _, outcome = write(PASSAGES, "Black tea needs boiling water [7], really [1, 9][0].")
    assert outcome.text == "Black tea needs boiling water, really [1]."
    assert [citation.number for citation in outcome.citations] == [1]


def test_several_numbers_in_one_bracket_are_written_apart() -> None:
    _, outcome = write(PASSAGES, "Water and tasks [1, 2].")
    assert outcome.text == "Water and tasks [1][2]."
    assert [citation.number for citation in outcome.citations] == [1, 2]


def test_the_same_citation_comes_once() -> None:
    _, outcome = write(PASSAGES, "Black tea needs boiling water [1]. Boiling water for black tea [1].")
    assert len(outcome.citations) == 1
    assert outcome.text.count("[1]") == 2


def test_a_marker_before_any_statement_cites_what_speaks_to_the_question() -> None:
    _, outcome = write(PASSAGES, "[1] is about it.", question="What needs boiling water?")
    assert outcome.citations[0].quote == "Black tea needs boiling water."


def test_a_passage_of_code_is_cited_by_its_lines_and_an_empty_one_never() -> None:
    code = passage(1, "x = 1\n\ny = compute(x)")
    _, outcome = write([code, passage(2, " \n")], "Call compute [1], they say [2].")
    assert outcome.text == "Call compute [1], they say."
    assert [citation.quote for citation in outcome.citations] == ["y = compute(x)"]


@pytest.mark.parametrize(
    "text",
    [
        "A task reserves one CPU.",
        "Quarterly revenue grew in Norway and shareholders rejoiced [2].",
        f"{ABSTENTION} [2]",
        "the corpus does not answer this question",
        "",
        "[2]",
        "A task reserves one CPU [2].\nQuarterly revenue grew in Norway; shareholders rejoiced loudly.",
    ],
    ids=[
        "uncited",
        "unsupported",
        "abstention",
        "abstention in other letters",
        "nothing",
        "only cited",
        "half uncited",
    ],
)
def test_what_its_citations_do_not_bear_is_not_grounded(text: str) -> None:
    assert not write(PASSAGES, text)[1].grounded


def test_how_much_must_be_borne_is_what_the_threshold_says() -> None:
    text = "A task reserves one CPU on Norwegian computers [2]."  # 4 of its 6 terms stand in passage 2
    assert write(PASSAGES, text, min_support=0.66)[1].grounded
    assert not write(PASSAGES, text, min_support=0.67)[1].grounded


def test_sentences_before_a_marker_are_borne_by_it_and_those_after_the_last_by_none() -> None:
    assert statements("One. Two [1]. Three.\nFour. [2] Five [3]\n[2] Six") == [
        ("One.", (1,)),
        ("Two.", (1,)),
        ("Three.", ()),
        ("Four.", (2,)),
        ("Five", (3,)),
        ("Six", (2,)),
    ]


def test_only_an_answer_that_begins_by_abstaining_abstains() -> None:
    assert abstains(ABSTENTION.upper())
    assert abstains(f"{ABSTENTION} Ask about tea.")
    assert not abstains(f"Tea is hot. {ABSTENTION}")


PIECES = st.sampled_from(
    ["[1]", "[2]", "[1, 2]", "[9]", "[", "]", "1", "2", " ", "\n", "`", "```", "a", "Tea. ", "Ray runs tasks [", "., "]
) | st.text(max_size=3)
DOCUMENTS = st.lists(PIECES, max_size=8).map("".join)


@given(st.lists(DOCUMENTS, max_size=3), st.lists(PIECES, max_size=14), st.booleans())
def test_whatever_a_model_writes_the_answer_has_no_problems(texts: list[str], pieces: list[str], copy: bool) -> None:
    passages = [passage(number, text, start=7 * number) for number, text in enumerate(texts, 1)]
    events, outcome = write(passages, *pieces, *(texts if copy else ()))
    assert problems(outcome.text, outcome.citations, passages) == []
    assert "".join(event.text for event in events if isinstance(event, TextDelta)) == outcome.text
    assert tuple(event.citation for event in events if isinstance(event, Cited)) == outcome.citations


@given(st.lists(PIECES, max_size=14).map("".join), st.lists(st.integers(0, 60), max_size=6))
def test_how_the_text_is_cut_makes_no_difference(text: str, cuts: list[int]) -> None:
    marks = sorted({0, len(text), *(cut for cut in cuts if cut < len(text))})
    pieces = [text[start:end] for start, end in pairwise(marks)]
    assert write(PASSAGES, *pieces)[1] == write(PASSAGES, text)[1]
