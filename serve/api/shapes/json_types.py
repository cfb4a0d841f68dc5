"""Fields whose value may be of several JSON types, and text that is not blank.

A plain union would report the errors of all its members. Here the JSON type chooses the member first:

    Annotated[Annotated[str, TEXT] | Annotated[list[str], LIST], one_of("a text or a list of texts")]
"""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, ConfigDict, Discriminator, StringConstraints, Tag
from pydantic_core import PydanticCustomError

TEXT = Tag("(text)")
LIST = Tag("(list)")
OBJECT = Tag("(object)")
FALSE = Tag("(false)")
TAGS = {tag.tag for tag in (TEXT, LIST, OBJECT, FALSE)}
"""What the place of an error has beside the names of fields."""


class Strict(BaseModel):
    """A part of a request: nothing is converted, and no field is ignored."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)


def one_of(expected: str) -> Discriminator:
    """Choose among tagged members by JSON type; `expected` says which there are."""
    return Discriminator(_tag, custom_error_type="json_type_unexpected", custom_error_message=expected)


def _tag(value: Any) -> str | None:
    if value is False:
        return FALSE.tag
    if isinstance(value, str):
        return TEXT.tag
    if isinstance(value, list):
        return LIST.tag
    return OBJECT.tag if isinstance(value, dict | BaseModel) else None


def _not_blank(text: str) -> str:
    if not text.strip():
        raise PydanticCustomError("blank", "text that is not blank")
    return text


NotBlank = Annotated[str, StringConstraints(min_length=1), AfterValidator(_not_blank)]
"""Text with something in it."""
