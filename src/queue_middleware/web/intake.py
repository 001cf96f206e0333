"""Bodies of requests to us: read no further than their limit, and bounded in memory all together until they are stored."""

from __future__ import annotations

from queue_middleware.errors import TooLarge, Unavailable
from queue_middleware.models import Headers

from .call import Call, ClientGone

_INTAKE = 256 * 2**20
"""Bytes that may be in memory at once, on their way to the database."""


class Intake:
    """`read` a body, and `done` when it is stored or refused. `most`: bytes of one body."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._held = 0

    async def read(self, call: Call, headers: Headers) -> bytes:
        """The whole body; refused as soon as it is known to be too large, or to be too much together with others'."""
        most = self._most
        for name, value in headers:
            if name == b"content-length" and value.isdigit() and (len(value) > 15 or int(value) > most):
                raise TooLarge(f"the body has {value[:15].decode()} bytes or more, the most is {most}")
        pieces: list[bytes] = []
        while True:
            message = await call.receive()
            if message["type"] == "http.disconnect":
                raise ClientGone
            piece = message.get("body", b"")
            pieces.append(piece)
            call.size += len(piece)
            self._held += len(piece)
            if call.size > most:
                raise TooLarge(f"the body is larger than {most} bytes")
            if self._held > _INTAKE and self._held > 2 * most:
                raise Unavailable("too many large submissions at once", 5)
            if not message.get("more_body", False):
                call.body_is_unread = False
                return pieces[0] if len(pieces) == 1 else b"".join(pieces)

    def done(self, call: Call) -> None:
        """It takes no more room here."""
        self._held -= call.size
