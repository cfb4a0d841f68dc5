"""A small S3 for tests: one process, in memory, the calls that obstore and pyarrow make; nothing is authenticated."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, unquote, urlsplit
from xml.sax.saxutils import escape

MODIFIED = "2026-01-01T00:00:00.000Z"


@contextmanager
def s3_server() -> Iterator[tuple[dict[str, str], dict[str, bytes]]]:
    """The environment that reaches the server, and its objects by `bucket/key`."""
    objects: dict[str, bytes] = {}
    server = ThreadingHTTPServer(("127.0.0.1", 0), _handler(objects))
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    environment = {
        "AWS_ENDPOINT_URL": f"http://127.0.0.1:{server.server_address[1]}",
        "AWS_ALLOW_HTTP": "true",
        "AWS_ACCESS_KEY_ID": "tester",
        "AWS_SECRET_ACCESS_KEY": "tester",
        "AWS_REGION": "us-east-1",
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_EC2_METADATA_DISABLED": "true",
    }
    try:
        yield environment, objects
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def _handler(objects: dict[str, bytes]) -> type[BaseHTTPRequestHandler]:
    lock = threading.Lock()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, format: str, *arguments: object) -> None:
            pass

        def do_PUT(self) -> None:
            data = self._body()
            with lock:
                if self.headers.get("If-None-Match") == "*" and self._key in objects:
                    self._answer(412, b"<Error><Code>PreconditionFailed</Code></Error>")
                    return
                objects[self._key] = data
            self._answer(200, etag=_etag(data))

        def do_GET(self) -> None:
            if "list-type" in self._query:
                self._list()
                return
            data = objects.get(self._key)
            if data is None:
                self._answer(404, b"<Error><Code>NoSuchKey</Code></Error>")
                return
            asked = self.headers.get("Range")
            if asked is None:
                self._answer(200, data, etag=_etag(data))
                return
            first, _, last = asked.removeprefix("bytes=").partition("-")
            end = min(int(last) + 1 if last else len(data), len(data))
            begin = int(first) if first else len(data) - int(last)
            part = data[begin:end] if first else data[begin:]
            span = f"bytes {begin}-{begin + len(part) - 1}/{len(data)}"
            self._answer(206, part, etag=_etag(data), **{"Content-Range": span})

        def do_HEAD(self) -> None:
            data = objects.get(self._key)
            if data is None:
                self._answer(404)
            else:
                self._answer(200, etag=_etag(data), length=len(data))

        def do_DELETE(self) -> None:
            with lock:
                objects.pop(self._key, None)
            self._answer(204)

        def do_POST(self) -> None:
            body = self._body().decode()
            keys = [part.split("</Key>")[0] for part in body.split("<Key>")[1:]]
            with lock:
                for key in keys:
                    objects.pop(f"{self._key.strip('/')}/{key}", None)
            deleted = "".join(f"<Deleted><Key>{escape(key)}</Key></Deleted>" for key in keys)
            self._answer(200, f"<DeleteResult>{deleted}</DeleteResult>".encode())

        def _list(self) -> None:
            bucket, prefix = self._key.strip("/"), self._query.get("prefix", [""])[0]
            delimiter = self._query.get("delimiter", [""])[0]
            contents, folders = [], dict[str, None]()
            for name, data in sorted(objects.items()):
                key = name.removeprefix(f"{bucket}/")
                if not name.startswith(f"{bucket}/") or not key.startswith(prefix):
                    continue
                rest = key.removeprefix(prefix)
                if delimiter and delimiter in rest:
                    folders[prefix + rest.split(delimiter)[0] + delimiter] = None
                    continue
                contents.append(
                    f"<Contents><Key>{escape(key)}</Key><LastModified>{MODIFIED}</LastModified>"
                    f'<ETag>"{_etag(data)}"</ETag><Size>{len(data)}</Size></Contents>'
                )
            common = "".join(f"<CommonPrefixes><Prefix>{escape(one)}</Prefix></CommonPrefixes>" for one in folders)
            count = len(contents) + len(folders)
            self._answer(
                200,
                f"<ListBucketResult><Name>{bucket}</Name><Prefix>{escape(prefix)}</Prefix><KeyCount>{count}</KeyCount>"
                f"<MaxKeys>1000</MaxKeys><IsTruncated>false</IsTruncated>{''.join(contents)}{common}"
                f"</ListBucketResult>".encode(),
            )

        @property
        def _key(self) -> str:
            return unquote(urlsplit(self.path).path).lstrip("/")

        @property
        def _query(self) -> dict[str, list[str]]:
            return parse_qs(urlsplit(self.path).query, keep_blank_values=True)

        def _body(self) -> bytes:
            if self.headers.get("Transfer-Encoding") != "chunked":
                return _payload(self.rfile.read(int(self.headers.get("Content-Length", 0))), self.headers)
            found = b""
            while size := int(self.rfile.readline().split(b";")[0], 16):
                found += self.rfile.read(size)
                self.rfile.readline()
            self.rfile.readline()
            return _payload(found, self.headers)

        def _answer(
            self, status: int, body: bytes = b"", etag: str = "", length: int | None = None, **headers: str
        ) -> None:
            self.send_response(status)
            self.send_header("Content-Length", str(len(body) if length is None else length))
            self.send_header("Last-Modified", "Thu, 01 Jan 2026 00:00:00 GMT")
            if etag:
                self.send_header("ETag", f'"{etag}"')
            for name, value in headers.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(body)

    return Handler


def _payload(data: bytes, headers: object) -> bytes:
    """The object in a body that may be signed in chunks (`size;chunk-signature=...`)."""
    if "aws-chunked" not in str(headers.get("Content-Encoding", "")):  # type: ignore[attr-defined]
        return data
    found, rest = b"", data
    while rest:
        head, _, rest = rest.partition(b"\r\n")
        size = int(head.split(b";")[0], 16)
        if size == 0:
            break
        found, rest = found + rest[:size], rest[size + 2 :]
    return found


def _etag(data: bytes) -> str:
    return hashlib.md5(data, usedforsecurity=False).hexdigest()
