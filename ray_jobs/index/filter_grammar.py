"""Filter expressions: text to parts, by a grammar; nothing is ever evaluated as code.

    year >= 2020 and (lang = 'en' or tags not in ('draft', 'old')) and exists author.name

``and`` binds tighter than ``or``, ``not`` tightest; keywords in any case. A field is a word that may hold ``. / -``,
or anything in quotes. A text is in single or double quotes; in quotes a backslash keeps the next character as it is.
``f not in (...)`` is ``not f in (...)``.

Guaranteed: an expression either parses or raises UsageError with a caret under the place. Not guaranteed: nesting
deeper than MAX_DEPTH and numbers beyond 64 bits, which are refused.
"""

from __future__ import annotations

import math
import unicodedata
from functools import cache
from typing import TYPE_CHECKING

from ray_jobs.errors import UsageError
from ray_jobs.index.filter_ast import And, Comparison, Exists, Filter, Membership, Not, Or, children

if TYPE_CHECKING:
    from collections.abc import Iterable

    from lark import Lark, Token

    from ray_jobs.index.filter_ast import Operator, Value

MAX_DEPTH = 50
_CONTEXT = 60

_GRAMMAR = r"""
    start: either
    either: both (_OR both)*
    both: _term (_AND _term)*
    _term: negation | "(" either ")" | comparison | membership | exclusion | exists
    negation: _NOT _term
    comparison: _field OPERATOR _value
    membership: _field _IN "(" _value ("," _value)* ")"
    exclusion: _field _NOT _IN "(" _value ("," _value)* ")"
    exists: _EXISTS _field
    _field: name | text
    _value: text | number | boolean
    name: NAME
    text: TEXT
    number: NUMBER
    boolean: BOOLEAN

    _AND.2: /and(?![\w.\/-])/i
    _OR.2: /or(?![\w.\/-])/i
    _NOT.2: /not(?![\w.\/-])/i
    _IN.2: /in(?![\w.\/-])/i
    _EXISTS.2: /exists(?![\w.\/-])/i
    BOOLEAN.2: /(true|false)(?![\w.\/-])/i
    OPERATOR: /[!<>]=|[=<>]/
    NUMBER: /[+-]?([0-9]+(\.[0-9]*)?|\.[0-9]+)(e[+-]?[0-9]+)?(?![\w.-])/i
    TEXT: /'(\\.|[^'\\])*'|"(\\.|[^"\\])*"/s
    NAME: /[^\W\d][\w.\/-]*/
    %ignore /\s+/
"""

_EXPECTED = {
    "NAME": "a field",
    "_EXISTS": "exists",
    "_NOT": "not",
    "_IN": "in",
    "_AND": "and",
    "_OR": "or",
    "OPERATOR": "one of = != < <= > >=",
    "TEXT": "a text in quotes",
    "NUMBER": "a number",
    "BOOLEAN": "true or false",
    "LPAR": "(",
    "RPAR": ")",
    "COMMA": ",",
    "$END": "the end",
}


def parse(expression: str) -> Filter:
    """The filter that ``expression`` spells out.

    Raises UsageError: its first line says what is wrong and where, the next two show the place with a caret.
    """
    from lark.exceptions import UnexpectedCharacters, UnexpectedToken

    try:
        parsed: Filter = _parser().parse(expression)  # type: ignore[assignment]
    except UnexpectedCharacters as error:
        position = error.pos_in_stream or 0
        if expression[position] in "'\"":
            raise _misplaced(expression, position, "this quote is never closed") from None
        raise _misplaced(expression, position, _expectation(_accepted_after(expression[:position]))) from None
    except UnexpectedToken as error:
        position = len(expression) if error.token.type == "$END" else error.token.start_pos
        raise _misplaced(expression, position or 0, _expectation(error.accepts or error.expected)) from None
    except _ValueRefused as error:
        raise _misplaced(expression, error.position, f"expected {error}") from None
    if _depth(parsed) > MAX_DEPTH:
        raise UsageError(f"filter: nested deeper than {MAX_DEPTH}; write it flatter, with and, or, in (...)")
    return parsed


class _ValueRefused(Exception):
    def __init__(self, token: Token, expected: str) -> None:
        super().__init__(expected)
        self.position = token.start_pos or 0


class _Parts:
    """Called by the parser as it recognises each rule, innermost first: no tree, so no depth to recurse into."""

    def start(self, found: list[Filter]) -> Filter:
        return found[0]

    def either(self, operands: list[Filter]) -> Filter:
        return Or(tuple(operands)) if len(operands) > 1 else operands[0]

    def both(self, operands: list[Filter]) -> Filter:
        return And(tuple(operands)) if len(operands) > 1 else operands[0]

    def negation(self, operands: list[Filter]) -> Not:
        return Not(operands[0])

    def comparison(self, parts: tuple[str, Token, Value]) -> Comparison:
        field, operator, value = parts
        spelled: Operator = str(operator)  # type: ignore[assignment]
        return Comparison(field, spelled, value)

    def membership(self, parts: list[str]) -> Membership:
        return Membership(parts[0], tuple(parts[1:]))

    def exclusion(self, parts: list[str]) -> Not:
        return Not(self.membership(parts))

    def exists(self, parts: list[str]) -> Exists:
        return Exists(parts[0])

    def name(self, tokens: list[Token]) -> str:
        return str(tokens[0])

    def text(self, tokens: list[Token]) -> str:
        inside = iter(tokens[0][1:-1])
        return "".join(next(inside) if character == "\\" else character for character in inside)

    def number(self, tokens: list[Token]) -> int | float:
        written = str(tokens[0])
        if written.lstrip("+-").isdecimal():
            if len(written) > 20 or not -(2**63) <= int(written) < 2**63:
                raise _ValueRefused(tokens[0], "an integer of at most 64 bits")
            return int(written)
        if math.isinf(float(written)):
            raise _ValueRefused(tokens[0], "a number of at most 1.8e308")
        return float(written)

    def boolean(self, tokens: list[Token]) -> bool:
        return tokens[0].lower() == "true"


@cache
def _parser() -> Lark:
    from lark import Lark

    return Lark(_GRAMMAR, parser="lalr", transformer=_Parts(), maybe_placeholders=False)


def _accepted_after(beginning: str) -> set[str]:
    from lark.exceptions import UnexpectedInput

    interactive = _parser().parse_interactive(beginning)
    try:
        interactive.exhaust_lexer()
    except UnexpectedInput:
        return set()
    return set(interactive.accepts())  # type: ignore[no-untyped-call]


def _expectation(terminals: Iterable[str]) -> str:
    accepted = set(terminals)
    known = [spoken for name, spoken in _EXPECTED.items() if name in accepted]
    return (
        f"expected {', '.join(known[:-1])}{' or ' if len(known) > 1 else ''}{known[-1]}" if known else "not understood"
    )


def _depth(parsed: Filter) -> int:
    deepest, waiting = 0, [(parsed, 1)]
    while waiting:
        node, depth = waiting.pop()
        deepest = max(deepest, depth)
        waiting.extend((child, depth + 1) for child in children(node))
    return deepest


def _misplaced(expression: str, position: int, problem: str) -> UsageError:
    first = max(0, position - _CONTEXT)
    shown = "".join(" " if c.isspace() else c for c in expression[first : position + _CONTEXT])
    # Chinese characters are two columns wide on a terminal.
    columns = sum(2 if unicodedata.east_asian_width(c) in "WF" else 1 for c in shown[: position - first])
    return UsageError(f"filter, character {position + 1}: {problem}\n  {shown}\n  {' ' * columns}^")
