"""The API against its own schema."""

from __future__ import annotations

from typing import Any

import schemathesis
from fake_backend import FakeBackend
from hypothesis import HealthCheck, Phase, settings
from live_api import OPEN, LiveApi
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from serve.api.app import make_app

pytest_plugins = ["api_fixtures"]

schema = schemathesis.openapi.from_dict(make_app(FakeBackend(), OPEN).openapi())


@schema.parametrize()
@settings(
    max_examples=40,
    deadline=None,
    phases=[Phase.explicit, Phase.generate],
    suppress_health_check=list(HealthCheck),
)
def test_what_the_schema_allows_or_not_is_answered_as_the_schema_says(api_server: LiveApi, case: Any) -> None:
    checks = [not_a_server_error, status_code_conformance, content_type_conformance, response_schema_conformance]
    case.call_and_validate(base_url=f"http://127.0.0.1:{api_server.port}", checks=checks)


def test_every_operation_has_a_summary_a_reply_and_its_errors() -> None:
    paths = make_app(FakeBackend(), OPEN).openapi()["paths"]
    for path, operations in paths.items():
        for operation in operations.values():
            assert operation["summary"]
            assert operation["responses"]["200"]["content"]["application/json"]["schema"]
            assert "422" not in operation["responses"]
            if path.startswith("/v1/"):
                assert operation["security"] == [{"HTTPBearer": []}]
                statuses = {"400", "401", "403", "404", "408", "413", "429", "500", "503"}
                assert statuses <= operation["responses"].keys()


def test_every_reference_in_the_schema_leads_somewhere() -> None:
    described = make_app(FakeBackend(), OPEN).openapi()
    known = {f"#/components/schemas/{name}" for name in described["components"]["schemas"]}
    assert references(described) <= known


def references(part: Any) -> set[str]:
    if isinstance(part, dict):
        own = {part["$ref"]} if isinstance(part.get("$ref"), str) else set()
        return own.union(*map(references, part.values()))
    return set().union(*map(references, part)) if isinstance(part, list) else set()
