"""Traces across deployments: Ray Serve's own spans, sent where OpenTelemetry's standard variables say.

`tandem serve --traces 0.1` records one request in ten. With OTEL_EXPORTER_OTLP_ENDPOINT set where the server is
deployed from and on the nodes, spans go there; without, Ray Serve writes them as JSON into its logs, `serve/spans`.

Guaranteed: a request and the calls it leads to are one trace. Not guaranteed: which of the queries of a batch has the
calls to the partitions in its trace; they are made once for all of them.
"""

from __future__ import annotations

import contextvars
import os
from typing import Any

ENDPOINT = "OTEL_EXPORTER_OTLP_ENDPOINT"
EXPORTER = "serve.tracing:otlp"


def tracing_config(share: float) -> dict[str, Any] | None:
    """Ray Serve's tracing configuration for a share of requests; None when nothing is traced."""
    if not share:
        return None
    exporter = {"exporter_import_path": EXPORTER} if os.environ.get(ENDPOINT) else {}
    return {"enabled": True, "sampling_ratio": share, **exporter}


def otlp() -> list[Any]:
    """What sends a process's spans to the collector; Ray Serve calls this once in each of its processes."""
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
    from opentelemetry.sdk.trace.export import BatchSpanProcessor

    return [BatchSpanProcessor(OTLPSpanExporter())]


def detached() -> contextvars.Context:
    """A context with the trace of the current request and nothing else of it.

    What runs in it is not cancelled when the request is: Ray Serve ends a request's calls by a variable of its context.
    """
    from opentelemetry import context

    fresh = contextvars.Context()
    fresh.run(context.attach, context.get_current())
    return fresh
