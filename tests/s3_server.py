"""A bucket on a server that speaks S3's protocol (moto's), in this process; nothing is authenticated."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

BUCKET = "bucket"


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


@contextmanager
def s3_server() -> Iterator[Bucket]:
    """An empty bucket, `s3://bucket`; gone in the end."""
    import boto3
    from moto.core.model_instances import reset_model_data
    from moto.server import ThreadedMotoServer

    reset_model_data()
    server = ThreadedMotoServer("127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    environment = {
        "AWS_ENDPOINT_URL": f"http://{host}:{port}",
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
        server.stop()
