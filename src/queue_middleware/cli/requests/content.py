"""Prints the stored request and response of a request. Secrets are left out unless the operator asks for them."""

from __future__ import annotations

import base64

from queue_middleware.cli.output import Terminal, printable, size
from queue_middleware.jobs.models import Headers, JobResult, StoredRequest
from queue_middleware.jobs.struct import Struct
from queue_middleware.stores import ReadOnlyStores
from queue_middleware.syntax.secret_names import REDACTED, is_secret_header


class Message(Struct, frozen=True):
    """A stored request or response."""

    method: str | None
    """None for a response."""
    path: str | None
    """Percent-encoded. None for a response, and without `--reveal`."""
    query: str | None
    """None as for `path`."""
    status: int | None
    """None for a request."""
    headers: list[tuple[str, str]]
    """Without `--reveal` the values of those that look like secrets are replaced."""
    size: int
    """Bytes of the body."""
    body: str | None
    """None if the body is not UTF-8, and without `--reveal`."""
    body_base64: str | None
    """The body if it is not UTF-8; None as for `body`."""


def request_message(request: StoredRequest, *, reveal: bool) -> Message:
    """The stored request."""
    text, encoded = _body(request.body) if reveal else (None, None)
    return Message(
        request.method,
        request.raw_path.decode("latin-1") if reveal else None,
        request.query.decode("latin-1") if reveal else None,
        None,
        _headers(request.headers, reveal=reveal),
        len(request.body),
        text,
        encoded,
    )


async def response_message(stores: ReadOnlyStores, result: JobResult, *, reveal: bool) -> Message | None:
    """The stored response; None if the request ended without one."""
    response = result.response
    if response is None:
        return None
    text = encoded = None
    if reveal:
        chunks = [await stores.jobs.response_chunk(result.job.key, number) for number in range(response.chunks)]
        text, encoded = _body(b"".join([*chunks, response.body]))
    return Message(None, None, None, response.status, _headers(response.headers, reveal=reveal), response.size, text, encoded)


def print_message(message: Message, terminal: Terminal) -> None:
    """Print it as HTTP/1.1 would send it."""
    if message.method is not None:
        query = f"?{message.query}" if message.query else ""
        terminal.print(printable(f"{message.method} {message.path or REDACTED}{query}"))
    else:
        terminal.print(f"HTTP {message.status}")
    for name, value in message.headers:
        terminal.print(printable(f"{name}: {value}"))
    terminal.print()
    if message.body is not None:
        terminal.print_block(message.body)
    elif message.body_base64 is not None:
        terminal.note(f"the body, {size(message.size)}, is not text; --json has it in base64")
    else:
        terminal.note(f"the body, {size(message.size)}, and other secrets are printed with --reveal")


def _headers(headers: Headers, *, reveal: bool) -> list[tuple[str, str]]:
    named = [(name.decode("latin-1"), value.decode("latin-1")) for name, value in headers]
    return [(name, value if reveal or not is_secret_header(name, value) else REDACTED) for name, value in named]


def _body(body: bytes) -> tuple[str | None, str | None]:
    """The body as text, or in base64."""
    try:
        return body.decode(), None
    except UnicodeDecodeError:
        return None, base64.b64encode(body).decode()
