"""Which heads are ordinary. `test_http11` has the exchanges, h11 is the reference."""

from __future__ import annotations

import h11
import pytest
from hypothesis import given
from hypothesis import strategies as st

from queue_middleware.jobs.models import Headers
from queue_middleware.outbound.http_head import Request, parse_response_head

pytestmark = [  # the unusual course has no use for what is tested here
    pytest.mark.usefixtures("course"),
    pytest.mark.parametrize("course", ["plain"], indirect=True),
]

HOST = (b"host", b"example.com")
VALUES = st.binary(max_size=30).map(lambda value: value.strip())
NAMES = st.sampled_from([b"x-a", b"content-type", b"X-Upper", b"a b", b"", b"host", b"connection", b"expect", b"upgrade"])


def by_h11(request: Request) -> bytes | None:
    try:
        return h11.Connection(h11.CLIENT).send(request.for_h11())
    except h11.LocalProtocolError:
        return None


@given(st.lists(st.tuples(NAMES, VALUES), max_size=4), st.sampled_from([b"/", b"/a?b", b"/a b", b"/\xff", b""]))
def test_an_encoded_request_is_one_that_h11_sends(headers: list[tuple[bytes, bytes]], target: bytes) -> None:
    request = Request(b"POST", target, (HOST, (b"content-length", b"0"), *headers))
    head = request.encode(0)
    if head is not None:
        expected = by_h11(request)
        assert expected is not None
        assert head.lower() == expected.lower()


@pytest.mark.parametrize(
    "header",
    [
        (b"connection", b"close"),
        (b"transfer-encoding", b"chunked"),
        (b"upgrade", b"h2c"),
        (b"expect", b"100-continue"),
        (b"host", b"other.example"),
        (b"content-length", b"3"),
        (b"x-a", b"b\r\nx-forged: c"),
        (b"x-a", b"b\nc"),
        (b"x-a: b\r\nx-forged", b"c"),
    ],
)
def test_a_request_that_is_not_ordinary_is_not_encoded(header: tuple[bytes, bytes]) -> None:
    assert Request(b"GET", b"/", (HOST,)).encode(0) is not None
    assert Request(b"GET", b"/", (HOST, header)).encode(0) is None


def test_a_declared_length_is_that_of_the_body() -> None:
    request = Request(b"POST", b"/", (HOST, (b"content-length", b"3")))
    assert [request.encode(length) is not None for length in (0, 2, 3, 4)] == [False, False, True, False]
    assert Request(b"POST", b"/", (HOST,)).encode(3) is None


def test_methods_whose_responses_are_framed_differently_are_not_encoded() -> None:
    assert [Request(method, b"/", (HOST,)).encode(0) for method in (b"HEAD", b"CONNECT")] == [None, None]


@pytest.mark.parametrize(
    "head",
    [
        b"HTTP/1.1 200 OK\r\ncontent-length: 1",
        b"HTTP/1.1 200 OK\r\n\r\n",
        b"HTTP/1.0 200 OK\r\ncontent-length: 1\r\n\r\n",
        b"HTTP/1.1 103 Hints\r\ncontent-length: 1\r\n\r\n",
        b"HTTP/1.1 304 Same\r\ncontent-length: 1\r\n\r\n",
        b"HTTP/1.1 200 OK\r\ncontent-length: 1\r\ncontent-length: 1\r\n\r\n",
        b"HTTP/1.1 200 OK\r\ncontent-length: 1, 1\r\n\r\n",
        b"HTTP/1.1 200 OK\r\ncontent-length: +1\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\ncontent-length: 1\r\n\r\n",
        b"HTTP/1.1 200 OK\r\ncontent-length: 1\r\nConnection: close\r\n\r\n",
        b"HTTP/1.1 200 OK\r\ncontent-length: 1\r\n folded\r\n\r\n",
        b"HTTP/1.1 200 OK\r\ncontent-length : 1\r\n\r\n",
        b"HTTP/1.1 200 OK\ncontent-length: 1\n\n",
    ],
)
def test_a_response_that_is_not_ordinary_is_left_to_h11(head: bytes) -> None:
    assert parse_response_head(head) is None


ORDINARY_NAMES = st.sampled_from([b"x-a", b"content-type", b"x-fal-webhook-signature", b"a.b~c", b"z" * 70])
ORDINARY_VALUES = st.text('abz 09,;:="/\t~', max_size=30).map(lambda value: value.strip().encode())
ORDINARY_HEADERS = st.lists(st.tuples(ORDINARY_NAMES, ORDINARY_VALUES), max_size=6)


@given(st.sampled_from([b"GET", b"POST", b"PUT", b"DELETE"]), ORDINARY_HEADERS, st.integers(0, 10**6))
def test_every_ordinary_request_is_encoded_as_h11_does(method: bytes, headers: list[tuple[bytes, bytes]], length: int) -> None:
    request = Request(method, b"/a%20b?c=d", (HOST, (b"content-length", b"%d" % length), *headers))
    expected = by_h11(request)
    assert expected is not None
    assert (request.encode(length) or b"").lower() == expected.lower()


def read_by_h11(data: bytes) -> tuple[int, Headers, bytes]:
    """Status, headers and the first part of the body."""
    connection = h11.Connection(h11.CLIENT)
    connection.send(Request(b"GET", b"/", (HOST,)).for_h11())
    connection.send(h11.EndOfMessage())
    connection.receive_data(data)
    response, body = connection.next_event(), connection.next_event()
    assert isinstance(response, h11.Response)
    return response.status_code, tuple(response.headers), bytes(body.data) if isinstance(body, h11.Data) else b""


@given(st.integers(200, 599).filter(lambda status: status != 304), ORDINARY_HEADERS, st.integers(0, 10), st.booleans())
def test_every_ordinary_response_is_parsed_as_h11_does(
    status: int, headers: list[tuple[bytes, bytes]], length: int, keeps: bool
) -> None:
    own = [(b"Content-Length", b" %d" % length), *[(b"Connection", b"Keep-Alive")] * keeps]
    lines = b"".join(b"%s:%s\r\n" % header for header in [*headers, *own])
    data = b"HTTP/1.1 %d OK\r\n%s\r\n%s" % (status, lines, b"y" * length)
    head = parse_response_head(data)
    assert head is not None
    assert (head.status, head.headers, data[head.size :][: head.length]) == read_by_h11(data)


@given(ORDINARY_HEADERS, st.data())
def test_a_part_of_a_head_is_not_a_head(headers: list[tuple[bytes, bytes]], data: st.DataObject) -> None:
    lines = b"".join(b"%s: %s\r\n" % header for header in headers)
    head = b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n%s\r\n" % lines
    assert parse_response_head(head) is not None
    assert parse_response_head(head[: data.draw(st.integers(0, len(head) - 1))]) is None


RESPONSE_HEADERS = st.lists(st.tuples(st.sampled_from([b"Server", b"x-a", b"Connection"]), VALUES), max_size=4)


@given(st.integers(200, 599), st.binary(max_size=20), RESPONSE_HEADERS)
def test_a_parsed_response_is_what_h11_reads(status: int, reason: bytes, headers: list[tuple[bytes, bytes]]) -> None:
    lines = [b"%s:%s\r\n" % header for header in headers]
    data = b"HTTP/1.1 %d %s\r\nContent-Length: 3\r\n%s\r\nabc" % (status, reason, b"".join(lines))
    head = parse_response_head(data)
    if head is not None:
        body = b"" if status == 204 else b"abc"
        assert (head.status, head.headers, body) == read_by_h11(data)
        assert (data[head.size :], head.length) == (b"abc", len(body))
