"""A chat completion: OpenAI's, and beside it what it was made from."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, Field

from serve.api.shapes.shared import CoverageReply, Timings


class SourceReply(BaseModel):
    """A passage that the answer could be made from; `[number]` in the answer refers to it."""

    number: int
    doc_id: str
    chunk_id: str
    title: str
    heading: str
    page: int | None
    source: str
    start: int = Field(description="code points into the text of the document")
    end: int
    text: str
    score: float
    scores: dict[str, float] = Field(description="a score a stage")


class CitationReply(BaseModel):
    """Where a part of the answer stands: `quote` is exactly the document's text from `start` to `end`."""

    number: int
    doc_id: str
    chunk_id: str
    source: str
    title: str
    heading: str
    page: int | None
    start: int = Field(description="code points into the text of the document")
    end: int
    quote: str


class SnapshotReply(BaseModel):
    """The version of an index from which everything in the answer comes."""

    index: str
    number: int


class Usage(BaseModel):
    """Tokens of the language model; all 0 where none wrote the answer."""

    prompt_tokens: int
    completion_tokens: int
    total_tokens: int


class AnswerMessage(BaseModel):
    """The answer."""

    role: Literal["assistant"] = "assistant"
    content: str
    refusal: None = None


class Choice(BaseModel):
    """The one choice."""

    index: int = 0
    message: AnswerMessage
    logprobs: None = None
    finish_reason: Literal["stop", "length"]


class ChatCompletion(BaseModel):
    """A whole answer."""

    id: str
    object: Literal["chat.completion"] = "chat.completion"
    created: int
    model: str
    choices: list[Choice]
    usage: Usage
    citations: list[CitationReply]
    sources: list[SourceReply]
    coverage: CoverageReply | None = Field(description="null without retrieval")
    grounded: bool = Field(description="false when the answer abstains, or is not traced to its citations")
    snapshot: SnapshotReply | None = Field(description="null without retrieval")
    timings: Timings = Field(
        description="milliseconds a stage; first_token, of a stream, is counted from the start of the request"
    )
    degraded: list[str] = Field(description="what was left out: partition, rerank")


class Delta(BaseModel):
    """What is added to the answer."""

    role: Literal["assistant"] | None = None
    content: str | None = None


class ChunkChoice(BaseModel):
    """The one choice."""

    index: int
    delta: Delta
    logprobs: None
    finish_reason: Literal["stop", "length"] | None


class ChatChunk(BaseModel):
    """One event of a streamed answer; fields beside OpenAI's are in those chunks only that are said with them."""

    id: str
    object: Literal["chat.completion.chunk"]
    created: int
    model: str
    choices: list[ChunkChoice]
    usage: Usage | None = Field(None, description="in the last chunk, when it was asked for")
    sources: list[SourceReply] | None = Field(None, description="in the first chunk")
    citation: CitationReply | None = Field(None, description="in a chunk of its own, when its marker was streamed")
    citations: list[CitationReply] | None = Field(None, description="in the chunk with finish_reason, as all below")
    coverage: CoverageReply | None = None
    grounded: bool | None = None
    snapshot: SnapshotReply | None = None
    timings: Timings | None = None
    degraded: list[str] | None = None
