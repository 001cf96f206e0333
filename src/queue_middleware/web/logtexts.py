"""Log lines as they stand in an answer. Clients poll, and get all lines each time; what was spelled once is kept for later."""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Sequence

from queue_middleware.logline import LogLine
from queue_middleware.models import Job
from queue_middleware.wire.logs import entries_json

_MANY = 256
"""Lines that are spelled at once in the event loop: some two milliseconds."""
_KEPT = 16 * 2**20
"""Bytes that are kept, of all requests together. The log of one attempt is 1 to 3 MiB at most, unless `max_logs` says more."""
_REQUESTS = 256

ReadLines = Callable[[int, int], Awaitable[list[LogLine]]]
"""The lines of a job (key) behind a number."""


async def spell(lines: Sequence[LogLine]) -> str:
    """See `wire.logs.entries_json`. Thousands of lines are spelled some at a time, with a turn for everybody else between.

    Not in a thread: the interpreter runs one thread at a time, and handlers may keep all those that asyncio has.
    """
    texts = [entries_json(lines[:_MANY])]
    for start in range(_MANY, len(lines), _MANY):
        await asyncio.sleep(0)
        texts.append(entries_json(lines[start : start + _MANY]))
    return ", ".join(texts)


class LogTexts:
    """The lines of the requests that were asked for last. `read` gives those that are new."""

    def __init__(self, read: ReadLines) -> None:
        self._read = read
        self._texts: OrderedDict[str, tuple[int, str]] = OrderedDict()
        self._size = 0

    async def of(self, job: Job) -> str:
        """All lines of a job so far, as the entries of an array."""
        # Lines are only ever added. By the id, of which there is no second one; a key alone might come again.
        last, text = self._texts.get(job.request_id, (0, ""))
        if lines := await self._read(job.key, last):
            new = await spell(lines)
            text = f"{text}, {new}" if text else new
            self._keep(job.request_id, lines[-1].number, text)
        elif text and job.request_id in self._texts:
            self._texts.move_to_end(job.request_id)
        return text

    def _keep(self, request_id: str, last: int, text: str) -> None:
        known, before = self._texts.pop(request_id, (0, ""))
        if known > last:  # another poll has read on meanwhile
            last, text = known, before
        self._size -= len(before)
        if len(text) <= _KEPT:
            self._texts[request_id] = last, text
            self._size += len(text)
        while self._size > _KEPT or len(self._texts) > _REQUESTS:
            _, (_, oldest) = self._texts.popitem(last=False)
            self._size -= len(oldest)
