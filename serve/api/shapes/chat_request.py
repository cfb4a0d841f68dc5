"""A request for a chat completion: OpenAI's, and what is to be retrieved for it."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from serve.api.shapes.json_types import FALSE, LIST, OBJECT, TEXT, NotBlank, Strict, one_of
from serve.api.shapes.neutral import NeutralChatFields, NeutralMessageFields
from serve.api.shapes.shared import RetrievalFields


class TextPart(Strict):
    """A piece of a message."""

    type: Literal["text"]
    text: str


class ChatMessage(NeutralMessageFields):
    """One turn of a conversation."""

    role: Literal["system", "developer", "user", "assistant"]
    content: Annotated[
        Annotated[NotBlank, TEXT] | Annotated[list[TextPart], Field(min_length=1), LIST],
        one_of("a text or a list of text parts"),
    ]

    @property
    def text(self) -> str:
        """The content, whichever way it was written."""
        return self.content if isinstance(self.content, str) else "\n".join(part.text for part in self.content)


class StreamOptions(Strict):
    """How an answer is streamed."""

    include_usage: bool | None = None
    include_obfuscation: bool | None = Field(None, description="taken, and without effect")


Stop = Annotated[
    Annotated[str, TEXT] | Annotated[list[str], Field(max_length=4), LIST], one_of("a text or a list of texts")
]
Retrieval = Annotated[
    Annotated[RetrievalFields, OBJECT] | Annotated[Literal[False], FALSE], one_of("an object, or false")
]


class ChatRequest(NeutralChatFields):
    """A conversation whose last turn is to be answered."""

    model: str = Field(max_length=255, description="NAME or NAME:ADAPTER, see /v1/models")
    messages: list[ChatMessage] = Field(min_length=1, description="the last one is the user's")
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    temperature: float | None = Field(None, ge=0, le=2)
    top_p: float | None = Field(None, gt=0, le=1)
    max_tokens: int | None = Field(None, ge=1)
    max_completion_tokens: int | None = Field(None, ge=1)
    stop: Stop | None = None
    seed: int | None = Field(None, ge=-(2**63), lt=2**63)
    index: str | None = Field(None, max_length=255, description="name of the index, see /v1/indexes")
    retrieval: Retrieval | None = Field(None, description="what to answer from; false: from no document at all")
