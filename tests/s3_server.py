"""A bucket on a server that speaks S3's protocol (moto's), in this process; nothing is authenticated."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

BUCKET = "bucket"
Application = Callable[..., Iterable[bytes]]


@dataclass(frozen=True)
class Bucket:
    """The bucket as its owner sees it."""

    environment: dict[str, str]
    """What another process needs to reach it."""
    client: Any

    def put(self, key: str, data: bytes) -> None:
        self.client.put_object(Bucket=BUCKET, Key=key, Body=data)

    def found(self, prefix: str = "") -> set[str]:
        """The keys that begin so."""
        pages = self.client.get_paginator("list_objects_v2").paginate(Bucket=BUCKET, Prefix=prefix)
        return {found["Key"] for page in pages for found in page.get("Contents", ())}


class OneAtATime:
    """Moto looks whether a key is there, and then writes it: one request at a time makes this one step, as S3 does."""

    def __init__(self, application: Application) -> None:
        self._application = application
        self._turn = threading.Lock()

    def __call__(self, environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
        with self._turn:
            return self._application(environ, start_response)


@contextmanager
def s3_server(around: Callable[[Application], Application] = lambda inner: inner) -> Iterator[Bucket]:
    """An empty bucket, `s3://bucket`; gone in the end. `around` is put before what answers."""
    import boto3
    from moto.core.model_instances import reset_model_data
    from moto.moto_server.werkzeug_app import DomainDispatcherApplication, MotoRequestHandler, create_backend_app
    from werkzeug.serving import make_server

    reset_model_data()
    application = around(OneAtATime(DomainDispatcherApplication(create_backend_app)))
    server = make_server("127.0.0.1", 0, application, threaded=True, request_handler=MotoRequestHandler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    environment = {
        "AWS_ENDPOINT_URL": f"http://127.0.0.1:{server.server_port}",
        "AWS_ALLOW_HTTP": "true",
        "AWS_ACCESS_KEY_ID": "tester",
        "AWS_SECRET_ACCESS_KEY": "tester",
        "AWS_REGION": "us-east-1",
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_EC2_METADATA_DISABLED": "true",
    }
    client = boto3.client(
        "s3",
        endpoint_url=environment["AWS_ENDPOINT_URL"],
        region_name=environment["AWS_REGION"],
        aws_access_key_id=environment["AWS_ACCESS_KEY_ID"],
        aws_secret_access_key=environment["AWS_SECRET_ACCESS_KEY"],
    )
    try:
        client.create_bucket(Bucket=BUCKET)
        bucket = Bucket(environment, client)
        for left in bucket.found():  # by another server of this process
            client.delete_object(Bucket=BUCKET, Key=left)
        yield bucket
    finally:
        client.close()
        server.shutdown()
        thread.join()
        server.server_close()
