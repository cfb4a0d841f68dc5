"""Where traces go, and what a detached context keeps."""

from __future__ import annotations

import contextvars

import pytest

from serve.tracing import ENDPOINT, EXPORTER, detached, otlp, tracing_config


def test_nothing_is_traced_unless_asked_for() -> None:
    assert tracing_config(0.0) is None


def test_spans_go_to_a_collector_where_one_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(ENDPOINT, raising=False)
    assert "exporter_import_path" not in (tracing_config(0.5) or {})
    monkeypatch.setenv(ENDPOINT, "http://127.0.0.1:4318")
    assert (tracing_config(0.5) or {})["exporter_import_path"] == EXPORTER


def test_ray_serve_takes_the_exporter(monkeypatch: pytest.MonkeyPatch) -> None:
    from ray.serve._private.tracing_utils import _load_span_processors

    monkeypatch.setenv(ENDPOINT, "http://127.0.0.1:4318")
    (processor,) = _load_span_processors(EXPORTER, "file")
    processor.shutdown()
    for made in otlp():
        made.shutdown()


def test_a_detached_context_has_the_trace_and_nothing_else() -> None:
    from opentelemetry import context

    request: contextvars.ContextVar[str] = contextvars.ContextVar("request", default="none")
    request.set("one")
    token = context.attach(context.set_value("span", "a span"))
    try:
        fresh = detached()
        assert fresh.run(context.get_value, "span") == "a span"
        assert fresh.run(request.get) == "none"
    finally:
        context.detach(token)
