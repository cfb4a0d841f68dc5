"""A row as it was found, and how the kinds take their texts out of it.

Guaranteed: every text that is taken is cleaned; whatever is wrong is a WrongRowError with a reason that can be counted
(`missing-prompt`, `bad-prompt`, `empty-prompt`) and a sentence for people. Spellings of one thing come in order of
preference; a null is as good as an absent column.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from ray_jobs.train.data.cleaning import clean

_SHOWN = 80


class WrongRowError(Exception):
    """A row that cannot be used. `reason` is a code that can be counted; the message can be written anywhere."""

    def __init__(self, reason: str, message: str) -> None:
        # It may quote names and values of the row, which can hold what UTF-8 cannot.
        super().__init__(clean(message))
        self.reason = reason


class RawRow:
    """One row of the input. `cleaned` tells whether cleaning changed a text that was taken from it."""

    def __init__(self, columns: Mapping[str, object]) -> None:
        self._columns = columns
        self.cleaned = False

    @property
    def names(self) -> frozenset[str]:
        """The columns that hold something."""
        return frozenset(name for name, value in self._columns.items() if value is not None)

    def value(self, *spellings: str) -> object:
        """What stands under the first spelling that holds something; None without."""
        return next((self._columns[name] for name in spellings if self._columns.get(name) is not None), None)

    def clean(self, text: str) -> str:
        """The text cleaned."""
        cleaned = clean(text)
        self.cleaned = self.cleaned or cleaned != text
        return cleaned

    def raw_text(self, *spellings: str) -> str:
        """A text as it stands, not blank."""
        value = self.value(*spellings)
        if value is None:
            raise WrongRowError(f"missing-{spellings[0]}", f"there is no {_named(spellings)}; found {self._found()}")
        return check_text(value, spellings[0])

    def text(self, *spellings: str) -> str:
        """A text, cleaned and not blank."""
        return self._kept(self.raw_text(*spellings), spellings[0])

    def texts(self, *spellings: str) -> list[str]:
        """A list of texts, or one text as a list of one; empty where there is none."""
        value = self.value(*spellings)
        if value is None:
            return []
        items = value if isinstance(value, Sequence) and not isinstance(value, str) else [value]
        return [self._kept(check_text(item, spellings[0]), spellings[0]) for item in items]

    def identities(self, *spellings: str) -> list[str]:
        """A list of ids (strings or whole numbers), or one id as a list of one; empty where there is none."""
        value = self.value(*spellings)
        if value is None:
            return []
        items = value if isinstance(value, Sequence) and not isinstance(value, str) else [value]
        return [self._identity(item, spellings[0]) for item in items]

    def identity(self, *spellings: str) -> str | None:
        """An id (a string or a whole number) or None."""
        value = self.value(*spellings)
        return None if value is None else self._identity(value, spellings[0])

    def _identity(self, value: object, name: str) -> str:
        if isinstance(value, float) and value.is_integer():
            # A column of whole numbers with gaps is stored as floats by pandas.
            value = int(value)
        if isinstance(value, bool | float) or not isinstance(value, str | int) or not str(value).strip():
            raise WrongRowError(f"bad-{name}", f"{name!r} is {shown(value)}: expected a string or a whole number")
        return self.clean(str(value))

    def _kept(self, text: str, name: str) -> str:
        return check_text(self.clean(text), name)

    def _found(self) -> str:
        return ", ".join(sorted(map(str, self.names))[:20]) or "nothing"


def check_text(value: object, name: str) -> str:
    """`value` if it is a text that says something."""
    if not isinstance(value, str):
        raise WrongRowError(f"bad-{name}", f"{name!r} is of type {type(value).__name__}: expected a string")
    if not value.strip():
        raise WrongRowError(f"empty-{name}", f"{name!r} is empty")
    return value


def shown(value: object) -> str:
    """A value as an error message shows it."""
    text = repr(value)
    return text if len(text) <= _SHOWN else text[: _SHOWN - 3] + "..."


def _named(spellings: Sequence[str]) -> str:
    return " or ".join(repr(name) for name in spellings)
