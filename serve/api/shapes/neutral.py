"""Parameters of OpenAI's without a meaning here: taken where they ask for nothing, refused where they ask for more."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any

from pydantic import GetCoreSchemaHandler, GetJsonSchemaHandler
from pydantic_core import CoreSchema, PydanticCustomError, core_schema

from serve.api.shapes.json_types import Strict


@dataclass(frozen=True, eq=False)  # by identity: what annotates alike is made one, and 0 equals False
class Only:
    """Annotates a field that takes null and `values`, and nothing else."""

    values: tuple[Any, ...] = ()

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        """How the field is checked."""
        return core_schema.no_info_plain_validator_function(self._checked)

    def __get_pydantic_json_schema__(self, schema: CoreSchema, handler: GetJsonSchemaHandler) -> dict[str, Any]:
        """How the field is described."""
        return {"enum": [None, *self.values]}

    def _checked(self, given: Any) -> Any:
        if given is None or any(_same(given, value) for value in self.values):
            return given
        taken = " or ".join(str(value) for value in self.values)
        raise PydanticCustomError("unsupported", "{taken}; anything else is not supported", {"taken": taken or "null"})


def _same(given: Any, value: Any) -> bool:
    # In Python, but not in JSON, false equals 0.
    return bool(given == value) and isinstance(given, bool) == isinstance(value, bool)


class NeutralMessageFields(Strict):
    """What OpenAI's messages may have beside a role and a content."""

    name: Annotated[Any, Only()] = None
    refusal: Annotated[Any, Only()] = None
    audio: Annotated[Any, Only()] = None
    annotations: Annotated[Any, Only(([],))] = None
    function_call: Annotated[Any, Only()] = None
    tool_calls: Annotated[Any, Only(([],))] = None


class NeutralChatFields(Strict):
    """What OpenAI's chat completions may have beside what is supported."""

    n: Annotated[Any, Only((1,))] = None
    presence_penalty: Annotated[Any, Only((0,))] = None
    frequency_penalty: Annotated[Any, Only((0,))] = None
    logit_bias: Annotated[Any, Only(({},))] = None
    logprobs: Annotated[Any, Only((False,))] = None
    top_logprobs: Annotated[Any, Only((0,))] = None
    tools: Annotated[Any, Only(([],))] = None
    tool_choice: Annotated[Any, Only(("none", "auto"))] = None
    parallel_tool_calls: Annotated[Any, Only((True, False))] = None
    functions: Annotated[Any, Only(([],))] = None
    function_call: Annotated[Any, Only(("none", "auto"))] = None
    response_format: Annotated[Any, Only(({"type": "text"},))] = None
    modalities: Annotated[Any, Only((["text"],))] = None
    audio: Annotated[Any, Only()] = None
    prediction: Annotated[Any, Only()] = None
    moderation: Annotated[Any, Only()] = None
    web_search_options: Annotated[Any, Only()] = None
    reasoning_effort: Annotated[Any, Only(("none",))] = None
    verbosity: Annotated[Any, Only(("medium",))] = None
    service_tier: Annotated[Any, Only(("auto", "default"))] = None
    store: Annotated[Any, Only((False,))] = None
    metadata: Annotated[Any, Only(({},))] = None
    prompt_cache_options: Annotated[Any, Only(({},))] = None
    prompt_cache_retention: Annotated[Any, Only()] = None
    # Labels for the provider's own use: nothing is asked for by them.
    user: str | None = None
    safety_identifier: str | None = None
    prompt_cache_key: str | None = None
