"""The places at which a document may be cut, ordered by how much they matter.

Guaranteed: every place is the offset of a character that is not white space. A heading stays with what follows it: no
place lies between the two. Sentences are found only where they are asked for, since finding them costs as much as
everything else here.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Sequence
from dataclasses import dataclass, field

from ray_jobs.corpus.structure import Block, blocks, sentence_starts


@dataclass(frozen=True, slots=True)
class Section:
    """The text from one run of headings to the next; `path` holds (offset, text) of each heading, outermost first."""

    start: int
    path: tuple[tuple[int, str], ...]


@dataclass(frozen=True, slots=True)
class Outline:
    """The outline of `text`: its sections, its blocks as found, and where groups of heading and block start."""

    text: str
    sections: Sequence[Section]
    blocks: Sequence[Block]
    group_starts: Sequence[int]
    codes: Sequence[tuple[int, int]]
    _block_starts: Sequence[int]
    _section_starts: Sequence[int]
    _sentences: dict[int, list[int]] = field(default_factory=dict, compare=False)

    @property
    def end(self) -> int:
        """The offset after the last character that is not white space; 0 for a blank text."""
        return self.blocks[-1].end if self.blocks else 0

    def headings(self) -> list[str]:
        """Return the distinct headings, in order."""
        return list(dict.fromkeys(text for section in self.sections for _, text in section.path))

    def section_at(self, offset: int) -> Section:
        """Return the section that holds `offset`."""
        return self.sections[bisect_right(self._section_starts, offset) - 1]

    def sections_within(self, after: int, until: int) -> Sequence[int]:
        """Return where sections start in (after, until]."""
        starts = self._section_starts
        return starts[bisect_right(starts, after) : bisect_right(starts, until)]

    def last_group(self, after: int, until: int) -> int | None:
        """Return the last start of a group in (after, until]."""
        index = bisect_right(self.group_starts, until) - 1
        return self.group_starts[index] if index >= 0 and self.group_starts[index] > after else None

    def code_across(self, offset: int) -> tuple[int, int] | None:
        """Return the code group (its heading included) that starts before `offset` and ends after it."""
        index = bisect_left(self.codes, (offset, 0)) - 1
        return self.codes[index] if index >= 0 and self.codes[index][1] > offset else None

    def block_index(self, offset: int) -> int:
        """Return the index of the last block that starts at or before `offset`."""
        return max(0, bisect_right(self._block_starts, offset) - 1)

    def sentences(self, index: int) -> list[int]:
        """Return where the sentences of a block start, ascending; the first is the block's own start."""
        found = self._sentences.get(index)
        if found is None:
            found = self._sentences[index] = list(sentence_starts(self.text, self.blocks[index]))
        return found


def outline(text: str) -> Outline:
    """Read the structure of a text in one pass."""
    found = list(blocks(text))
    sections: list[Section] = []
    group_starts: list[int] = []
    codes: list[tuple[int, int]] = []
    path: list[Block] = []
    glued = False
    for block in found:
        if not glued:
            group_starts.append(block.start)
        if block.kind == "heading":
            while path and path[-1].level >= block.level:
                path.pop()
            path.append(block)
        if (block.kind == "heading" and not glued) or not sections:
            sections.append(_section(block.start, path))
        elif block.kind == "heading":
            # A heading right after a heading: the same section, with a longer path.
            sections[-1] = _section(sections[-1].start, path)
        if block.kind == "code":
            codes.append((group_starts[-1], block.end))
        glued = block.kind == "heading"
    return Outline(
        text=text,
        sections=sections,
        blocks=found,
        group_starts=group_starts,
        codes=codes,
        _block_starts=[block.start for block in found],
        _section_starts=[section.start for section in sections],
    )


def _section(start: int, path: list[Block]) -> Section:
    return Section(start, tuple((block.start, block.title) for block in path))
