"""Which listeners of a process are called after the commits of other processes, and what that reads."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from queue_middleware.errors import StoreBusy
from queue_middleware.jobs.store import Topic
from queue_middleware.stores.sqlite import notifier as module
from queue_middleware.stores.sqlite.notifier import Notifier
from queue_middleware.stores.sqlite.shared_numbers import SharedNumbers, TopicChanges
from queue_middleware.stores.sqlite.wakeup import WakeupPipes
from tests.support.factories import make_job
from tests.support.queue_client import eventually
from tests.unit.stores.sqlite.test_store import make


class Database:
    """A connection whose data version a test sets."""

    def __init__(self) -> None:
        self.version = 1
        self.reads = 0
        self.fails = False

    async def call(self, _: Callable[[Any], int]) -> int:
        self.reads += 1
        if self.fails:
            raise StoreBusy("locked", 5)
        return self.version


class Process:
    """The notifier of one process, and the topics that it has published."""

    def __init__(self, folder: Path) -> None:
        numbers = SharedNumbers(folder / "db")
        self.notifier = Notifier(WakeupPipes(folder / "db", "owner", numbers), TopicChanges(numbers))
        self.published: list[Topic] = []
        self.database = Database()
        self.known: int | None = None
        for topic in Topic:
            if topic is not Topic.STATUS:
                self.notifier.subscribe(topic, lambda topic=topic: self.published.append(topic))  # type: ignore[misc]

    @asynccontextmanager
    async def polling(self) -> AsyncIterator[None]:
        """Poll until the end of the block; the first poll, which publishes everything, is over when it begins."""
        task = asyncio.create_task(self.notifier.poll(self.database, lambda: self.known))  # type: ignore[arg-type]
        await eventually(lambda: self.published)
        self.published.clear()
        yield
        task.cancel()
        await asyncio.wait((task,))


@pytest.fixture(autouse=True)
def always_polling(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_POLL_INTERVAL", 0)


async def several_polls() -> None:
    for _ in range(50):
        await asyncio.sleep(0)


async def test_an_announced_topic_is_published_alone_and_without_a_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_READ_INTERVAL", 3600)
    process, other = Process(tmp_path), Process(tmp_path)
    async with process.polling():
        reads = process.database.reads
        process.database.version = 2
        other.notifier.publish_commit({Topic.DELIVERY})
        await several_polls()
        assert process.published == [Topic.DELIVERY]
        assert process.database.reads == reads
    assert other.published == [Topic.DELIVERY]


async def test_a_topic_that_is_only_announced_is_not_published_here(tmp_path: Path) -> None:
    process, other = Process(tmp_path), Process(tmp_path)
    async with process.polling():
        other.notifier.announce((Topic.WORK,))
        await several_polls()
        assert (process.published, other.published) == ([Topic.WORK], [])


async def test_after_a_commit_that_was_not_announced_everything_is_published(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_READ_INTERVAL", 0)
    process = Process(tmp_path)
    async with process.polling():
        process.database.version = 2
        await several_polls()
        assert process.published == [topic for topic in Topic if topic is not Topic.STATUS]


async def test_while_transactions_run_their_version_is_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_READ_INTERVAL", 0)
    process = Process(tmp_path)
    async with process.polling():
        process.known = process.database.version
        await several_polls()
        reads = process.database.reads
        process.known = 2
        await several_polls()
        assert process.published == [topic for topic in Topic if topic is not Topic.STATUS]
        assert process.database.reads == reads


async def test_a_read_that_fails_is_repeated(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_READ_INTERVAL", 0)
    process = Process(tmp_path)
    async with process.polling():
        process.database.fails, process.database.version = True, 2
        await several_polls()
        assert process.published == []
        process.database.fails = False
        await several_polls()
        assert process.published


@pytest.mark.parametrize("missing", ["memory", "pipe"])
async def test_without_announcements_every_poll_reads(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, missing: str) -> None:
    monkeypatch.setattr(module, "_READ_INTERVAL", 3600)
    monkeypatch.setattr(WakeupPipes, "create", lambda _: None)  # as on a system without named pipes
    process = Process(tmp_path)
    async with process.polling():
        if missing == "memory":
            monkeypatch.setattr(TopicChanges, "are_shared", False)
        else:
            process.notifier.subscribe(Topic.STATUS, lambda: process.published.append(Topic.STATUS))
        process.database.version = 2
        await several_polls()
        assert Topic.WORK in process.published
        assert (Topic.STATUS in process.published) is (missing == "pipe")
    await process.notifier.close()


async def test_a_commit_of_another_process_before_the_pipe_is_open_is_not_missed(tmp_path: Path) -> None:
    process = Process(tmp_path)  # without polling: the next read of the database may be half a second away
    process.notifier.subscribe(Topic.STATUS, lambda: process.published.append(Topic.STATUS))
    await eventually(lambda: process.published)
    await process.notifier.close()


async def test_a_listener_to_the_status_that_comes_during_a_commit_is_called(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(WakeupPipes, "create", lambda _: None)
    monkeypatch.setattr(module, "_POLL_INTERVAL", 3600)
    store = make(tmp_path)
    await store.open()
    begun, may_commit = threading.Event(), threading.Event()

    def operation(_: Any, batch: Sequence[None]) -> Sequence[None]:
        begun.set()
        may_commit.wait(60)
        return batch

    writing = store._write(operation, None)
    await asyncio.to_thread(begun.wait, 60)
    called = asyncio.Event()
    store.subscribe(Topic.STATUS, called.set)
    may_commit.set()
    await writing
    async with asyncio.timeout(10):
        await called.wait()
    await store.close()


async def nothing_queued(store: Any) -> None:
    await store.submit(make_job(), start=True)


async def something_queued(store: Any) -> None:
    await store.submit(make_job())


@pytest.mark.parametrize(("change", "published"), [(nothing_queued, []), (something_queued, [Topic.WORK])])
async def test_a_transaction_publishes_only_work_after_a_commit_of_another_process(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, change: Callable[[Any], Awaitable[None]], published: list[Topic]
) -> None:
    monkeypatch.setattr(module, "_POLL_INTERVAL", 3600)
    store, other = make(tmp_path), make(tmp_path)
    await store.open()
    await other.open()
    found: list[Topic] = []
    for topic in Topic:
        store.subscribe(topic, lambda topic=topic: found.append(topic))  # type: ignore[misc]
    await store.claim(0)
    found.clear()
    await change(other)
    await store.claim(0)
    await eventually(lambda: store._writer.idle)
    assert [topic for topic in found if topic is not Topic.STATUS] == published
    await store.close()
    await other.close()
