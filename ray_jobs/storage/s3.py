"""What S3 offers beyond what the client of all object stores speaks: listing with entity tags, aborting uploads.

Guaranteed: requests are bounded in time and tried again a bounded number of times. Credentials are looked for where
AWS's own tools look; where there are none, requests are not signed, which is enough for a public bucket. Not
guaranteed: that what only the other client understands in the environment is understood.
"""

from __future__ import annotations

import os
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from ray_jobs.storage.settings import StorageSettings

if TYPE_CHECKING:
    from obstore.store import S3Store

_ATTEMPTS = 6
_ENDPOINTS = ("AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL", "AWS_ENDPOINT")


def client(settings: StorageSettings, endpoint: str | None = None, region: str | None = None) -> Any:
    """A client of boto3; what is not given is taken from the environment."""
    import boto3
    from botocore import UNSIGNED
    from botocore.config import Config

    endpoint = endpoint or next((os.environ[name] for name in _ENDPOINTS if os.environ.get(name)), None)
    config = Config(
        signature_version=UNSIGNED if boto3.Session().get_credentials() is None else None,
        connect_timeout=settings.connect_timeout_s,
        read_timeout=settings.timeout_s,
        retries={"mode": "standard", "total_max_attempts": _ATTEMPTS},
        # A service at an address of its own rarely has a host name for each bucket.
        s3={"addressing_style": "path"} if endpoint else None,
    )
    region = region or os.environ.get("AWS_REGION")
    return boto3.client("s3", endpoint_url=endpoint, region_name=region, config=config)


def abort_uploads(store: S3Store, key: str, settings: StorageSettings) -> None:
    """Let the service drop the parts of uploads of `key` that were never completed; says nothing where it cannot."""
    from botocore.exceptions import BotoCoreError, ClientError

    bucket = store.config.get("bucket")
    whole = "/".join([*filter(None, (store.prefix or "").split("/")), key])
    with suppress(BotoCoreError, ClientError):
        service = client(settings)
        pages = service.get_paginator("list_multipart_uploads").paginate(Bucket=bucket, Prefix=whole)
        for upload in [found for page in pages for found in page.get("Uploads", ())]:
            if upload["Key"] == whole:
                service.abort_multipart_upload(Bucket=bucket, Key=whole, UploadId=upload["UploadId"])
