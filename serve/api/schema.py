"""The schema at /openapi.json, put right where FastAPI describes what this API does otherwise."""

from __future__ import annotations

from typing import Any

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi

from serve.api.shapes.chat_reply import ChatChunk

_REFERENCE = "#/components/schemas/{model}"


def describe(app: FastAPI) -> None:
    """Have `app` describe itself as it is: wrong fields are a 400, and answers come in chunks as well."""

    def openapi() -> dict[str, Any]:
        if app.openapi_schema is None:
            app.openapi_schema = _schema(app)
        return app.openapi_schema

    app.openapi = openapi  # type: ignore[method-assign]  # the way FastAPI documents


def _schema(app: FastAPI) -> dict[str, Any]:
    schema = get_openapi(title=app.title, version=app.version, description=app.description, routes=app.routes)
    for operations in schema["paths"].values():
        for operation in operations.values():
            operation["responses"].pop("422", None)
    schemas = schema["components"]["schemas"]
    for unused in ("HTTPValidationError", "ValidationError"):
        schemas.pop(unused, None)
    chunk = ChatChunk.model_json_schema(mode="serialization", ref_template=_REFERENCE)
    for name, part in chunk.pop("$defs").items():
        schemas.setdefault(name, part)
    schemas["ChatChunk"] = chunk
    return schema
