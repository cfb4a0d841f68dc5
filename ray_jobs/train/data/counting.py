"""Count the tokens of texts with a model's own tokenizer, or words without one."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from ray_jobs.errors import ModelError
from ray_jobs.models.resolve import resolve
from ray_jobs.storage import Storage
from ray_jobs.train.data.kind import Content, Kind, Measured, Turn

# Scripts without spaces between words have a word a character.
_ALONE = "\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff"
_WORDS = re.compile(rf"[{_ALONE}]|[^\W{_ALONE}]+")


@dataclass(frozen=True, slots=True)
class Counted:
    """Whose tokens are counted: a model and its revision; words where there is none."""

    tokenizer: str | None
    revision: str | None

    @property
    def unit(self) -> str:
        """What lengths are in."""
        return "words" if self.tokenizer is None else "tokens"


class Counter(Protocol):
    """Counts the units of texts."""

    unit: str  # "tokens" or "words"

    def count(self, texts: Sequence[Measured]) -> list[int]:
        """The length of each text or conversation."""
        ...


class WordCounter:
    """Counts words: a rough guess that needs no model."""

    unit = "words"

    def count(self, texts: Sequence[Measured]) -> list[int]:
        """Words of each text; of a conversation, of what is said."""
        return [len(_WORDS.findall(text if isinstance(text, str) else said(text))) for text in texts]


class TokenCounter:
    """Counts tokens as the model will see them: special tokens and chat template included."""

    unit = "tokens"

    def __init__(self, name: str, store: Storage | None) -> None:
        from transformers import AutoTokenizer

        path = resolve(name, store).path
        try:
            self._tokenizer: Any = AutoTokenizer.from_pretrained(str(path))
        except (OSError, ValueError) as error:
            reason = str(error).splitlines()[0]
            raise ModelError(f"tokenizer={name}: {path} has no tokenizer that loads ({reason}); name a model") from None
        # Nothing is cut here, so nobody needs to be warned of long texts.
        self._tokenizer.model_max_length = int(1e9)
        self._special = int(self._tokenizer.num_special_tokens_to_add(False))

    def count(self, texts: Sequence[Measured]) -> list[int]:
        """Tokens of each text or conversation."""
        if not texts:
            return []
        rendered = [(text, self._special) if isinstance(text, str) else self._render(text) for text in texts]
        ids = self._tokenizer([text for text, _ in rendered], add_special_tokens=False, truncation=False)["input_ids"]
        return [len(found) + added for found, (_, added) in zip(ids, rendered, strict=True)]

    def _render(self, turns: list[Turn]) -> tuple[str, int]:
        """A conversation by the model's chat template, and the special tokens still to be added."""
        from jinja2.exceptions import TemplateError

        if self._tokenizer.chat_template:
            try:
                return str(self._tokenizer.apply_chat_template(turns, tokenize=False)), 0
            except TemplateError:
                # A template without a system role, for instance: the length is that of what is said.
                pass
        return said(turns), self._special


def said(turns: list[Turn]) -> str:
    """A conversation without its roles."""
    return "\n".join(turn["content"] for turn in turns)


def lengths(kind: Kind, contents: Sequence[Content], counter: Counter) -> dict[str, list[int]]:
    """The length of each text that the kind measures, a list of one a row; of several texts that of the longest."""
    measured = [kind.measured(content) for content in contents]
    found: dict[str, list[int]] = {}
    for name in kind.lengths:
        counted = iter(counter.count([text for row in measured for text in row[name]]))
        found[name] = [max(next(counted) for _ in row[name]) for row in measured]
    return found


def counter(name: str | None, store: Storage | None) -> Counter:
    """The counter that the configuration names. Raises NotFoundError and ModelError."""
    return WordCounter() if name is None else TokenCounter(name, store)
