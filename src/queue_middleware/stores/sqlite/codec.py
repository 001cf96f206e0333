"""Requests, responses and log lines as blobs: MessagePack for all but bodies, which are cut into parts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from queue_middleware.models import Headers, LogLevel, LogLine, StoredRequest, WebhookKind
from queue_middleware.taskspec import PollConfig, TaskSpec

PART = 256 * 1024
"""Bytes of a body in one row."""

_encoder = msgspec.msgpack.Encoder()
_requests = msgspec.msgpack.Decoder(
    tuple[str, str, bytes, bytes, Headers, tuple[str, int] | None, tuple[str, int | None] | None, str, str]
)
_headers = msgspec.msgpack.Decoder(Headers)
_lines = msgspec.msgpack.Decoder(list[tuple[int, LogLevel, str, dict[str, str], str]])
_specs = msgspec.msgpack.Decoder(TaskSpec)
_secrets = msgspec.msgpack.Decoder(dict[str, str])
_polls = msgspec.msgpack.Decoder(PollConfig)


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


def encode_lines(lines: Sequence[LogLine]) -> bytes:
    """A batch of lines without their numbers."""
    return _encoder.encode([(line.at, line.level, line.message, line.labels, line.source) for line in lines])


def decode_lines(data: bytes, last: int) -> list[LogLine]:
    """The inverse of `encode_lines`; `last` is the number of the last line."""
    fields = _lines.decode(data)
    return [LogLine(*line, number) for number, line in enumerate(fields, start=last - len(fields) + 1)]


def encode(value: TaskSpec | PollConfig) -> bytes:
    """By the names of its fields, so that later releases may add some."""
    return _encoder.encode(value)


def decode_spec(data: bytes) -> TaskSpec:
    """The inverse of `encode`."""
    return _specs.decode(data)


def decode_poll(data: bytes) -> PollConfig:
    """The inverse of `encode`."""
    return _polls.decode(data)


def encode_secrets(headers: Mapping[str, str]) -> bytes:
    """Headers for the polls of a task, which may be keys."""
    return _encoder.encode(headers)


def decode_secrets(data: bytes) -> dict[str, str]:
    """The inverse of `encode_secrets`."""
    return _secrets.decode(data)


def encode_events(events: tuple[WebhookKind, ...]) -> str:
    """What a webhook is to be told besides the end."""
    return ",".join(events)


def decode_events(text: str) -> tuple[WebhookKind, ...]:
    """The inverse of `encode_events`."""
    return tuple(WebhookKind(word) for word in text.split(","))


def cut(body: bytes) -> list[Any]:
    """The body in pieces of at most `PART` bytes; one piece, perhaps empty, at least."""
    return [body[start : start + PART] for start in range(0, len(body), PART)] or [b""]
