"""A task's result as JSON (docs/reference/protocols/asyncqueue.md, "Results"): as a whole, or in chunks if it is long.

A chunked body is read twice: the first pass finds out whether it is text, and the length of its JSON string.
"""

from __future__ import annotations

import base64
import json
from codecs import getincrementaldecoder
from collections.abc import AsyncIterator, Mapping
from json.encoder import encode_basestring_ascii as quoted
from typing import Any

from queue_middleware.jobs.models import StoredResponse
from queue_middleware.jobs.outcomes import run_time
from queue_middleware.jobs.struct import Struct

from .models import CompletionSource, TaskRecord

_STEP = 64 * 1024
"""Bytes that are serialized at once: at most six times as many result, in less than a millisecond."""
_utf8 = getincrementaldecoder("utf-8")


class BodyEncoding(Struct, frozen=True):
    """How a body is encoded in JSON."""

    is_text: bool
    """Otherwise base64, with `bodyEncoding`."""
    length: int
    """Bytes of the JSON string without its quotes."""


async def measure(chunks: AsyncIterator[bytes], size: int) -> BodyEncoding:
    """Find the encoding of a body of `size` bytes."""
    length = 0
    try:
        async for serialized in _as_text(chunks):
            length += len(serialized)
    except UnicodeDecodeError:
        return BodyEncoding(is_text=False, length=(size + 2) // 3 * 4)
    return BodyEncoding(is_text=True, length=length)


async def serialize(chunks: AsyncIterator[bytes], encoding: BodyEncoding) -> AsyncIterator[bytes]:
    """Yield the body as it appears between the quotes."""
    async for serialized in _as_text(chunks) if encoding.is_text else _as_base64(chunks):
        yield serialized


async def _as_text(chunks: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    decoder = _utf8()
    async for chunk in chunks:
        for start in range(0, len(chunk), _STEP):
            yield _quoted(decoder.decode(chunk[start : start + _STEP]))
    yield _quoted(decoder.decode(b"", final=True))


def _quoted(text: str) -> bytes:
    return quoted(text)[1:-1].encode("ascii")


async def _as_base64(chunks: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    rest = b""
    async for chunk in chunks:
        whole = rest + chunk
        cut = len(whole) - len(whole) % 3
        yield base64.b64encode(whole[:cut])
        rest = whole[cut:]
    yield base64.b64encode(rest)


def result_of(record: TaskRecord) -> dict[str, Any] | None:
    """The target's response or the provider's final result; base64 with `bodyEncoding` if it is not text."""
    response = record.response
    if response is None:
        return None
    return {
        "statusCode": response.status,
        "headers": _joined(response),
        **_encoded(response.body),
        "duration": _duration(record),
    }


def split_result(record: TaskRecord, encoding: BodyEncoding) -> tuple[bytes, bytes]:
    """`result_of` as JSON without its body: the text before and after it, quotes included."""
    response = record.response
    assert response is not None  # noqa: S101
    before = json.dumps({"statusCode": response.status, "headers": _joined(response)})
    marker: Mapping[str, str] = {} if encoding.is_text else {"bodyEncoding": "base64"}
    after = json.dumps({**marker, "duration": _duration(record)})
    return f'{before[:-1]}, "body": "'.encode("ascii"), f'", {after[1:]}'.encode("ascii")


def _duration(record: TaskRecord) -> int:
    is_external = record.resolved_by in (CompletionSource.CALLBACK, CompletionSource.SIGNAL)
    return 0 if is_external else run_time(record.job) or 0


def _joined(response: StoredResponse) -> dict[str, str]:
    headers: dict[str, str] = {}
    for name, value in response.headers:
        key, text = name.decode("latin-1"), value.decode("latin-1")
        headers[key] = f"{headers[key]}, {text}" if key in headers else text
    return headers


def _encoded(body: bytes) -> dict[str, str]:
    try:
        return {"body": body.decode("utf-8")}
    except UnicodeDecodeError:
        return {"body": base64.b64encode(body).decode("ascii"), "bodyEncoding": "base64"}
