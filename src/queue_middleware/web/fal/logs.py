"""Log lines as JSON (docs/reference/protocols/fal.md, section 3), cached because every poll returns all lines of a request."""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Iterable, Sequence
from datetime import UTC, datetime
from functools import lru_cache
from json.encoder import encode_basestring_ascii as quoted

from queue_middleware.jobs.log_lines import LogLine
from queue_middleware.jobs.models import Job

_BATCH = 256
"""Lines that are rendered at once in the event loop: about two milliseconds."""
_CACHE_BYTES = 16 * 2**20
"""Cached bytes of all requests. The log of one attempt takes 1 to 3 MiB at most unless `max_logs` says more."""
_CACHE_REQUESTS = 256

ReadLines = Callable[[int, int], Awaitable[list[LogLine]]]
"""Reads the lines of a job (its key) that follow a line number."""


async def render(lines: Sequence[LogLine]) -> str:
    """Render lines as `entries_json` does, `_BATCH` at a time, yielding to the event loop between batches.

    Not in a thread: the interpreter runs one thread at a time, and handlers may occupy all threads of asyncio.
    """
    texts = [entries_json(lines[:_BATCH])]
    for start in range(_BATCH, len(lines), _BATCH):
        await asyncio.sleep(0)
        texts.append(entries_json(lines[start : start + _BATCH]))
    return ", ".join(texts)


def entries_json(lines: Iterable[LogLine]) -> str:
    """The entries of the JSON array of a status, in ASCII. `level` and `source` appear twice: clients read either place.

    What many lines have in common is rendered once.
    """
    tails: dict[tuple[object, ...], str] = {}
    entries: list[str] = []
    for line in lines:
        common = (line.level, line.source, *line.labels.items())
        tail = tails.get(common)
        if tail is None:
            tail = tails[common] = _tail(line)
        entries.append(f'{{"message": {quoted(line.message)}, "timestamp": "{timestamp(line.at)}{tail}')
    return ", ".join(entries)


def _tail(line: LogLine) -> str:
    fields = f'"level": "{line.level}", "source": {quoted(line.source)}'
    labels = [f", {quoted(name)}: {quoted(value)}" for name, value in line.labels.items() if name not in ("level", "source")]
    return f'", {fields}, "labels": {{{fields}{"".join(labels)}}}}}'


def timestamp(at: int) -> str:
    """Microseconds since 1970 in fal's format: UTC without an offset, e.g. `2024-12-20T15:37:17.120314`."""
    seconds, rest = divmod(at, 1_000_000)
    return f"{_second(seconds)}.{rest:06d}"


@lru_cache(maxsize=1024)
def _second(seconds: int) -> str:
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%S")


class LogCache:
    """Rendered lines of the most recently polled requests. `read` returns the lines that are not cached yet."""

    def __init__(self, read: ReadLines) -> None:
        self._read = read
        self._texts: OrderedDict[str, tuple[int, str]] = OrderedDict()
        self._size = 0

    async def get(self, job: Job) -> str:
        """All lines of a job so far, as the entries of a JSON array."""
        # Lines are only ever appended. Cached by request id, which is unique; a key alone may be used again.
        last, text = self._texts.get(job.request_id, (0, ""))
        if lines := await self._read(job.key, last):
            new = await render(lines)
            text = f"{text}, {new}" if text else new
            self._keep(job.request_id, lines[-1].number, text)
        elif text and job.request_id in self._texts:
            self._texts.move_to_end(job.request_id)
        return text

    def _keep(self, request_id: str, last: int, text: str) -> None:
        known, before = self._texts.pop(request_id, (0, ""))
        if known > last:  # another poll has read further meanwhile
            last, text = known, before
        self._size -= len(before)
        if len(text) <= _CACHE_BYTES:
            self._texts[request_id] = last, text
            self._size += len(text)
        while self._size > _CACHE_BYTES or len(self._texts) > _CACHE_REQUESTS:
            _, (_, oldest) = self._texts.popitem(last=False)
            self._size -= len(oldest)
