"""Reads a webhook that was recorded in a file: a raw HTTP request, a dump with headers as by `curl -i`, or a HAR archive."""

from __future__ import annotations

import base64
import binascii
import json
import re
from typing import Any, NamedTuple

from queue_middleware.receivers.signatures import FORMATS

from .exit_codes import CommandError

_FIRST_LINE = re.compile(rb"[A-Z]+ \S+ HTTP/[\d.]+|HTTP/[\d.]+ (?P<status>\d{3}).*")
_HEADER = re.compile(rb"(?P<name>[!#$%&'*+.^_`|~0-9A-Za-z-]+):[ \t]*(?P<value>.*?)[ \t]*")
_HEAD_END = re.compile(rb"\r?\n\r?\n")
_SIGNATURE_HEADERS = {name.decode() for names in FORMATS.values() for name in names}


class UnreadableRecording(CommandError):
    """The recording is in none of the formats."""


class RecordedRequest(NamedTuple):
    """A request as it was recorded. `notes` name what in the recording differs from the request that was sent."""

    headers: tuple[tuple[str, str], ...]
    body: bytes
    notes: tuple[str, ...] = ()


def parse_recording(content: bytes) -> list[RecordedRequest]:
    """The requests in a recording, at least one; of a HAR archive those with a header of a webhook's signature.

    Raises `UnreadableRecording`.
    """
    if content.lstrip()[:1] == b"{":
        return _parse_archive(content)
    return [_parse_dump(content)]


def _parse_dump(content: bytes) -> RecordedRequest:
    """Line breaks of the head may be CR LF or LF; the body begins after the first empty line."""
    is_interim = True
    while is_interim:  # curl shows the responses that come before the final one
        head, body = _split_head(content)
        lines = head.splitlines()
        first = _FIRST_LINE.fullmatch(lines[0]) if lines else None
        is_interim = first is not None and (first["status"] or b"").startswith(b"1")
        content = body
    headers = []
    for line in lines[1:] if first else lines:
        if not (match := _HEADER.fullmatch(line)):
            shown = line[:60].decode("latin-1")
            raise UnreadableRecording(
                f"{shown!r} is not a header; a recording has a line for each header, an empty line, and the body"
            )
        headers.append((match["name"].decode("ascii"), match["value"].decode("latin-1")))
    if not headers:
        raise UnreadableRecording(
            "the recording has no headers; record the request with its headers, which contain the signature"
        )
    return _decode_body(tuple(headers), body)


def _split_head(content: bytes) -> tuple[bytes, bytes]:
    if not (end := _HEAD_END.search(content)):
        return content.rstrip(b"\r\n"), b""
    return content[: end.start()], content[end.end() :]


def _decode_body(headers: tuple[tuple[str, str], ...], body: bytes) -> RecordedRequest:
    """Undo what the transfer and the recording added to the body."""
    named = {name.lower(): value for name, value in headers}
    if named.get("transfer-encoding", "").lower() == "chunked" and (decoded := _join_chunks(body)) is not None:
        return RecordedRequest(headers, decoded)
    length = named.get("content-length", "")
    if not re.fullmatch(r"[0-9]{1,12}", length) or len(body) == int(length):
        return RecordedRequest(headers, body)
    missing = int(length) - len(body)
    if missing < 0 and not body[missing:].strip():
        return RecordedRequest(headers, body[:missing], (f"left out {-missing} bytes of white space after the body",))
    note = f"the body has {len(body)} bytes, and Content-Length is {length}: the recording is not the body that was sent"
    return RecordedRequest(headers, body, (note,))


def _join_chunks(body: bytes) -> bytes | None:
    """The content of a chunked body (RFC 9112, section 7.1); None if the recorder has decoded it already."""
    content = bytearray()
    while match := re.match(rb"([0-9a-fA-F]{1,8})[^\r\n]*\r\n", body):
        size, start = int(match[1], 16), match.end()
        if not size:
            return bytes(content)
        content += body[start : start + size]
        body = body[start + size + 2 :]
    return None


def _parse_archive(content: bytes) -> list[RecordedRequest]:
    """The format of browsers and proxies (HTTP Archive 1.2)."""
    try:
        requests = [entry["request"] for entry in json.loads(content)["log"]["entries"]]
        found = [request for request in requests if _is_signed(request)]
        webhooks = [_parse_entry(request) for request in found]
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        raise UnreadableRecording(
            "the recording begins like JSON but is not a HAR archive; record the headers too, e.g. with: curl -i"
        ) from None
    if not webhooks:
        raise UnreadableRecording(f"none of the {len(requests)} requests in the archive has a header of a webhook's signature")
    return webhooks


def _is_signed(request: dict[str, Any]) -> bool:
    return any(header["name"].lower() in _SIGNATURE_HEADERS for header in request["headers"])


def _parse_entry(request: dict[str, Any]) -> RecordedRequest:
    headers = tuple((str(header["name"]), str(header["value"])) for header in request["headers"])
    posted = request.get("postData") or {}
    text = posted.get("text", "")
    if "base64" in (posted.get("encoding"), posted.get("_encoding")):
        try:
            return RecordedRequest(headers, base64.b64decode(text, validate=True))
        except binascii.Error:
            raise UnreadableRecording("the body in the archive is not base64, as its encoding states") from None
    return RecordedRequest(headers, text.encode())
