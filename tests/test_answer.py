from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ray_jobs.answer.evidence import ANY_MODEL, MINILM, Evidence, calibration_for, coverage
from ray_jobs.answer.extractive import ExtractiveReader, ReaderConfig
from ray_jobs.answer.grounding import cited_numbers, problems, unquoted
from ray_jobs.answer.protocol import Answer, Citation, Cited, Final, Generator, Passage, TextDelta, complete
from ray_jobs.answer.quotable import quotable_sentences
from ray_jobs.answer.quoting import ABSTENTION
from ray_jobs.errors import ModelError
from ray_jobs.index.analysis import Analyzer
from ray_jobs.index.lexical import LexicalStatistics
from ray_jobs.models.embedder import Embedder, EmbedderConfig

RAY = (
    "# Tasks\n\nRay runs functions remotely as tasks.\nA task asks for one CPU by default [12], and this can\n"
    "be changed with `num_cpus`.\n\n```python\n@ray.remote(num_cpus=2)\ndef f(): return 1\n```\n\n"
    "- Actors keep state between method calls.\n"
)
TEA = "Green tea is brewed with water of seventy degrees. Black tea needs boiling water."


def passage(number: int, text: str, start: int = 0, title: str = "Guide") -> Passage:
    return Passage(
        number=number,
        doc_id=f"doc{number}",
        chunk_id=f"doc{number}@0#0",
        title=title,
        heading="",
        page=None,
        source="guide.md",
        start=start,
        end=start + len(text),
        text=text,
        score=1.0 / number,
    )


def statistics(terms: set[str]) -> LexicalStatistics:
    return LexicalStatistics(1000, 100_000, dict.fromkeys(terms, 3))


@pytest.fixture(scope="module")
def embedder() -> Embedder:
    return Embedder.load(EmbedderConfig(engine="fake"))


def reader(embedder: Embedder, **config: float) -> ExtractiveReader:
    return ExtractiveReader(embedder, Analyzer(), statistics, ANY_MODEL, ReaderConfig.model_validate(config))


def test_the_answer_quotes_the_sentence_that_speaks_to_the_question(embedder: Embedder) -> None:
    passages = [passage(1, TEA), passage(2, RAY, start=500)]
    answer = complete(reader(embedder), "How many CPUs does a task ask for by default?", passages)
    assert answer is not None
    assert answer.grounded
    assert answer.text == ("A task asks for one CPU by default [12], and this can be changed with `num_cpus`. [2]")
    (citation,) = answer.citations
    assert citation.quote == RAY[citation.start - 500 : citation.end - 500]
    assert (citation.doc_id, citation.number, citation.source) == ("doc2", 2, "guide.md")
    assert problems(answer.text, answer.citations, passages) == []


@pytest.mark.parametrize("passages", [[], [passage(1, TEA)], [passage(1, "```\ncode only\n```")]])
def test_it_abstains_when_nothing_supports_an_answer(embedder: Embedder, passages: list[Passage]) -> None:
    answer = complete(reader(embedder), "Who wrote the opera about the flying Dutchman?", passages)
    assert answer is not None
    assert (answer.text, answer.citations, answer.grounded) == (ABSTENTION, (), False)


def test_a_question_of_stop_words_only_is_not_answered(embedder: Embedder) -> None:
    answer = complete(reader(embedder), "What is it?", [passage(1, TEA)])
    assert answer is not None
    assert not answer.grounded


def test_the_stream_joins_to_the_final_answer(embedder: Embedder) -> None:
    events = list(reader(embedder, min_support=0, margin=9).stream("tea water", [passage(1, TEA), passage(2, RAY)]))
    final = events[-1]
    assert isinstance(final, Final)
    assert "".join(event.text for event in events if isinstance(event, TextDelta)) == final.answer.text
    assert tuple(event.citation for event in events if isinstance(event, Cited)) == final.answer.citations
    assert len(final.answer.citations) == ReaderConfig().max_quotes
    assert all(seconds >= 0 for seconds in final.answer.timings.values())


def test_the_same_sentence_is_quoted_once(embedder: Embedder) -> None:
    answer = complete(
        reader(embedder, min_support=0, margin=9), "boiling water for tea", [passage(1, TEA), passage(2, TEA)]
    )
    assert answer is not None
    assert len({citation.quote for citation in answer.citations}) == len(answer.citations) == 2


def test_a_cancelled_stream_ends_without_a_final_and_the_next_one_runs(embedder: Embedder) -> None:
    generator: Generator = reader(embedder, min_support=0)
    running = generator.stream("boiling water for tea", [passage(1, TEA)])
    assert isinstance(next(running), TextDelta)
    generator.cancel()
    assert list(running) == []
    assert complete(generator, "boiling water for tea", [passage(1, TEA)]) is not None


def test_no_more_sentences_are_embedded_than_allowed() -> None:
    class Counting:
        texts = 0

        def encode_queries(self, texts: Sequence[str]) -> npt.NDArray[np.float32]:
            return np.ones((len(texts), 2), np.float32)

        def encode_documents(self, texts: Sequence[str]) -> npt.NDArray[np.float32]:
            self.texts += len(texts)
            return np.ones((len(texts), 2), np.float32)

    counting = Counting()
    config = ReaderConfig(max_candidates=2)
    complete(
        ExtractiveReader(counting, Analyzer(), statistics, MINILM, config), "tea?", [passage(1, TEA), passage(2, RAY)]
    )
    assert counting.texts == 2


def test_an_embedder_that_loses_texts_is_caught() -> None:
    class Losing:
        def encode_queries(self, texts: Sequence[str]) -> npt.NDArray[np.float32]:
            return np.ones((len(texts), 2), np.float32)

        def encode_documents(self, texts: Sequence[str]) -> npt.NDArray[np.float32]:
            return np.ones((len(texts) - 1, 2), np.float32)

    with pytest.raises(ModelError, match="returned 1 vectors for 2 sentences"):
        complete(ExtractiveReader(Losing(), Analyzer(), statistics, MINILM), "tea", [passage(1, TEA)])


def quotes(text: str) -> list[str]:
    return [text[start:end] for start, end in quotable_sentences(text)]


def test_prose_is_quotable_and_markup_and_code_are_not() -> None:
    text = (
        "Training a model\n================\n\nA trainer runs on every worker.\n\n.. code-block:: python\n\n"
        "    trainer.fit with many words here\n\n>>> ray.init() starts a cluster\n| a table | of many | words here |\n"
        "1. First start a cluster\n   on the head node.\n* Then submit the job to it.\n\n"
        "Args:\n    num_cpus: The number of CPUs to reserve.\n\nresult = trainer.fit()\n"
        "[A link to some other page](/docs/other)\n:doc:`A link to another page <docs/other>`\n"
        "![An image of a cluster](x.png)\n"
        "Use the following code to start it:\n"
    )
    assert quotes(text) == [
        "A trainer runs on every worker.",
        "First start a cluster\n   on the head node.",
        "Then submit the job to it.",
        "num_cpus: The number of CPUs to reserve.",
    ]


def test_a_passage_that_begins_inside_a_code_block_is_read_from_its_end() -> None:
    text = "    x = compute(1)\n    y = x;\n```\n\nThe result is a number.\n"
    assert quotes(text) == ["The result is a number."]


def test_chinese_sentences_are_quotable() -> None:
    assert quotes("分片索引保存在磁盘上。查询时合并结果。好。") == ["分片索引保存在磁盘上。", "查询时合并结果。"]


LINES = st.lists(
    st.sampled_from(
        ["Ray runs tasks. It is fast.", "```", "# A title", "    code()", "- An item of a list", "", "====", "~~~"]
    )
    | st.text(max_size=12),
    max_size=12,
)


@settings(deadline=None)
@given(LINES.map("\n".join))
def test_quotable_spans_are_ordered_disjoint_and_trimmed(text: str) -> None:
    spans = quotable_sentences(text)
    assert all(text[start:end] == text[start:end].strip() != "" for start, end in spans)
    assert all(before[1] <= after[0] for before, after in pairwise(spans))


@settings(deadline=None, max_examples=50)
@given(st.lists(LINES.map("\n".join), max_size=4), st.sampled_from(["tasks in Ray", "a list item", "code"]))
def test_every_citation_cuts_its_quote_from_the_document(embedder: Embedder, texts: list[str], question: str) -> None:
    passages = [passage(number, text, start=7 * number) for number, text in enumerate(texts, 1)]
    answer = complete(reader(embedder, min_support=0), question, passages)
    assert answer is not None
    assert problems(answer.text, answer.citations, passages) == []
    assert unquoted(answer.text, answer.citations) == ([] if answer.grounded else [ABSTENTION.casefold()])


def cite(start: int = 0, end: int = 10) -> Citation:
    return Citation.of(passage(1, TEA), start, end)


@pytest.mark.parametrize(
    ("text", "citations", "problem"),
    [
        ("Green tea [1]", [], "[1] has no citation"),
        ("Green tea", [cite()], "citation 1 is not marked"),
        ("Green tea [1]", [replace(cite(), quote="Black tea")], "does not quote 0:10 of doc1"),
        ("Green tea [1]", [replace(cite(), end=9999)], "does not quote 0:9999 of doc1"),
        ("Green tea [1]", [replace(cite(), chunk_id="other")], "not the passage of that number"),
        ("Green tea [7]", [replace(cite(), number=7)], "not the passage of that number"),
    ],
)
def test_a_broken_citation_is_reported(text: str, citations: list[Citation], problem: str) -> None:
    (found,) = problems(text, citations, [passage(1, TEA)])
    assert problem in found


def test_sound_citations_have_no_problems() -> None:
    assert problems("Green tea [1] is fine.", [cite()], [passage(1, TEA)]) == []


def test_paraphrase_is_told_from_quotation() -> None:
    quote = Citation.of(passage(1, TEA), 0, len(TEA))
    assert unquoted("Black tea needs\nboiling water. [1]\nMilk is added later. [1]", [quote]) == [
        "milk is added later."
    ]


def test_markers_are_read_in_order_once() -> None:
    assert cited_numbers("b [2], a [1], again [2], not [x] or [12345]") == [2, 1]


def test_support_grows_with_every_measure() -> None:
    weak = Evidence(0.2, 0.2, 0.2)
    for stronger in (replace(weak, similarity=0.6), replace(weak, coverage=0.6), replace(weak, passage_coverage=0.6)):
        assert MINILM.support(stronger) > MINILM.support(weak)


def test_only_the_calibrated_model_lets_cosines_decide() -> None:
    assert calibration_for("sentence-transformers/all-MiniLM-L6-v2") == MINILM
    assert calibration_for("/models/other") == ANY_MODEL
    assert ANY_MODEL.similarity == 0


def test_a_term_that_the_corpus_lacks_weighs_most() -> None:
    counted = LexicalStatistics(1000, 1, {"common": 900, "known": 10})
    assert coverage(["common", "known", "unknown"], {"unknown"}, counted) > 0.5
    assert coverage(["common", "known", "unknown"], {"common", "known"}, counted) < 0.5
    assert coverage([], {"a"}, counted) == 0


def test_an_answer_is_frozen() -> None:
    with pytest.raises(AttributeError):
        Answer("a", (), True).text = "b"  # type: ignore[misc]
