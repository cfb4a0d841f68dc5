from __future__ import annotations

import re
from itertools import pairwise

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from ray_jobs.corpus.chunking import Chunker, ChunkingConfig
from ray_jobs.corpus.document import Chunk, Document, RawDocument, make_document
from ray_jobs.corpus.structure import blocks, headings, sentence_starts
from ray_jobs.corpus.tokens import LONG_TOKEN, WINDOW_CHARACTERS, token_maps
from ray_jobs.errors import ModelError, UsageError

WORD = re.compile(r"[\u3040-\u9fff]|[^\W\u3040-\u9fff]+|[^\w\s]")
PROSE = ["word ", "Longer words follow here. ", "What? ", "e.g. this ", "句子。", "第二句！", "y" * 200, "a" * 40 + " "]
SPACE = ["\n", "\n\n", "\t", " " * 9, "\u00a0", "\u2028"]
MARKUP = ["# One\n", "## Two\n", "### Three\n\n", "Title\n=====\n", "Sub\n---\n", "- item\n", "| a | b |\n", "    in\n"]
CODE = ["```\n", "~~~py\n", "x = 1  # no\n"]
PIECES = st.sampled_from([*PROSE, *SPACE, *MARKUP, *CODE])
TEXTS = st.one_of(st.text(max_size=300), st.lists(PIECES, max_size=120).map("".join))


class WordTokenizer:
    """Words, CJK characters and punctuation."""

    special_tokens = 2

    def offsets(self, texts: list[str]) -> list[list[tuple[int, int]]]:
        return [[match.span() for match in WORD.finditer(text)] for text in texts]


def document(text: str, title: str = "", pages: tuple[int, ...] = ()) -> Document:
    return make_document(RawDocument(text, title=title, pages=pages), "id", "source", "md")


def chunks(text: str, title: str = "", window: int = 32, overlap: int = 6, least: int = 8) -> list[Chunk]:
    config = ChunkingConfig(overlap_tokens=overlap, min_tokens=least)
    return Chunker(config, WordTokenizer(), window).chunk(document(text, title))


def tokens(text: str) -> int:
    return len(token_maps([text], WordTokenizer())[0]) if text.strip() else 0


def words(count: int, start: int = 0) -> str:
    return " ".join(f"w{i}" for i in range(start, start + count))


@settings(deadline=None, max_examples=300)
@example("0\n0:0:0\x1b0\x080:0", 16, 1, 1)  # only white space lies between the start and the token to repeat
@given(TEXTS, st.integers(16, 64), st.integers(0, 7), st.integers(1, 8))
def test_chunks_cut_exactly_in_order_and_cover_the_text(text: str, window: int, overlap: int, least: int) -> None:
    text = document(text).text
    end = 0
    start = -1
    for number, chunk in enumerate(chunks(text, "A title", window, overlap, least)):
        assert chunk.ordinal == number
        assert chunk.text == text[chunk.start : chunk.end]
        assert chunk.text == chunk.text.strip() != ""
        assert chunk.start > start
        assert chunk.end > end
        assert not text[end : chunk.start].strip()
        start, end = chunk.start, chunk.end
    assert not text[end:].strip()


@settings(deadline=None, max_examples=300)
@given(TEXTS, st.text(max_size=60), st.integers(16, 64))
def test_what_is_embedded_fits_the_window(text: str, title: str, window: int) -> None:
    for chunk in chunks(text, title, window, overlap=5, least=4):
        assert tokens(chunk.embedded_text) + 2 <= window


@settings(deadline=None)
@given(st.lists(TEXTS, max_size=5))
def test_documents_are_chunked_alike_alone_and_together(texts: list[str]) -> None:
    chunker = Chunker(ChunkingConfig(overlap_tokens=4, min_tokens=4), WordTokenizer(), 24)
    documents = [document(text, "T") for text in texts]
    assert list(chunker.chunk_all(documents)) == [chunker.chunk(d) for d in documents]


@settings(deadline=None)
@given(TEXTS)
def test_blocks_and_sentences_are_in_order_and_cover_the_text(text: str) -> None:
    end = 0
    for block in blocks(text):
        starts = list(sentence_starts(text, block))
        assert not text[end : block.start].strip()
        assert starts == sorted(set(starts))
        assert starts[0] == block.start
        assert all(not text[s].isspace() for s in starts)
        assert starts[-1] < block.end
        end = block.end
    assert not text[end:].strip()


def test_a_document_that_fits_is_one_chunk_under_its_title() -> None:
    (chunk,) = chunks("# A\n\nOne.\n\n# B\n\nTwo.\n", "T", least=1)
    assert chunk.embedded_text == "T\n# A\n\nOne.\n\n# B\n\nTwo."


def test_a_passage_is_embedded_as_title_and_text() -> None:
    (chunk,) = chunks("Only text.", "Title")
    assert chunk.embedded_text == "Title\nOnly text."


def test_a_title_that_the_text_shows_itself_is_not_said_twice() -> None:
    (chunk,) = chunks("# Title\n\nText.", "Title")
    assert chunk.embedded_text == "# Title\n\nText."


def test_a_blank_document_has_no_chunks() -> None:
    assert chunks(" \n\n\t") == []


def test_sections_become_chunks_with_their_path() -> None:
    text = f"# A\n\n{words(12)}\n\n## B\n\n{words(12)}\n\n# C\n\n{words(12)}"
    found = chunks(text, "T")
    assert [c.heading for c in found] == [("A",), ("A", "B"), ("C",)]
    assert found[1].embedded_text.startswith("T\nA\n## B\n\nw0")


def test_short_sections_are_merged_with_the_next() -> None:
    text = "".join(f"# H{i}\n\nw w\n\n" for i in range(12))
    assert all(c.text.startswith("# H") for c in chunks(text))
    assert len(chunks(text)) < 8


def test_a_heading_stays_with_what_follows_it() -> None:
    text = f"{words(26)}\n\n## Head\n\n{words(20)}"
    assert not any(c.text.endswith("Head") for c in chunks(text, least=16, overlap=0))


def test_a_code_block_that_fits_is_kept_whole() -> None:
    code = "```\n" + "\n".join(f"call{i}()" for i in range(4)) + "\n```"
    text = f"{words(8)}\n\n{code}\n\n{words(20)}"
    assert any(code in c.text for c in chunks(text, overlap=0))


def test_a_code_block_that_does_not_fit_is_cut_between_lines() -> None:
    lines = [f"a{i} = b{i}" for i in range(40)]
    text = "```\n" + "\n".join(lines) + "\n```"
    for chunk in chunks(text, overlap=0):
        assert set(chunk.text.split("\n")) <= {"```", *lines}


def test_a_hash_in_code_is_no_heading() -> None:
    assert [h.text for h in headings("# A\n```\n# no\n```\n~~~\n# no\n~~~\n## B\n")] == ["A", "B"]


def test_headings_are_found_in_each_style() -> None:
    text = "# One #\n\nTwo\n===\n\nThree\n-----\nx\n\n| a |\n|---|\n\n- b\n---\n\n    indented\n    ---\n\n#no\n"
    assert [(h.level, h.text) for h in headings(text)] == [(1, "One"), (1, "Two"), (2, "Three")]


def test_a_long_paragraph_is_cut_between_sentences() -> None:
    sentences = [f"Sentence number {i} is here." for i in range(20)]
    found = chunks(" ".join(sentences), overlap=0)
    assert [s for c in found for s in re.split(r"(?<=\.) ", c.text)] == sentences


def test_chinese_is_cut_between_sentences() -> None:
    found = chunks("检索增强生成。分片索引很快！真的吗？" * 6, overlap=0)
    assert len(found) > 2
    assert all(c.text[-1] in "。！？" for c in found)


def sentences_of(text: str) -> list[str]:
    (block,) = blocks(text)
    starts = [*sentence_starts(text, block), len(text)]
    return [text[a:b].strip() for a, b in pairwise(starts)]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Dr. Smith came. He left.", ["Dr. Smith came.", "He left."]),
        ("See e.g. Table 1. It shows.", ["See e.g. Table 1.", "It shows."]),
        ("J. Smith wrote it. Really!", ["J. Smith wrote it.", "Really!"]),
        ('He asked "Why?" Nobody knew.', ['He asked "Why?"', "Nobody knew."]),
        ("Use v1.2 or 3.5 now. Then stop.", ["Use v1.2 or 3.5 now.", "Then stop."]),
        ("他说：「好。」然后走了。", ["他说：「好。」", "然后走了。"]),
        ("Intro:\n- one\n- two\n1. three", ["Intro:", "- one", "- two", "1. three"]),
        ("Steps.\n  4. If so, go.\n  5. Else stay.", ["Steps.", "4. If so, go.", "5. Else stay."]),
        ("It was 1984. Then it ended.", ["It was 1984.", "Then it ended."]),
        ("no capital. after this", ["no capital. after this"]),
    ],
)
def test_sentences_end_where_a_reader_would_end_them(text: str, expected: list[str]) -> None:
    assert sentences_of(text) == expected


def test_inside_a_section_the_last_sentences_are_repeated() -> None:
    sentences = [f"Sentence {i} here." for i in range(20)]
    found = chunks(" ".join(sentences), overlap=9)
    for before, after in pairwise(found):
        repeated = before.text[after.start - before.start :]
        assert tokens(repeated) == 8
        assert repeated.startswith("Sentence")


def test_a_new_section_repeats_nothing() -> None:
    text = "".join(f"# H{i}\n\nOne here. Two here. Three here.\n\n" for i in range(6))
    assert all(c.text.startswith("# H") for c in chunks(text, overlap=8))


def test_words_are_cut_only_if_there_is_no_other_way() -> None:
    found = chunks(words(100), overlap=4)
    assert all(re.fullmatch(r"(w\d+ ?)+", c.text) for c in found)
    assert all(b.start < a.end for a, b in pairwise(found))


def test_a_word_that_the_tokenizer_gave_up_on_does_not_make_an_endless_chunk() -> None:
    found = chunks("x" * 100_000, overlap=0)
    assert max(len(c.text) for c in found) < LONG_TOKEN * 4


def test_a_chunk_tells_the_page_on_which_it_starts() -> None:
    first, second = words(20), words(20)
    text = f"{first}\n\n{second}"
    config = ChunkingConfig(overlap_tokens=0, min_tokens=8)
    found = Chunker(config, WordTokenizer(), 24).chunk(document(text, pages=(0, len(first) + 2)))
    assert [c.page for c in found] == [1, 2]
    assert chunks(text)[0].page is None


def test_context_has_at_most_a_quarter_of_the_window() -> None:
    text = f"# {words(30)}\n\n## Inner\n\n{words(90)}"
    last = chunks(text, words(50), window=64)[-1]
    context = last.embedded_text.removesuffix(last.text)
    assert 0 < tokens(context) <= 64 // 4


def test_windows_of_a_long_text_hold_the_same_tokens() -> None:
    text = words(WINDOW_CHARACTERS // 3)
    (found,) = token_maps([text], WordTokenizer())
    assert found.starts == [start for start, _ in WordTokenizer().offsets([text])[0]]


def test_a_tokenizer_that_loses_texts_is_a_model_error() -> None:
    class Lossy(WordTokenizer):
        def offsets(self, texts: list[str]) -> list[list[tuple[int, int]]]:
            return super().offsets(texts)[1:]

    with pytest.raises(ModelError, match="answered 0 of 1"):
        Chunker(ChunkingConfig(), Lossy(), 256).chunk(document("text"))


@pytest.mark.parametrize("line", ["." * 50_000, ". " * 50_000, "# " + "#" * 50_000 + "x", "`" * 50_000, "(" * 50_000])
def test_hostile_lines_are_cut_in_linear_time(line: str) -> None:
    assert chunks(line)  # a quadratic scan would run into the time limit of the test


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"max_tokens": 8}, "max_tokens"),
        ({"overlap_tokens": -1}, "overlap_tokens"),
        ({"min_tokens": 0}, "min_tokens"),
        ({"overlap": 3}, "overlap"),
    ],
)
def test_a_wrong_key_or_value_is_named(values: dict[str, int], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        ChunkingConfig(**values)  # type: ignore[arg-type]


@pytest.mark.parametrize("key", ["overlap_tokens", "min_tokens"])
def test_sizes_that_do_not_go_with_the_window_are_a_usage_error(key: str) -> None:
    with pytest.raises(UsageError, match=f"chunking.{key} is 65: expected at most 64"):
        ChunkingConfig(max_tokens=128, **{key: 65})
    with pytest.raises(UsageError, match=f"chunking.{key} is 65: expected at most 64"):
        Chunker(ChunkingConfig(**{key: 65}), WordTokenizer(), 128)


def test_more_tokens_than_the_embedder_takes_are_a_usage_error() -> None:
    with pytest.raises(UsageError, match="max_tokens is 512: the embedder takes at most 256"):
        Chunker(ChunkingConfig(max_tokens=512), WordTokenizer(), 256)
