"""A server that speaks as much of the S3 protocol as a store needs, in memory: for tests, without any check of keys.

Covered: PUT (with If-None-Match: *), GET, HEAD and DeleteObjects, listing by prefix in pages. Not covered: uploads in
parts, ranges, signatures, more than one bucket.
"""

from __future__ import annotations

import hashlib
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from email.utils import formatdate
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit
from xml.etree import ElementTree
from xml.sax.saxutils import escape

PAGE = 50  # keys of one answer to a listing: small, so that listings have several


class _Objects(ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.held: dict[str, tuple[bytes, float]] = {}
        self.lock = threading.Lock()


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: _Objects

    def do_PUT(self) -> None:
        data = self.rfile.read(int(self.headers["Content-Length"]))
        with self.server.lock:
            if self.headers.get("If-None-Match") == "*" and self._key in self.server.held:
                return self._answer(412, b"<Error><Code>PreconditionFailed</Code></Error>")
            self.server.held[self._key] = (data, time.time())
        return self._answer(200, b"", ETag=_tag(data))

    def do_GET(self) -> None:
        asked = parse_qs(urlsplit(self.path).query, keep_blank_values=True)
        if "list-type" in asked:
            return self._answer(200, self._listing(asked))
        return self._object()

    def do_HEAD(self) -> None:
        self._object()

    def do_POST(self) -> None:
        """Delete the keys that the body lists."""
        asked = ElementTree.fromstring(self.rfile.read(int(self.headers["Content-Length"])))
        keys = [item.text or "" for item in asked.iter() if item.tag.endswith("Key")]
        with self.server.lock:
            for key in keys:
                self.server.held.pop(key, None)
        gone = "".join(f"<Deleted><Key>{escape(key)}</Key></Deleted>" for key in keys)
        self._answer(200, f"<DeleteResult>{gone}</DeleteResult>".encode())

    def log_message(self, *given: Any) -> None:
        pass

    @property
    def _key(self) -> str:
        """The object's key, without the bucket."""
        return unquote(urlsplit(self.path).path).split("/", 2)[2]

    def _object(self) -> None:
        found = self.server.held.get(self._key)
        if found is None:
            return self._answer(404, b"<Error><Code>NoSuchKey</Code></Error>")
        data, written = found
        return self._answer(200, data, **{"ETag": _tag(data), "Last-Modified": formatdate(written, usegmt=True)})

    def _listing(self, asked: dict[str, list[str]]) -> bytes:
        prefix, after = (asked.get(name, [""])[0] for name in ("prefix", "continuation-token"))
        with self.server.lock:
            keys = sorted(key for key in self.server.held if key.startswith(prefix) and key > after)
            rows = [(key, *self.server.held[key]) for key in keys[:PAGE]]
        more = len(keys) > PAGE
        contents = "".join(
            f"<Contents><Key>{escape(key)}</Key><Size>{len(data)}</Size><ETag>{_tag(data)}</ETag><LastModified>"
            f"{time.strftime('%Y-%m-%dT%H:%M:%S.000Z', time.gmtime(written))}</LastModified></Contents>"
            for key, data, written in rows
        )
        token = f"<NextContinuationToken>{escape(rows[-1][0])}</NextContinuationToken>" if more else ""
        body = (
            f"<ListBucketResult><Prefix>{escape(prefix)}</Prefix><IsTruncated>{str(more).lower()}</IsTruncated>{token}"
        )
        return f"{body}<KeyCount>{len(rows)}</KeyCount>{contents}</ListBucketResult>".encode()

    def _answer(self, status: int, body: bytes, **headers: str) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)


def _tag(data: bytes) -> str:
    return f'"{hashlib.md5(data).hexdigest()}"'


@contextmanager
def s3_server() -> Iterator[dict[str, str]]:
    """Run a server; yields the environment in which clients find it."""
    server = _Objects()
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield {
            "AWS_ENDPOINT": f"http://127.0.0.1:{server.server_port}",
            "AWS_ALLOW_HTTP": "true",
            "AWS_ACCESS_KEY_ID": "test",
            "AWS_SECRET_ACCESS_KEY": "test",
            "AWS_REGION": "us-east-1",
        }
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
