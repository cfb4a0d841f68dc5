"""A bucket on a server that speaks the XML API of Google Cloud Storage: S3's protocol, but for the names of headers.

So moto's S3 server answers, behind a translation of these headers. The JSON API, which pyarrow speaks, is another one.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

from s3_server import BUCKET, OneAtATime

_META = "HTTP_X_GOOG_META_"


class _AsGoogle:
    """Requests of Google's in, S3's out, and answers the other way."""

    def __init__(self, application: Callable[..., Iterable[bytes]]) -> None:
        self._application = application
        self.created_if_absent = 0

    def __call__(self, environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
        if environ.pop("HTTP_X_GOOG_IF_GENERATION_MATCH", None) == "0":
            environ["HTTP_IF_NONE_MATCH"] = "*"
            self.created_if_absent += 1
        for name in [name for name in environ if name.startswith(_META)]:
            environ[f"HTTP_X_AMZ_META_{name.removeprefix(_META)}"] = environ.pop(name)

        def start(status: str, headers: list[tuple[str, str]], *more: Any) -> Any:
            named = [(name.lower().replace("x-amz-meta-", "x-goog-meta-"), value) for name, value in headers]
            return start_response(status, [*named, ("x-goog-generation", "1")], *more)

        return self._application(environ, start)


@contextmanager
def gcs_server() -> Iterator[tuple[dict[str, str], _AsGoogle]]:
    """An empty bucket, `gs://bucket`: what a process needs to reach it, and the server."""
    from moto.core.model_instances import reset_model_data
    from moto.moto_server.werkzeug_app import DomainDispatcherApplication, MotoRequestHandler, create_backend_app
    from moto.s3.models import s3_backends
    from werkzeug.serving import make_server

    reset_model_data()
    s3_backends["123456789012"]["aws"].create_bucket(BUCKET, "us-east-1")
    application = _AsGoogle(OneAtATime(DomainDispatcherApplication(create_backend_app)))
    server = make_server("127.0.0.1", 0, application, threaded=True, request_handler=MotoRequestHandler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    account = {
        "gcs_base_url": f"http://127.0.0.1:{server.server_port}",
        "disable_oauth": True,
        "client_email": "",
        "private_key": "",
        "private_key_id": "",
    }
    try:
        yield {"GOOGLE_SERVICE_ACCOUNT_KEY": json.dumps(account), "GOOGLE_ALLOW_HTTP": "true"}, application
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
