"""The status of a request as server-sent events (fal queue contract, section 4)."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from starlette.types import Receive

from queue_middleware.logline import LogLine
from queue_middleware.models import Job
from queue_middleware.watch import Follower
from queue_middleware.wire.event_ids import Heard, id_field
from queue_middleware.wire.fal import is_over

from .call import Call
from .logtexts import ReadLines, spell

PING = 15.0
"""Seconds of silence after which a comment shows that the connection lives."""
_LAST_WORD = 0.05
"""Seconds between the last event and the end: clients of 2024 lose an event that the end follows at once."""

Spell = Callable[[Job, str | None], bytes]
"""A status as ASCII JSON; of its log entries those that are new here, None where none are wanted."""


class StatusStream:
    """One event for each change, the first at once, until the request is completed, the client goes or the process ends."""

    def __init__(self, call: Call, follower: Follower, heard: Heard, spell: Spell, read_lines: ReadLines) -> None:
        self._call = call
        self._follower = follower
        self._spell = spell
        self._read_lines = read_lines
        self._told = b""
        self._last_line = heard.line
        self._wants_ids = heard.wants_ids
        self._gone = False

    async def run(self) -> None:
        """Answer the call."""
        await self._call.start(200, self._headers())
        if self._call.scope["method"] == "HEAD":
            await self._call.send({"type": "http.response.body", "body": b""})
            return
        listening = asyncio.get_running_loop().create_task(_disconnected(self._call.receive))
        listening.add_done_callback(self._on_disconnect)
        try:
            await self._tell_until_the_end()
            if not self._gone:
                await self._call.send({"type": "http.response.body", "body": b""})
        except OSError:
            return  # how some servers say that the client has gone (ASGI specification, 2.4)
        finally:
            listening.cancel()

    def _headers(self) -> list[tuple[bytes, bytes]]:
        return [
            (b"content-type", b"text/event-stream"),
            (b"cache-control", b"no-store"),
            (b"x-accel-buffering", b"no"),
            (b"x-fal-request-id", self._call.request_id.encode()),
        ]

    def _on_disconnect(self, listening: asyncio.Task[None]) -> None:
        if not listening.cancelled():
            listening.exception()  # of the server's, and for it to tell
            self._gone = True
        self._follower.end()

    async def _tell_until_the_end(self) -> None:
        follower = self._follower
        while not follower.ended:
            job = follower.glance.job
            await self._tell(job)
            if is_over(job):
                await follower.news(_LAST_WORD)
                return
            if not await follower.news(PING):
                await self._write(b": ping\n\n")

    async def _tell(self, job: Job) -> None:
        """One event, if there is something new in it."""
        lines = await self._new_lines(job)
        status = self._spell(job, None if lines is None else "")
        if status == self._told and not lines:
            return
        self._told = status
        data = self._spell(job, await spell(lines)) if lines else status
        event_id = id_field(self._last_line, end=is_over(job)) if self._wants_ids else b""
        await self._write(b"data: %b\n%b\n" % (data, event_id))

    async def _new_lines(self, job: Job) -> list[LogLine] | None:
        """Read after the job: one that was at its end by then has all its lines."""
        if not self._follower.lines:
            return None
        if self._told and self._follower.glance.lines <= self._last_line and not is_over(job):
            return []
        lines = await self._read_lines(job.key, self._last_line)
        if lines:
            self._last_line = lines[-1].number
        return lines

    async def _write(self, data: bytes) -> None:
        # In one piece: some clients decode what arrives piece by piece.
        await self._call.send({"type": "http.response.body", "body": data, "more_body": True})


async def _disconnected(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
