"""Lets a client wait for a change of its request instead of polling (`Prefer: wait=N`, decision 0039)."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable
from typing import Any

from queue_middleware.jobs.models import Job
from queue_middleware.jobs.states import FINAL
from queue_middleware.runtime.runtime import Runtime
from queue_middleware.runtime.status_feed import Subscription

from .request import ClientDisconnected, QueueRequest


class WaitingRequests:
    """The requests of clients that wait. They occupy no slot and no thread, and cause no query while nothing changes.

    A client may wait with as many requests at once as it may have in the queue; further ones are responded to at once.
    """

    def __init__(self, runtime: Runtime) -> None:
        self._runtime = runtime
        self._limit = runtime.settings.max_queued_per_client
        self._waiting: Counter[str] = Counter()

    async def apply(self, request: QueueRequest[Any], job: Job, seconds: int, is_awaited: Callable[[Job], bool]) -> None:
        """Apply the preference `wait`: as `wait`, and the response names it unless the wait was cut short."""
        if await self.wait(request, job, seconds, is_awaited):
            request.add_applied(b"wait=%d" % seconds)

    async def wait(self, request: QueueRequest[Any], job: Job, seconds: int, is_awaited: Callable[[Job], bool]) -> bool:
        """Wait at most `seconds` until `is_awaited` accepts the job. A job that has ended is not waited for.

        Returns False if the wait was cut short, by the limit for this client or by the end of the process. Raises
        `ClientDisconnected`, `UnknownRequest`.
        """
        if job.state in FINAL or not seconds:
            return True
        client = request.client
        if self._runtime.services.status_feed.stopped or self._waiting[client] >= self._limit:
            return False
        self._waiting[client] += 1
        try:
            async with self._runtime.follow(job.request_id, request.send, states_only=True) as subscription:
                return await _wait_for(request, subscription, seconds, is_awaited)
        finally:
            self._waiting[client] -= 1
            if not self._waiting[client]:
                del self._waiting[client]


async def _wait_for(
    request: QueueRequest[Any], subscription: Subscription, seconds: int, is_awaited: Callable[[Job], bool]
) -> bool:
    loop = asyncio.get_running_loop()
    deadline = loop.time() + seconds
    listening = loop.create_task(request.wait_for_disconnect())
    listening.add_done_callback(lambda _: subscription.end())
    try:
        while not is_awaited(subscription.snapshot.job):
            if subscription.ended:
                break
            if not await subscription.wait(deadline - loop.time()):
                return True
        else:
            return True
        if listening.done():
            listening.exception()  # retrieved; the server reports it
            raise ClientDisconnected
        return False
    finally:
        listening.cancel()
