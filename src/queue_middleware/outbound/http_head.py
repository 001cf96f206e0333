"""Heads of ordinary HTTP/1.1 messages. What is not ordinary is left to h11, which costs several times as much.

A request is ordinary if it has no header that changes how the connection is used. A response is ordinary if its whole head
has arrived at once, its body has a declared length or none, and the connection stays open after it.
"""

from __future__ import annotations

import re

import h11

from queue_middleware.jobs.models import Headers
from queue_middleware.jobs.struct import Struct

_TOKEN = rb"[!#$%&'*+.^_`|~0-9a-z-]+"
_VALUE = rb"[\t -~\x80-\xff]*"
_REQUEST = re.compile(
    rb"(?!HEAD |CONNECT )[A-Z]+ [!-~]+ HTTP/1\.1\r\n"
    rb"host: [!-~]+\r\n(?:content-length: ([0-9]{1,15})\r\n)?"
    rb"(?:(?!(?:host|content-length|transfer-encoding|connection|upgrade|expect):)" + _TOKEN + rb": " + _VALUE + rb"\r\n)*\r\n"
)
_RESPONSE = re.compile(
    rb"HTTP/1\.1 ([2-5][0-9]{2})(?: " + _VALUE + rb")?\r\n((?:(?i:" + _TOKEN + rb"):" + _VALUE + rb"\r\n)*)\r\n"
)
_LENGTH = re.compile(rb"[0-9]{1,15}")


class Request(Struct, frozen=True):
    """The head of a request. The headers begin with `host` and, if there is a body, `content-length`."""

    method: bytes
    target: bytes
    headers: Headers

    def encode(self, length: int) -> bytes | None:
        """The bytes of an ordinary head before a body of this length; None for any other head, or one that is not valid."""
        lines = [b"%s: %s\r\n" % header for header in self.headers]
        head = b"%s %s HTTP/1.1\r\n%s\r\n" % (self.method, self.target, b"".join(lines))
        found = _REQUEST.fullmatch(head)
        if found is None or int(found[1] or 0) != length:
            return None
        # A line break in a value would make another line, which the pattern alone accepts.
        return head if head.count(b"\n") == len(lines) + 2 else None

    def for_h11(self) -> h11.Request:
        """The same head for h11. Raises `h11.LocalProtocolError` if it is not valid."""
        return h11.Request(method=self.method, target=self.target, headers=list(self.headers))


class ResponseHead(Struct, frozen=True):
    """The head of an ordinary response. `size` is its length in bytes, `length` that of the body that follows."""

    status: int
    headers: Headers
    size: int
    length: int


def parse_response_head(data: bytes) -> ResponseHead | None:
    """The head of an ordinary response at the start of `data`, otherwise None."""
    found = _RESPONSE.match(data)
    if found is None:
        return None
    status, length = int(found[1]), -1
    headers: list[tuple[bytes, bytes]] = []
    for line in found[2].split(b"\r\n")[:-1]:
        name, _, value = line.partition(b":")
        name, value = name.lower(), value.strip(b" \t")
        headers.append((name, value))
        if name == b"content-length" and length < 0 and _LENGTH.fullmatch(value):
            length = int(value)
        elif name in (b"content-length", b"transfer-encoding") or (name == b"connection" and value.lower() != b"keep-alive"):
            return None
    if status == 204:
        length = 0  # never has a body (RFC 9110, section 15.3.5)
    return None if length < 0 or status == 304 else ResponseHead(status, tuple(headers), found.end(), length)
