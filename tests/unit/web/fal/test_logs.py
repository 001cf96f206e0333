from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Sequence
from typing import Any

import pytest

from queue_middleware.jobs.log_lines import LogLevel, LogLine
from queue_middleware.jobs.models import Job, JobState
from queue_middleware.web.fal import logs
from queue_middleware.web.fal.logs import LogCache, entries_json, render
from tests.support.factories import make_job_view

AT = 1_734_709_037_120_314


def make_logged_job(key: int, request_id: str = "0192f0c0-0000-7000-8000-000000000000") -> Job:
    return make_job_view(JobState.RUNNING, key=key, request_id=request_id)


def lines(first: int, last: int) -> list[LogLine]:
    return [LogLine(AT, LogLevel.INFO, f"line {number}", {}, number=number) for number in range(first, last + 1)]


class Log:
    """A fake store that records how many lines were read."""

    def __init__(self) -> None:
        self.lines: dict[int, list[LogLine]] = {}
        self.given: list[int] = []

    async def read(self, key: int, after: int) -> list[LogLine]:
        found = [line for line in self.lines.get(key, []) if line.number > after]
        self.given.append(len(found))
        return found


@pytest.fixture
def rendered(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, bool]]:
    """For each rendering: the number of lines, and whether it ran in the event loop's thread."""
    calls: list[tuple[int, bool]] = []

    def count(lines: Sequence[LogLine]) -> str:
        calls.append((len(lines), threading.current_thread() is threading.main_thread()))
        return entries_json(lines)

    monkeypatch.setattr(logs, "entries_json", count)
    return calls


def messages(text: str) -> list[Any]:
    return [entry["message"] for entry in json.loads(f"[{text}]")]


async def test_a_poll_reads_and_renders_only_new_lines(rendered: list[tuple[int, bool]]) -> None:
    log = Log()
    texts, job = LogCache(log.read), make_logged_job(key=7)
    assert await texts.get(job) == ""
    for number in (100, 101, 101):
        log.lines[7] = lines(1, number)
        assert messages(await texts.get(job)) == [f"line {n}" for n in range(1, number + 1)]
    assert log.given == [0, 100, 1, 0]
    assert rendered == [(100, True), (1, True)]


async def test_rendering_thousands_of_lines_does_not_block_the_event_loop(rendered: list[tuple[int, bool]]) -> None:
    turns: list[int] = []

    async def other() -> None:
        while True:
            turns.append(len(rendered))
            await asyncio.sleep(0)

    task = asyncio.get_running_loop().create_task(other())
    assert messages(await render(lines(1, 10_000))) == [f"line {number}" for number in range(1, 10_001)]
    task.cancel()
    assert max(count for count, _ in rendered) == 256
    assert len(set(turns)) == len(rendered) - 1  # one between any two of them


async def test_a_reused_key_does_not_show_the_lines_of_another_request() -> None:
    log = Log()
    log.lines[7] = lines(1, 3)
    texts = LogCache(log.read)
    assert len(messages(await texts.get(make_logged_job(key=7)))) == 3
    log.lines[7] = lines(1, 1)
    assert len(messages(await texts.get(make_logged_job(key=7, request_id="0192f0c0-0000-7000-8000-0000000000ff")))) == 1


@pytest.mark.parametrize(("name", "limit"), [("_CACHE_BYTES", 3000), ("_CACHE_REQUESTS", 3)])
async def test_the_cache_is_bounded_and_evicts_the_least_recently_used(
    name: str, limit: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(logs, name, limit)
    log = Log()
    texts = LogCache(log.read)
    jobs = [make_logged_job(key=key, request_id=f"0192f0c0-0000-7000-8000-{key:012x}") for key in range(20)]
    for job in jobs:
        log.lines[job.key] = lines(1, 5)
        await texts.get(jobs[0])
        assert len(messages(await texts.get(job))) == 5
    kept = sum(len(text) for _, text in texts._texts.values())
    assert kept == texts._size <= logs._CACHE_BYTES
    assert 1 < len(texts._texts) <= logs._CACHE_REQUESTS
    log.given.clear()
    await texts.get(jobs[0])
    await texts.get(jobs[1])
    assert log.given == [0, 5]


async def test_a_log_too_large_for_the_cache_does_not_evict_others(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(logs, "_CACHE_BYTES", 3000)
    log = Log()
    log.lines = {1: lines(1, 5), 2: lines(1, 1000)}
    texts = LogCache(log.read)
    small, large = (make_logged_job(key=key, request_id=f"0192f0c0-0000-7000-8000-{key:012x}") for key in (1, 2))
    for _ in range(2):
        assert len(messages(await texts.get(small))) == 5
        assert len(messages(await texts.get(large))) == 1000
    assert log.given == [5, 1000, 0, 1000]
