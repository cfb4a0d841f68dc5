"""What is wrong with a request, in one sentence that names the field.

The tags of a choice between JSON types (see shapes.json_types) are no part of a field's name.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from typing import Any

from serve.api.shapes.json_types import TAGS

_SHOWN = 60
_LONGEST_NAME = 200
_SHOULD = re.compile(r"^(Input|String|List|Dictionary|Value) should (be|have) ")
_EXPECTED = {
    "string_type": "text",
    "int_type": "an integer",
    "float_type": "a number",
    "float_parsing": "a number",
    "bool_type": "true or false",
    "list_type": "a list",
    "greater_than": "more than {gt}",
    "greater_than_equal": "{ge} or more",
    "less_than_equal": "at most {le}",
    "string_too_short": "at least {min_length} character",
    "string_too_long": "at most {max_length} characters",
    "too_short": "at least {min_length} item",
    "too_long": "at most {max_length} items",
    "model_attributes_type": "a JSON object",
    "model_type": "a JSON object",
    "string_unicode": "text without lone surrogates",
}


def first_problem(errors: Sequence[Mapping[str, Any]]) -> tuple[str, str | None]:
    """The message of the first of `errors`, as pydantic lists them, and the name of its field."""
    error = errors[0]
    place, *path = error["loc"]
    kind, given = error["type"], error.get("input")
    if kind == "json_invalid":
        return f"the body is not JSON: {error['ctx']['error']}, at character {path[0] + 1}", None
    unknown = [str(path.pop())] if kind == "extra_forbidden" else []  # the caller's word, whatever it is
    param = ".".join([str(part) for part in path if part not in TAGS] + unknown)[:_LONGEST_NAME]
    if not path and not unknown:
        return _of_body(kind, given), None
    named = f"header {param}" if place == "header" else param
    if kind == "missing":
        return f"{named} is missing", param
    if kind == "extra_forbidden":
        return f"{named}: there is no such field here; leave it out", param
    return f"{named}={_shown(given)}: expected {_expected(error)}", param


def _of_body(kind: str, given: object) -> str:
    if kind == "missing":
        return "the body is missing: expected a JSON object"
    if kind == "string_unicode":
        return "the body has a field whose name is no text: expected names without lone surrogates"
    if isinstance(given, bytes):
        return "the body is not taken for JSON: send it with the header 'Content-Type: application/json'"
    return f"the body is {_shown(given)}: expected a JSON object"


def _expected(error: Mapping[str, Any]) -> str:
    spoken = _EXPECTED.get(error["type"])
    if spoken is not None:
        return spoken.format(**error.get("ctx", {}))
    return _SHOULD.sub("", str(error["msg"]))


def _shown(given: object) -> str:
    if isinstance(given, dict | list):
        return "{...}" if isinstance(given, dict) else "[...]"
    shown = json.dumps(given, default=str)
    return shown if len(shown) <= _SHOWN else f"{shown[: _SHOWN - 3]}..."
