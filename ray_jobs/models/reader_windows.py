"""A question and a passage as tokens: windows that overlap, so that a passage of any length is read whole.

Guaranteed: the ids, segments and offsets that transformers would give with `truncation="only_second"` and a stride;
every token of the passage is in a window, and so is, whole, every stretch of at most `overlap` tokens; spans are code
points of the passage. Where a long question leaves less room than two overlaps, the overlap is half of the room.
Not guaranteed: that special tokens written in a passage are taken as text; the tokeniser decides.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from threading import Lock

import numpy as np
from numpy.typing import NDArray
from tokenizers import Encoding, Tokenizer

from ray_jobs.models.encodable import encodable
from ray_jobs.models.pairs import Pair

_PASSAGE = 1


@dataclass(frozen=True, slots=True)
class Window:
    """A question with a part of its passage, as `tokens` tokens.

    `pair` is the number of the pair that it was made of. `ids` and `segments` are int64 (tokens,). `spans` is int64
    (tokens, 2), the code points of the passage that a token covers; it means nothing where `readable`, bool (tokens,),
    is false: at tokens of the question, special tokens and white space. `null` is the place of the token whose logits
    say "no answer".
    """

    pair: int
    ids: NDArray[np.int64]
    segments: NDArray[np.int64]
    spans: NDArray[np.int64]
    readable: NDArray[np.bool_]
    null: int


class WindowTokenizer:
    """Windows of questions with passages. Safe to call from several threads."""

    def __init__(self, serialized: str, null_id: int | None) -> None:
        """`serialized` is the content of a `tokenizer.json`; `null_id` the token that stands for "no answer".

        Without one, the first token of a window stands for it.
        """
        self._whole = _open(serialized)
        self._cutting = _open(serialized)
        self._null_id = null_id
        self._lock = Lock()

    def overhead(self, question: str) -> int:
        """Tokens that a window with this question has besides those of the passage."""
        encoding = self._whole.encode(encodable(question), add_special_tokens=False)
        return len(encoding.ids) + int(self._whole.num_special_tokens_to_add(True))

    def windows(self, pairs: Sequence[Pair], max_tokens: int, overlap: int) -> list[Window]:
        """The windows of all pairs (question, passage), in order, of at most `max_tokens` tokens each.

        The overhead of every question must be below `max_tokens`.
        """
        rooms = {question: max_tokens - self.overhead(question) for question, _ in pairs}
        overlaps = [min(overlap, rooms[question] // 2) for question, _ in pairs]
        encodings: dict[int, Encoding] = {}
        for shared in sorted(set(overlaps)):
            rows = [row for row, own in enumerate(overlaps) if own == shared]
            encodings.update(zip(rows, self._encode([pairs[row] for row in rows], max_tokens, shared), strict=True))
        return [
            self._window(row, part, pairs[row][1])
            for row in range(len(pairs))
            for part in (encodings[row], *encodings[row].overflowing)
        ]

    def _encode(self, pairs: Sequence[Pair], max_tokens: int, overlap: int) -> list[Encoding]:
        texts = [(encodable(question), encodable(passage)) for question, passage in pairs]
        with self._lock:
            # Length and stride lie in the tokeniser itself, so they must not change while another thread tokenises.
            self._cutting.enable_truncation(max_tokens, stride=overlap, strategy="only_second")
            encoded: list[Encoding] = self._cutting.encode_batch(texts)
        return encoded

    def _window(self, pair: int, encoding: Encoding, passage: str) -> Window:
        ids = np.array(encoding.ids, dtype=np.int64)
        spans = np.array(encoding.offsets, dtype=np.int64).reshape(-1, 2)
        readable = [
            sequence == _PASSAGE and not passage[start:end].isspace() and start < end
            for sequence, (start, end) in zip(encoding.sequence_ids, encoding.offsets, strict=True)
        ]
        found: NDArray[np.intp] = np.flatnonzero(ids == (-1 if self._null_id is None else self._null_id))
        return Window(
            pair,
            ids,
            np.array(encoding.type_ids, dtype=np.int64),
            spans,
            np.array(readable, dtype=np.bool_),
            int(found[0]) if len(found) else 0,
        )


def _open(serialized: str) -> Tokenizer:
    tokenizer = Tokenizer.from_str(serialized)
    tokenizer.no_padding()
    tokenizer.no_truncation()
    return tokenizer
