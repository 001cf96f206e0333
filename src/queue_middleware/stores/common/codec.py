"""Encodes requests, responses and log lines as MessagePack, splits bodies into chunks, and replaces unstorable text."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from queue_middleware.jobs.log_lines import LogLevel, LogLine
from queue_middleware.jobs.models import CHUNK_SIZE, Headers, Mount, StoredRequest, WebhookKind
from queue_middleware.jobs.task_spec import PollConfig, TaskSpec


class _Head(msgspec.Struct, array_like=True, frozen=True, gc=False):
    """A request without its body. The order of the fields is the stored order."""

    method: str
    root_path: str
    raw_path: bytes
    query: bytes
    headers: Headers
    client: tuple[str, int] | None
    server: tuple[str, int | None] | None
    scheme: str
    http_version: str
    mount: tuple[str | None, dict[str, str | int | float], tuple[str, ...]] | None = None


_encoder = msgspec.msgpack.Encoder()
_requests = msgspec.msgpack.Decoder(_Head)
_headers = msgspec.msgpack.Decoder(Headers)
_lines = msgspec.msgpack.Decoder(list[tuple[int, LogLevel, str, dict[str, str], str]])
_specs = msgspec.msgpack.Decoder(TaskSpec)
_secrets = msgspec.msgpack.Decoder(dict[str, str])
_polls = msgspec.msgpack.Decoder(PollConfig)


def encode_request(request: StoredRequest) -> bytes:
    """Encode a request without its body."""
    head = (
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
    mount = request.mount
    if mount is None:  # as a rule
        return _encoder.encode(head)
    return _encoder.encode((*head, (mount.app_root_path, mount.path_params, mount.uuids)))


def decode_request(data: bytes, body: bytes) -> StoredRequest:
    """The inverse of `encode_request`."""
    head = _requests.decode(data)
    return StoredRequest(
        head.method,
        head.root_path,
        head.raw_path,
        head.query,
        head.headers,
        head.client,
        head.server,
        head.scheme,
        head.http_version,
        body,
        None if head.mount is None else Mount(*head.mount),
    )


def encode_headers(headers: Headers) -> bytes:
    """Encode names and values; order and repetitions are kept."""
    return _encoder.encode(headers)


def decode_headers(head: bytes) -> Headers:
    """The inverse of `encode_headers`."""
    return _headers.decode(head)


def encode_lines(lines: Sequence[LogLine]) -> bytes:
    """Encode a batch of lines without their numbers."""
    return _encoder.encode([(line.at, line.level, line.message, line.labels, line.source) for line in lines])


def decode_lines(data: bytes, last: int) -> list[LogLine]:
    """The inverse of `encode_lines`; `last` is the number of the last line."""
    fields = _lines.decode(data)
    return [LogLine(*line, number) for number, line in enumerate(fields, start=last - len(fields) + 1)]


def encode(value: TaskSpec | PollConfig) -> bytes:
    """Encode a value by the names of its fields, so that later releases can add fields."""
    return _encoder.encode(value)


def decode_spec(data: bytes) -> TaskSpec:
    """The inverse of `encode`."""
    return _specs.decode(data)


def decode_poll(data: bytes) -> PollConfig:
    """The inverse of `encode`."""
    return _polls.decode(data)


def encode_secrets(headers: Mapping[str, str]) -> bytes:
    """Encode the headers for the polls of a task, whose values may be API keys."""
    return _encoder.encode(headers)


def decode_secrets(data: bytes) -> dict[str, str]:
    """The inverse of `encode_secrets`."""
    return _secrets.decode(data)


def encode_webhook_kinds(kinds: tuple[WebhookKind, ...]) -> str:
    """Encode the kinds of webhooks that are sent besides the one about the end of the request."""
    return ",".join(kinds)


def decode_webhook_kinds(text: str) -> tuple[WebhookKind, ...]:
    """The inverse of `encode_webhook_kinds`."""
    return tuple(WebhookKind(kind) for kind in text.split(","))


_UNSTORABLE = re.compile("[\0\ud800-\udfff]")


def clean(text: str) -> str:
    """The text with U+FFFD for NUL and for surrogates, which databases refuse or store incorrectly."""
    return _UNSTORABLE.sub("\ufffd", text)


def split_body(body: bytes) -> list[Any]:
    """Split a body into chunks of at most `CHUNK_SIZE` bytes; an empty body is one empty chunk."""
    return [body[start : start + CHUNK_SIZE] for start in range(0, len(body), CHUNK_SIZE)] or [b""]
