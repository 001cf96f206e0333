"""Bodies of requests to the queue: no larger and no slower than allowed, and bounded in memory until they are stored."""

from __future__ import annotations

import asyncio
import math
from collections import defaultdict
from typing import Any

from queue_middleware.errors import BodyTooSlow, QueueError, TooLarge, Unavailable
from queue_middleware.models import Headers

from .call import Call, ClientGone

SUBMISSIONS = 256 * 2**20
"""Bytes of submissions and tasks that may be in memory at once, on their way to the database."""
CALLBACKS = 64 * 2**20
"""The same of callbacks and signals: a provider calls once, and is not to be refused because of what clients send."""
LEAST_RATE = 1024
"""Bytes in a second, averaged over `patience`, below which a body has stalled."""
_STALLED = 5.0
"""Seconds after which a body that has stalled gives way to others, where there is no room for all."""
_SMALL = 4096
"""Bytes of a piece that is put together with others: as an object of its own it may take twenty times its size."""
_TICK = 1.0
"""Seconds between two looks at the bodies that are being read. One timer for all; none where bodies arrive at once."""


class Intake:
    """`read` a body, and `done` when it is stored or refused. Belongs to the event loop that reads.

    `most`: bytes of one body. `room`: bytes of all together. `patience`: seconds in which `LEAST_RATE * patience` bytes of a
    body have to arrive, again and again until its end.

    Where there is no room for all, a body that has stalled gives way, or else one of the client that takes the most: bodies of
    one client do not keep out those of others, and a client that is alone may take all of the room.
    """

    def __init__(self, most: int, room: int, patience: float) -> None:
        self._most = most
        self._room = max(room, 2 * most)
        self._window = LEAST_RATE * patience
        self._tick = min(_TICK, patience / 4)
        self._patience = math.ceil(patience / self._tick)
        self._held = 0
        self._reading: dict[Call, asyncio.Task[Any]] = {}
        self._loop: asyncio.AbstractEventLoop | None = None
        """The one in which the next look is due; None while nothing is read."""

    async def read(self, call: Call, headers: Headers) -> bytes:
        """The whole body. Raises `TooLarge` as soon as it is known, `BodyTooSlow`, `Unavailable`, and `ClientGone`."""
        for name, value in headers:
            if name == b"content-length" and value.isdigit() and (len(value) > 15 or int(value) > self._most):
                raise TooLarge(f"the body has {value[:15].decode()} bytes or more, the most is {self._most}")
        task = asyncio.current_task()
        assert task is not None  # noqa: S101 - servers call applications in tasks
        self._reading[call] = task
        if self._loop is not task.get_loop():
            self._look_later(task.get_loop())
        try:
            return await self._pieces(call)
        except asyncio.CancelledError:
            # Another cancellation than ours counts more, as with `asyncio.timeout`.
            if call.interruption is None or task.uncancel() > call.cancelling:
                raise
            raise call.interruption from None
        finally:
            del self._reading[call]

    async def _pieces(self, call: Call) -> bytes:
        pieces: list[bytes | bytearray] = []
        while True:
            message = await call.receive()
            if message["type"] == "http.disconnect":
                raise ClientGone
            piece = message.get("body", b"")
            if pieces and len(piece) < _SMALL:
                if not isinstance(pieces[-1], bytearray):
                    pieces.append(bytearray())
                pieces[-1] += piece
            else:
                pieces.append(piece)
            call.size += len(piece)
            self._held += len(piece)
            if call.size > self._most:
                raise TooLarge(f"the body is larger than {self._most} bytes")
            while self._held > self._room:
                self._make_room(call)
            if not message.get("more_body", False):
                call.body_is_unread = False
                return bytes(pieces[0]) if len(pieces) == 1 else b"".join(pieces)

    def done(self, call: Call) -> None:
        """It takes no more room here. Repeatable."""
        self._held -= call.size
        call.size = 0

    # --- looking at those that are being read

    def _look_later(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        loop.call_later(self._tick, self._look, loop)

    def _look(self, loop: asyncio.AbstractEventLoop) -> None:
        """Count looks and not seconds: while a handler blocks the event loop, what has arrived cannot be read."""
        if self._loop is not loop:
            return
        for call in list(self._reading):
            call.stalled += 1
            if call.size - call.measured >= self._window:
                call.measured, call.stalled = call.size, 0
            elif call.stalled > self._patience:
                self._interrupt(call, _too_slow())
        if self._reading:
            self._look_later(loop)
        else:
            self._loop = None

    def _make_room(self, call: Call) -> None:
        """End another body, so that this one can go on. Raises `Unavailable` where this one has to give way."""
        others = [other for other in self._reading if other is not call and other.size]
        slowest = max(others, key=lambda other: other.stalled, default=call)
        if slowest.stalled * self._tick >= _STALLED:
            self._interrupt(slowest, _too_slow())
            return
        taken: defaultdict[str, int] = defaultdict(int)
        for other in (call, *others):
            taken[other.client] += other.size
        most = max(taken, key=lambda client: taken[client])
        if taken[most] <= taken[call.client]:
            raise _no_room()
        self._interrupt(max((other for other in others if other.client == most), key=lambda other: other.size), _no_room())

    def _interrupt(self, call: Call, error: QueueError) -> None:
        task = self._reading[call]
        if call.interruption is None:
            call.interruption, call.cancelling = error, task.cancelling()
            self.done(call)
            task.cancel()


def _too_slow() -> BodyTooSlow:
    return BodyTooSlow("the body arrived too slowly, or stopped in the middle; send the request again")


def _no_room() -> Unavailable:
    return Unavailable("too many large submissions at once", 5)
