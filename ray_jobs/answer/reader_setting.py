"""What a user says of the reader: its name, or, without one, how much to quote.

`reader: NAME` names a model that gives exact spans; `reader: {max_quotes: 2}` says how the reader that needs no model
of its own quotes, and `reader: quotes` is that one as it is. Guaranteed: what is wrong with any of them is said under
its own key. Not guaranteed: that a model of that name exists; whoever loads it sees.
"""

from __future__ import annotations

from typing import Annotated

from pydantic import BeforeValidator

from ray_jobs.answer.extractive import ReaderConfig

QUOTES = "quotes"


def _named_or_quoting(value: object) -> str | ReaderConfig:
    if isinstance(value, str):
        if not value.strip():
            raise ValueError("expected the name or path of a reader")
        return ReaderConfig() if value == QUOTES else value
    return ReaderConfig.model_validate(value)


# Before the union, which would report what is wrong once for each of its members.
ReaderSetting = Annotated[str | ReaderConfig, BeforeValidator(_named_or_quoting)]
