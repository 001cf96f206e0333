"""The status of a request as server-sent events (docs/reference/protocols/fal.md, section 4)."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

from queue_middleware.jobs.log_lines import LogLine
from queue_middleware.jobs.models import Job
from queue_middleware.runtime.status_feed import Subscription
from queue_middleware.web.request import QueueRequest

from .event_ids import ResumePoint, id_field
from .logs import ReadLines, render
from .responses import is_over

PING = 15.0
"""Seconds of silence after which a comment keeps the connection alive."""
_CLOSE_DELAY = 0.05
"""Seconds between the last event and the end of the stream: fal clients of 2024 lose an event that the end follows at once."""

Render = Callable[[Job, str | None], bytes]
"""A status as ASCII JSON; its log entries are the new ones, None if the client did not ask for logs."""


class StatusStream:
    """Sends one event per change, the first at once, until the request completes, the client leaves or the process ends."""

    def __init__(
        self,
        request: QueueRequest[Any],
        follower: Subscription,
        resume: ResumePoint,
        render_status: Render,
        read_lines: ReadLines,
    ) -> None:
        self._request = request
        self._follower = follower
        self._render = render_status
        self._read_lines = read_lines
        self._last_status = b""
        self._last_line = resume.line
        self._wants_ids = resume.wants_ids
        self._gone = False

    async def run(self) -> None:
        """Send the response."""
        await self._request.start(200, self._headers())
        if self._request.scope["method"] == "HEAD":
            await self._request.send({"type": "http.response.body", "body": b""})
            return
        listening = asyncio.get_running_loop().create_task(self._request.wait_for_disconnect())
        listening.add_done_callback(self._on_disconnect)
        try:
            await self._send_until_end()
            if not self._gone:
                await self._request.send({"type": "http.response.body", "body": b""})
        except OSError:
            return  # some servers report a disconnected client like this (ASGI specification, 2.4)
        finally:
            listening.cancel()

    def _headers(self) -> list[tuple[bytes, bytes]]:
        return [
            (b"content-type", b"text/event-stream"),
            (b"cache-control", b"no-store"),
            (b"x-accel-buffering", b"no"),
            (b"x-fal-request-id", self._request.request_id.encode()),
        ]

    def _on_disconnect(self, listening: asyncio.Task[None]) -> None:
        if not listening.cancelled():
            listening.exception()  # retrieved; the server reports it
            self._gone = True
        self._follower.end()

    async def _send_until_end(self) -> None:
        follower = self._follower
        while not follower.ended:
            job = follower.snapshot.job
            await self._send_event(job)
            if is_over(job):
                await follower.wait(_CLOSE_DELAY)
                return
            if not await follower.wait(PING):
                await self._write(b": ping\n\n")

    async def _send_event(self, job: Job) -> None:
        """Send one event, if there is something new in it."""
        lines = await self._new_lines(job)
        status = self._render(job, None if lines is None else "")
        if status == self._last_status and not lines:
            return
        self._last_status = status
        data = self._render(job, await render(lines)) if lines else status
        event_id = id_field(self._last_line, end=is_over(job)) if self._wants_ids else b""
        await self._write(b"data: %b\n%b\n" % (data, event_id))

    async def _new_lines(self, job: Job) -> list[LogLine] | None:
        """New log lines. Read after the job: a job that had ended by then has all its lines."""
        if not self._follower.lines:
            return None
        if self._last_status and self._follower.snapshot.last_line <= self._last_line and not is_over(job):
            return []
        lines = await self._read_lines(job.key, self._last_line)
        if lines:
            self._last_line = lines[-1].number
        return lines

    async def _write(self, data: bytes) -> None:
        # In one chunk: some clients decode each chunk on its own.
        await self._request.send({"type": "http.response.body", "body": data, "more_body": True})
