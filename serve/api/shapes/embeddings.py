"""Embeddings, in OpenAI's shape."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, Field

from serve.api.shapes.json_types import LIST, TEXT, NotBlank, Strict, one_of

Input = Annotated[
    Annotated[NotBlank, TEXT] | Annotated[list[NotBlank], Field(min_length=1), LIST],
    one_of("a text or a list of texts"),
]


class EmbeddingsRequest(Strict):
    """Texts to embed."""

    input: Input = Field(description="a text or a list of texts; tokens are not taken")
    model: str | None = Field(None, max_length=255, description="name of the embedder, see /v1/models")
    encoding_format: Literal["float", "base64"] | None = Field(
        None, description="numbers, or the base64 of little-endian 32-bit floats"
    )
    dimensions: int | None = Field(None, ge=1, description="the model's own, or null")
    input_type: Literal["query", "document"] | None = Field(None, description="what the texts are; null: documents")
    user: str | None = None

    @property
    def texts(self) -> tuple[str, ...]:
        """The texts, whichever way they were written."""
        return (self.input,) if isinstance(self.input, str) else tuple(self.input)


class EmbeddingReply(BaseModel):
    """The embedding of one text."""

    object: Literal["embedding"] = "embedding"
    index: int
    embedding: list[float] | str


class EmbeddingsUsage(BaseModel):
    """How much went in."""

    prompt_tokens: int
    total_tokens: int


class EmbeddingsReply(BaseModel):
    """Embeddings in the order of their texts."""

    object: Literal["list"] = "list"
    data: list[EmbeddingReply]
    model: str
    usage: EmbeddingsUsage
