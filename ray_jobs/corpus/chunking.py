"""Cut documents into chunks that an embedder can take whole.

Guaranteed: `chunk.text == document.text[chunk.start:chunk.end]`; the spans are in order and together hold every
character that is not white space; the same document, configuration and tokenizer give the same chunks. A document that
fits in one window together with its title is one chunk. `embedded_text` has at most `max_tokens` tokens, special ones
included, for tokenizers whose tokens do not reach across white space; others may be off by a token or two at the
edges. Not guaranteed: that bound for words that the tokenizer gave up on (see tokens.py; the embedder truncates).

Where a chunk ends, the first of these that there is:
1. before a section, once the chunk has `min_tokens` (a short section is merged with the next one);
2. before a code block that would be cut here, but fits in a chunk of its own;
3. before a block that leaves the chunk at least half full;
4. before a sentence (in code, a line) that leaves it at least a quarter full;
5. between words; 6. between tokens.
A chunk that goes on inside a section repeats the last sentences of the one before, up to `overlap_tokens`.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from pydantic import BaseModel, ConfigDict, Field, model_validator

from ray_jobs.corpus.batches import batches_of
from ray_jobs.corpus.context import SHARE_OF_WINDOW, Context, context
from ray_jobs.corpus.document import Chunk, Document
from ray_jobs.corpus.outline import Outline, outline
from ray_jobs.corpus.tokens import CALL_CHARACTERS, Tokenizer, TokenMap, token_maps
from ray_jobs.errors import UsageError

MIN_WINDOW = 16
_FURTHEST_WORD_END = 64


class ChunkingConfig(BaseModel):
    """How documents are cut; all sizes in tokens of the embedder.

    `max_tokens` None means as many as the embedder takes. `min_tokens` is the size from which a chunk ends at a
    heading. Raises pydantic's ValidationError for unknown keys and wrong types, UsageError for sizes that do not go
    together.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    max_tokens: int | None = Field(default=None, ge=MIN_WINDOW)
    overlap_tokens: int = Field(default=32, ge=0)
    min_tokens: int = Field(default=64, ge=1)

    @model_validator(mode="after")
    def _sizes_fit(self) -> ChunkingConfig:
        if self.max_tokens is not None:
            check_sizes(self, self.max_tokens)
        return self


def check_sizes(config: ChunkingConfig, max_tokens: int) -> None:
    """Raise UsageError if overlap or minimum do not go with a window of `max_tokens`."""
    if max_tokens < MIN_WINDOW:
        raise UsageError(f"chunking.max_tokens is {max_tokens}: expected at least {MIN_WINDOW}")
    for key in ("overlap_tokens", "min_tokens"):
        value = getattr(config, key)
        if value > max_tokens // 2:
            raise UsageError(
                f"chunking.{key} is {value}: expected at most {max_tokens // 2}, half of the window of {max_tokens} "
                "tokens; lower it, or raise chunking.max_tokens as far as the embedder allows"
            )


class Chunker:
    """Cuts documents for one embedder. Holds no state between documents.

    `max_tokens` is the embedder's own maximum, special tokens and prompt included. Raises UsageError if the
    configuration asks for more than that, or for sizes that do not fit into it.
    """

    def __init__(self, config: ChunkingConfig, tokenizer: Tokenizer, max_tokens: int) -> None:
        window = max_tokens if config.max_tokens is None else config.max_tokens
        if window > max_tokens:
            raise UsageError(f"chunking.max_tokens is {window}: the embedder takes at most {max_tokens}; lower it")
        check_sizes(config, window)
        self._config = config
        self._tokenizer = tokenizer
        self._room = window - tokenizer.special_tokens
        self._allowance = self._room // SHARE_OF_WINDOW
        if self._room - self._allowance <= config.overlap_tokens:
            raise UsageError(
                f"chunking.max_tokens is {window}, of which special tokens and prompt take {tokenizer.special_tokens}: "
                f"too few are left for an overlap of {config.overlap_tokens}; raise the one or lower the other"
            )

    def chunk(self, document: Document) -> list[Chunk]:
        """Return the chunks of one document, in order; none for a blank text."""
        return next(self.chunk_all([document]))

    def chunk_all(self, documents: Iterable[Document]) -> Iterator[list[Chunk]]:
        """Yield the chunks of each document, in order; some million characters are tokenised at once."""
        for batch in batches_of(documents, lambda document: len(document.text), CALL_CHARACTERS):
            yield from self._chunk_batch(batch)

    def _chunk_batch(self, documents: Sequence[Document]) -> Iterator[list[Chunk]]:
        outlines = [outline(document.text) for document in documents]
        lines = list(
            dict.fromkeys(line for d, o in zip(documents, outlines, strict=True) for line in (d.title, *o.headings()))
        )
        texts = [document.text for document in documents]
        maps = token_maps([*texts, *lines], self._tokenizer)
        line_maps = dict(zip(lines, maps[len(texts) :], strict=True))
        for document, found, tokens in zip(documents, outlines, maps, strict=False):
            yield list(self._cut(document, found, tokens, line_maps))

    def _cut(
        self, document: Document, found: Outline, tokens: TokenMap, line_maps: dict[str, TokenMap]
    ) -> Iterator[Chunk]:
        if not found.blocks:
            return
        start = found.blocks[0].start
        above = self._above(document.title, found, start, start, line_maps, self._room)
        if above.tokens + tokens.count(start, found.end) <= self._room:
            yield _chunk(document, found, 0, start, start, found.end, above)
            return
        fresh, ordinal = start, 0
        while fresh < found.end:
            above = self._above(document.title, found, start, fresh, line_maps, self._allowance)
            piece = _Piece(found, tokens, start, fresh, self._room - above.tokens)
            end = piece.end(self._config.min_tokens)
            yield _chunk(document, found, ordinal, start, fresh, end, above)
            start, fresh, ordinal = piece.overlap(end, self._config.overlap_tokens), end, ordinal + 1

    def _above(
        self, title: str, found: Outline, start: int, fresh: int, line_maps: dict[str, TokenMap], allowance: int
    ) -> Context:
        """Return the context of the chunk at `start`, less the headings that its own text shows."""
        path = found.section_at(fresh).path
        own = {text for offset, text in path if offset >= start}
        headings = tuple(text for offset, text in path if offset < start)
        return context("" if title in own else title, headings, line_maps, allowance)


@dataclass(frozen=True, slots=True)
class _Piece:
    """A chunk in the making: it starts at `start`, what is new in it at `fresh`, and `budget` tokens go into it."""

    found: Outline
    tokens: TokenMap
    start: int
    fresh: int
    budget: int

    def end(self, min_tokens: int) -> int:
        """Return where the next chunk's own text starts: always after `fresh`."""
        found, limit = self.found, self.tokens.reach(self.start, self.budget)
        rest_fits = limit >= found.end
        for section in found.sections_within(self.fresh, limit):
            enough = self.tokens.count(self.fresh, section) >= min_tokens
            tail = rest_fits and self.tokens.count(section, found.end) < min_tokens
            if enough and not tail and section < found.end:
                return section
        if rest_fits:
            return found.end
        return (
            self._before_code(limit)
            or self._before_block(limit)
            or self._before_sentence(limit)
            or self._at_word(limit)
        )

    def overlap(self, end: int, most: int) -> int:
        """Return where the chunk after `end` starts: at `end` or up to `most` tokens before it."""
        found = self.found
        if most == 0 or end >= found.end or found.section_at(end).start == end:
            return end
        start = end
        index = found.block_index(end - 1)
        while index >= 0 and found.blocks[index].end > self.start:
            block = found.blocks[index]
            whole_only = block.kind == "code" and block.end < end
            for sentence in reversed(found.sentences(index)[:1] if whole_only else found.sentences(index)):
                if sentence < end and (sentence <= self.start or self.tokens.count(sentence, end) > most):
                    return start if start < end else self._word_back(end, most)
                start = min(start, sentence)
            index -= 1
        return start

    def _before_code(self, limit: int) -> int | None:
        code = self.found.code_across(limit)
        if code is None or code[0] <= self.fresh or self.tokens.count(*code) > self.budget:
            return None
        return code[0]

    def _before_block(self, limit: int) -> int | None:
        block = self.found.last_group(self.fresh, limit)
        return block if block is not None and self.tokens.count(self.start, block) >= self.budget // 2 else None

    def _before_sentence(self, limit: int) -> int | None:
        sentences = self.found.sentences(self.found.block_index(limit))
        index = bisect_right(sentences, limit) - 1
        if index < 0 or sentences[index] <= self.fresh:
            return None
        return sentences[index] if self.tokens.count(self.start, sentences[index]) >= self.budget // 4 else None

    def _at_word(self, limit: int) -> int:
        for offset in range(limit, max(self.fresh, limit - _FURTHEST_WORD_END), -1):
            if _starts_word(self.found.text, offset):
                return offset
        while self.found.text[limit].isspace():
            limit += 1
        return limit

    def _word_back(self, end: int, most: int) -> int:
        """Where no sentence is short enough to repeat, repeat words, if the cut was inside a sentence."""
        if end in self.found.sentences(self.found.block_index(end)):
            return end
        back = max(self.start + 1, self.tokens.back(end, most))
        text = self.found.text
        words = (offset for offset in range(back, end) if _starts_word(text, offset))
        inside = (offset for offset in range(back, end) if not text[offset].isspace())
        return next(words, next(inside, end))


def _starts_word(text: str, offset: int) -> bool:
    return text[offset - 1].isspace() and not text[offset].isspace()


def _chunk(document: Document, found: Outline, ordinal: int, start: int, fresh: int, end: int, above: Context) -> Chunk:
    text = document.text[start:end].rstrip()
    return Chunk(
        ordinal=ordinal,
        start=start,
        end=start + len(text),
        text=text,
        heading=tuple(heading for _, heading in found.section_at(fresh).path),
        page=bisect_right(document.pages, start) if document.pages else None,
        embedded_text=above.over(text),
    )
