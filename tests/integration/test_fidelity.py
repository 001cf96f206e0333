"""A request that is sent directly and through the queue receives the same status, headers and bytes."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Callable, Iterable
from dataclasses import dataclass
from functools import partial
from typing import Any

import httpx
import pytest

from tests.support.queue_client import Queue, serving

from .apps import SERVICES, load

pytestmark = pytest.mark.filterwarnings(
    "ignore:StreamingHttpResponse must consume synchronous iterators:Warning",  # Django's own FileResponse under ASGI
)


@dataclass(frozen=True)
class Service:
    """An application behind a queue. `root` is the path of its endpoints."""

    queue: Queue
    root: str = ""


@pytest.fixture(scope="module", params=SERVICES)
async def service(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Service]:
    app, root = load(request.param)
    database = tmp_path_factory.mktemp(request.param) / "queue.sqlite3"
    # One attempt: a 503 is compared too, and would otherwise be tried again with growing pauses.
    async with serving(app, database, max_attempts=1, max_request_body="32 MiB") as queue:
        yield Service(queue, root)


@dataclass(frozen=True)
class Case:
    """One request. `expect` is the required status, so that the comparison cannot compare two errors."""

    name: str
    method: str
    target: str
    headers: tuple[tuple[str, str | bytes], ...] = ()
    content: bytes | Callable[[], Iterable[bytes]] | None = None
    expect: int | None = None

    def request(self, root: str, headers: Iterable[tuple[str, str | bytes]]) -> httpx.Request:
        """Built by hand: a client would add cookies, `connection` and other headers."""
        content: Any = self.content
        if callable(content):
            content = _in_pieces(content())
        url = f"http://service.test{root}{self.target}"
        return httpx.Request(self.method, url, headers=[*map(_raw, (*self.headers, *headers))], content=content)


def _raw(header: tuple[str, str | bytes]) -> tuple[bytes, bytes]:
    name, value = header
    return name.encode(), value if isinstance(value, bytes) else value.encode()


async def _in_pieces(pieces: Iterable[bytes]) -> AsyncIterator[bytes]:
    for piece in pieces:
        yield piece


def _pieces(count: int, size: int) -> Iterable[bytes]:
    return (bytes([number % 256]) * size for number in range(count))


JSON = ("content-type", "application/json")
FORM = ("content-type", "application/x-www-form-urlencoded")
BINARY = ("content-type", "application/octet-stream")
MULTIPART = ("content-type", "multipart/form-data; boundary=frontier")
UPLOAD = (
    b'--frontier\r\nContent-Disposition: form-data; name="first"; filename="b\xc3\xaenary.bin"\r\n'
    b"Content-Type: application/octet-stream\r\n\r\n" + bytes(range(256)) * 8 + b"\r\n"
    b'--frontier\r\nContent-Disposition: form-data; name="second"; filename="empty.txt"\r\nContent-Type: text/plain\r\n\r\n\r\n'
    b'--frontier\r\nContent-Disposition: form-data; name="note"\r\n\r\ngr\xc3\xbc\xc3\x9fe\r\n--frontier--\r\n'
)

CASES = [
    Case("get", "GET", "/echo", expect=200),
    Case("post", "POST", "/echo", (JSON,), b'{"a": 1, "b": [null, "\xc3\xa9"]}', expect=200),
    Case("put", "PUT", "/echo", (JSON,), b"[]", expect=200),
    Case("patch", "PATCH", "/echo", (JSON,), b"{}", expect=200),
    Case("delete", "DELETE", "/echo", expect=200),
    Case("delete-with-body", "DELETE", "/echo", (JSON,), b'{"why": "because"}', expect=200),
    Case("get-with-body", "GET", "/echo", (("content-type", "text/plain"),), b"unusual", expect=200),
    Case("post-nothing", "POST", "/echo", (JSON, ("content-length", "0")), expect=200),
    Case("query-repeated", "GET", "/echo?a=1&b=2&a=3&empty=&flag&a=1", expect=200),
    Case("query-escapes", "GET", "/echo?q=%C3%BC&plus=a+b&pct=%2F%3F%26%3D&lower=%c3%bc&semi=a;b&at=@:,", expect=200),
    Case("query-not-utf8", "GET", "/echo?bytes=%FF%FE&next=1", expect=200),
    Case("query-looks-like-ours", "GET", "/echo?falcon=1&x_fal_webhook=2&FAL=3", expect=200),
    Case("path-unicode", "GET", "/echo/gr%C3%BC%C3%9Fe/%E4%B8%96%E7%95%8C", expect=200),
    Case("path-encoded-slash", "GET", "/echo/a%2Fb/c%2fd", expect=200),
    Case("path-escapes", "GET", "/echo/a%20b/100%25/%3Fq%23f/semi;colon", expect=200),
    Case("path-double-encoded", "GET", "/echo/a%252Fb", expect=200),
    Case("path-punctuation", "GET", "/echo/~tilde/a:b@c!$&'()*+,=", expect=200),
    Case("path-unknown", "GET", "/no/such/path", expect=404),
    Case("path-trailing-slash", "GET", "/text/"),
    Case("method-not-allowed", "DELETE", "/json", expect=405),
    Case("headers-repeated", "GET", "/echo", (("x-many", "1"), ("x-few", "0"), ("x-many", "2"), ("x-many", "")), expect=200),
    Case("headers-latin1", "GET", "/echo", (("x-name", "Ren\xe9".encode("latin-1")),), expect=200),
    Case("headers-utf8", "GET", "/echo", (("x-name", "Ren\xe9".encode()),), expect=200),
    Case("headers-forwarded", "GET", "/echo", (("x-forwarded-for", "203.0.113.9"), ("x-forwarded-proto", "https")), expect=200),
    Case("authorization", "GET", "/echo", (("authorization", "Key id:secret"), ("referer", "http://a.test/")), expect=200),
    Case("cookies", "GET", "/cookies", (("cookie", 'one=1; two="quoted words"'),), expect=200),
    Case("cookies-twice", "GET", "/echo", (("cookie", "one=1"), ("cookie", "two=2")), expect=200),
    Case("form", "POST", "/form", (FORM,), b"a=1&b=%C3%BC&a=two+words&empty=", expect=200),
    Case("form-empty", "POST", "/form", (FORM,), b"", expect=200),
    Case("multipart", "POST", "/upload", (MULTIPART,), UPLOAD, expect=200),
    Case("multipart-broken", "POST", "/upload", (MULTIPART,), UPLOAD[:100]),
    Case("json-good", "POST", "/json", (JSON,), b'{"number": 12}', expect=200),
    Case("json-invalid", "POST", "/json", (JSON,), b'{"number": "twelve"}'),
    Case("json-malformed", "POST", "/json", (JSON,), b'{"number": '),
    Case("binary", "POST", "/mirror", (BINARY,), bytes(range(256)) * 16, expect=200),
    Case("binary-put", "PUT", "/mirror", (BINARY,), b"\x00\xff\r\n\r\n0\r\n\r\n", expect=200),
    Case("content-encoding", "POST", "/mirror", (BINARY, ("content-encoding", "x-zip")), b"\x1f\x8b not really", expect=200),
    Case("charset", "POST", "/mirror", (("content-type", "text/plain; charset=iso-8859-1"),), b"caf\xe9", expect=200),
    Case("in-pieces", "POST", "/mirror", (BINARY, ("content-length", "7000")), partial(_pieces, 7, 1000), expect=200),
    Case("part-boundary", "POST", "/mirror", (BINARY,), b"p" * 262_144, expect=200),
    Case("part-boundary-and-one", "POST", "/mirror", (BINARY,), b"p" * 262_145, expect=200),
    Case("20-megabytes", "POST", "/mirror", (BINARY,), bytes(range(250)) * 80_000, expect=200),
    Case("many-pieces", "POST", "/echo", (BINARY, ("content-length", "2097152")), partial(_pieces, 32, 65_536), expect=200),
    Case("large-response", "GET", "/large", expect=200),
    Case("redirect", "GET", "/redirect"),
    Case("redirect-after-post", "POST", "/redirect", (("content-length", "0"),)),
    Case("file", "GET", "/file", expect=200),
    Case("range", "GET", "/file", (("range", "bytes=10-19"),)),
    Case("range-suffix", "GET", "/file", (("range", "bytes=-5"),)),
    Case("range-unsatisfiable", "GET", "/file", (("range", "bytes=99999-"),)),
    Case("range-if-range", "GET", "/file", (("range", "bytes=0-3"), ("if-range", '"another"'))),
    Case("not-modified-since", "GET", "/file", (("if-modified-since", "Fri, 01 Jan 2100 00:00:00 GMT"),)),
    Case("conditional", "GET", "/conditional", expect=200),
    Case("not-modified", "GET", "/conditional", (("if-none-match", '"v1"'),), expect=304),
    Case("modified", "GET", "/conditional", (("if-none-match", '"v0"'),), expect=200),
    Case("stream", "GET", "/stream", expect=200),
    Case("events", "GET", "/events", expect=200),
    Case("text", "GET", "/text", expect=200),
    Case("response-headers", "GET", "/headers", expect=200),
    Case("empty", "GET", "/empty", expect=200),
    Case("error-with-header", "GET", "/refused"),
    Case("unhandled-exception", "GET", "/boom", expect=500),
    Case("no-content-after-delete", "DELETE", "/status/204", expect=204),
    *(
        Case(f"status-{code}", "GET", f"/status/{code}", expect=code)
        for code in (201, 202, 204, 205, 206, 301, 304, 400, 401, 403, 404, 409, 413, 418, 422, 429, 500, 501, 502, 503, 504)
    ),
]  # fmt: skip


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
async def test_the_queue_changes_nothing(service: Service, case: Case) -> None:
    client, queue = service.queue.client, service.queue
    # The guarantee is relative to a direct call with the replay's headers: the stored bytes have no content coding.
    direct = await _seen(client, case.request(service.root, [("accept-encoding", "identity")]))
    submitted = await client.send(case.request(f"/fal/queue/submit{service.root}", [("accept-encoding", "gzip, br")]))
    assert submitted.status_code == 200, submitted.text
    request_id = submitted.json()["request_id"]
    await queue.reaches(request_id, "COMPLETED")
    read = httpx.Request("GET", f"http://service.test/fal/queue/requests/{request_id}/response")
    queued = await _seen(client, read, ours={b"x-fal-request-id": request_id.encode()})
    assert queued == direct
    assert case.expect in (None, direct["status"]), direct


_HOP_BY_HOP = {b"connection", b"keep-alive", b"proxy-connection", b"te", b"trailer", b"transfer-encoding", b"upgrade"}
_ASIDE = _HOP_BY_HOP | {b"date", b"server"}
_NOW = re.compile(rb"expires=[^;]+(?=; Max-Age=0)")
"""Starlette sets the expiry of a deleted cookie to the current second."""


async def _seen(client: httpx.AsyncClient, request: httpx.Request, ours: dict[bytes, bytes] | None = None) -> dict[str, Any]:
    """The status, headers and undecoded body. `ours` are headers that must have been added, and are removed here."""
    response = await client.send(request, stream=True)
    body = b"".join([chunk async for chunk in response.aiter_raw()])
    raw = [(name.lower(), _NOW.sub(b"expires=now", value)) for name, value in response.headers.raw]
    headers = [(name, value) for name, value in raw if name not in _ASIDE]
    for pair in (ours or {}).items():
        headers.remove(pair)
    return {"status": response.status_code, "headers": headers, "body": body}


async def test_a_chunked_body_arrives_whole(service: Service) -> None:
    """No comparison: in a direct call, Flask sees no body without a length. The queue knows the length and sends it."""
    response = await service.queue.run("POST", f"{service.root}/mirror", content=_in_pieces(_pieces(7, 1000)), headers=[BINARY])
    assert response.content == b"".join(_pieces(7, 1000))


async def test_range_requests_receive_206(service: Service, request: pytest.FixtureRequest) -> None:
    """Ensures that the comparison above compares partial responses, for frameworks that support ranges."""
    partial_answer = await service.queue.run("GET", f"{service.root}/file", headers={"range": "bytes=10-19"})
    knows = request.node.callspec.params["service"] in ("fastapi", "starlette", "flask", "quart")
    assert partial_answer.status_code == (206 if knows else 200)


async def test_compression_is_left_to_the_connection(service: Service) -> None:
    """The result is stored uncompressed although the submitter accepts gzip; the response to a reader may be compressed."""
    response = await service.queue.run("GET", f"{service.root}/text", headers={"accept-encoding": "gzip"})
    assert "content-encoding" not in response.headers
    assert response.text == "Grüße, 世界 \N{SNOWMAN}"
