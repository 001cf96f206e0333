"""A task's result within the JSON that tells it (AsyncQueue contract, "Results"): as a whole, or piece by piece if it is long.

Piece by piece it takes two readings: the first finds out whether the body is text, and how long it is once it is spelled.
"""

from __future__ import annotations

import base64
import json
from codecs import getincrementaldecoder
from collections.abc import AsyncIterator, Mapping
from json.encoder import encode_basestring_ascii as quoted
from typing import Any

from queue_middleware.ends import run_time
from queue_middleware.models import StoredResponse
from queue_middleware.tasks import Channel, TaskRecord
from queue_middleware.value import Value

_STEP = 64 * 1024
"""Bytes that are spelled at once: six times as many at most, and less than a millisecond."""
_utf8 = getincrementaldecoder("utf-8")


class Spelling(Value, frozen=True):
    """How a body stands within JSON."""

    is_text: bool
    """Otherwise it is base64, and says so."""
    length: int
    """Bytes, the quotes not counted."""


async def measure(pieces: AsyncIterator[bytes], size: int) -> Spelling:
    """How the body of `size` bytes that is in these pieces is to be spelled."""
    length = 0
    try:
        async for spelled in _as_text(pieces):
            length += len(spelled)
    except UnicodeDecodeError:
        return Spelling(is_text=False, length=(size + 2) // 3 * 4)
    return Spelling(is_text=True, length=length)


async def spell(pieces: AsyncIterator[bytes], spelling: Spelling) -> AsyncIterator[bytes]:
    """The body as it stands between the quotes."""
    async for spelled in _as_text(pieces) if spelling.is_text else _as_base64(pieces):
        yield spelled


async def _as_text(pieces: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    decoder = _utf8()
    async for piece in pieces:
        for start in range(0, len(piece), _STEP):
            yield _quoted(decoder.decode(piece[start : start + _STEP]))
    yield _quoted(decoder.decode(b"", final=True))


def _quoted(text: str) -> bytes:
    return quoted(text)[1:-1].encode("ascii")


async def _as_base64(pieces: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    rest = b""
    async for piece in pieces:
        whole = rest + piece
        cut = len(whole) - len(whole) % 3
        yield base64.b64encode(whole[:cut])
        rest = whole[cut:]
    yield base64.b64encode(rest)


def result_of(record: TaskRecord) -> dict[str, Any] | None:
    """The answer of the target or the last word of the provider, whole; what is not text is base64, and says so."""
    response = record.response
    if response is None:
        return None
    return {"statusCode": response.status, "headers": _joined(response), **_spelled(response.body), "duration": _took(record)}


def result_frame(record: TaskRecord, spelling: Spelling) -> tuple[bytes, bytes]:
    """The same as JSON without its body: what stands before it and behind it, quotes included."""
    response = record.response
    assert response is not None  # noqa: S101
    before = json.dumps({"statusCode": response.status, "headers": _joined(response)})
    encoding: Mapping[str, str] = {} if spelling.is_text else {"bodyEncoding": "base64"}
    after = json.dumps({**encoding, "duration": _took(record)})
    return f'{before[:-1]}, "body": "'.encode("ascii"), f'", {after[1:]}'.encode("ascii")


def _took(record: TaskRecord) -> int:
    came_from_outside = record.resolved_by in (Channel.CALLBACK, Channel.SIGNAL)
    return 0 if came_from_outside else run_time(record.job) or 0


def _joined(response: StoredResponse) -> dict[str, str]:
    headers: dict[str, str] = {}
    for name, value in response.headers:
        key, text = name.decode("latin-1"), value.decode("latin-1")
        headers[key] = f"{headers[key]}, {text}" if key in headers else text
    return headers


def _spelled(body: bytes) -> dict[str, str]:
    try:
        return {"body": body.decode("utf-8")}
    except UnicodeDecodeError:
        return {"body": base64.b64encode(body).decode("ascii"), "bodyEncoding": "base64"}
