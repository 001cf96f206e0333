"""Requests and responses as blobs: the head as MessagePack, the body cut into parts."""

from __future__ import annotations

from typing import Any

import msgspec

from queue_middleware.models import Headers, StoredRequest

PART = 256 * 1024
"""Bytes of a body in one row."""

_encoder = msgspec.msgpack.Encoder()
_requests = msgspec.msgpack.Decoder(
    tuple[str, str, bytes, bytes, Headers, tuple[str, int] | None, tuple[str, int | None] | None, str, str]
)
_headers = msgspec.msgpack.Decoder(Headers)


def encode_request(request: StoredRequest) -> bytes:
    """Everything of the request but its body."""
    return _encoder.encode(
        (
            request.method,
            request.root_path,
            request.raw_path,
            request.query,
            request.headers,
            request.client,
            request.server,
            request.scheme,
            request.http_version,
        )
    )


def decode_request(head: bytes, body: bytes) -> StoredRequest:
    """The inverse of `encode_request`."""
    return StoredRequest(*_requests.decode(head), body)


def encode_headers(headers: Headers) -> bytes:
    """Names and values, order and repeats kept."""
    return _encoder.encode(headers)


def decode_headers(head: bytes) -> Headers:
    """The inverse of `encode_headers`."""
    return _headers.decode(head)


def cut(body: bytes) -> list[Any]:
    """The body in pieces of at most `PART` bytes; one piece, perhaps empty, at least."""
    return [body[start : start + PART] for start in range(0, len(body), PART)] or [b""]
