"""A bucket on a server that speaks the XML API of Google Cloud Storage: S3's protocol, but for the names of headers.

So moto's S3 server answers, behind a translation of these headers. The JSON API, which pyarrow speaks, is another one.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

from s3_server import Application, s3_server

_META = "HTTP_X_GOOG_META_"
_SIGNED = "AWS4-HMAC-SHA256 Credential=tester/20260101/us-east-1/s3/aws4_request, SignedHeaders=host, Signature=0"


class _AsGoogle:
    """Requests of Google's in, S3's out, and answers the other way."""

    def __init__(self, application: Application) -> None:
        self._application = application
        self.created_if_absent = 0

    def __call__(self, environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
        if not environ.get("HTTP_AUTHORIZATION", "").startswith("AWS4"):
            environ["HTTP_AUTHORIZATION"] = _SIGNED
        if environ.pop("HTTP_X_GOOG_IF_GENERATION_MATCH", None) == "0":
            environ["HTTP_IF_NONE_MATCH"] = "*"
            self.created_if_absent += 1
        # Google's client writes every slash of a key as %2F.
        environ["RAW_URI"] = environ["REQUEST_URI"] = environ["RAW_URI"].replace("%2F", "/")
        for name in [name for name in environ if name.startswith(_META)]:
            environ[f"HTTP_X_AMZ_META_{name.removeprefix(_META)}"] = environ.pop(name)

        def start(status: str, headers: list[tuple[str, str]], *more: Any) -> Any:
            named = [(name.lower().replace("x-amz-meta-", "x-goog-meta-"), value) for name, value in headers]
            return start_response(status, [*named, ("x-goog-generation", "1")], *more)

        return self._application(environ, start)


@contextmanager
def gcs_server() -> Iterator[tuple[dict[str, str], _AsGoogle]]:
    """An empty bucket, `gs://bucket`: what a process needs to reach it, and the server."""
    servers: list[_AsGoogle] = []

    def around(inner: Application) -> Application:
        servers.append(_AsGoogle(inner))
        return servers[0]

    with s3_server(around) as bucket:
        account = {
            "gcs_base_url": bucket.environment["AWS_ENDPOINT_URL"],
            "disable_oauth": True,
            "client_email": "",
            "private_key": "",
            "private_key_id": "",
        }
        yield {"GOOGLE_SERVICE_ACCOUNT_KEY": json.dumps(account), "GOOGLE_ALLOW_HTTP": "true"}, servers[0]
