"""Wakeup pipes between processes: every listening process is notified at once, and pipes of killed processes are removed."""

from __future__ import annotations

import asyncio
import errno
import os
import subprocess
import sys
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest

from queue_middleware.stores.sqlite import shared_numbers
from queue_middleware.stores.sqlite import wakeup as module
from queue_middleware.stores.sqlite.shared_numbers import SharedNumbers
from queue_middleware.stores.sqlite.wakeup import WakeupPipes
from tests.support.descriptors import open_files
from tests.support.queue_client import eventually


class Ear:
    def __init__(self) -> None:
        self.times = 0
        self._event = asyncio.Event()

    def __call__(self) -> None:
        self.times += 1
        self._event.set()

    async def hears(self) -> bool:
        async with asyncio.timeout(5):
            await self._event.wait()
        self._event.clear()
        return True


@pytest.fixture
async def tower(tmp_path: Path) -> AsyncIterator[Any]:
    """Creates the pipes of as many processes as a test needs."""
    made: list[WakeupPipes] = []

    def make(owner: str) -> WakeupPipes:
        made.append(WakeupPipes(tmp_path / "db", owner, SharedNumbers(tmp_path / "db")))
        return made[-1]

    yield make
    for pipes in made:
        pipes.stop_listening()
        pipes.close()
        pipes.close()


def start_listening(pipes: WakeupPipes, on_notify: Callable[[], None]) -> None:
    pipes.create()
    pipes.listen(on_notify)


def stop_and_remove(pipes: WakeupPipes) -> None:
    pipes.stop_listening()
    pipes.remove()


def hanging(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir() if "wakeup" in path.name)


async def test_other_processes_are_notified_and_the_own_is_not(tower: Any, tmp_path: Path) -> None:
    one, other, third = tower("one"), tower("other"), tower("third")
    ears = {name: Ear() for name in ("one", "other")}
    start_listening(one, ears["one"])
    start_listening(other, ears["other"])
    start_listening(other, ears["other"])
    assert hanging(tmp_path) == ["db.wakeup-one", "db.wakeup-other"]
    await asyncio.to_thread(one.notify)
    assert await ears["other"].hears()
    await asyncio.to_thread(third.notify)
    assert await ears["one"].hears()
    assert await ears["other"].hears()
    assert (ears["one"].times, ears["other"].times) == (1, 2)


async def test_a_pipe_that_is_created_later_is_found(tower: Any) -> None:
    one, other = tower("one"), tower("other")
    other.notify()
    ear = Ear()
    start_listening(one, ear)
    other.notify()
    assert await ear.hears()


async def test_a_removed_pipe_is_not_written_to(tower: Any, tmp_path: Path) -> None:
    one, other = tower("one"), tower("other")
    ear = Ear()
    start_listening(one, ear)
    other.notify()
    assert await ear.hears()
    stop_and_remove(one)
    stop_and_remove(one)
    assert hanging(tmp_path) == []
    other.notify()
    assert other._others == {}
    start_listening(one, ear)
    other.notify()
    assert await ear.hears()
    assert ear.times == 2


async def test_pipes_are_not_searched_while_their_set_is_unchanged(tower: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    one, other = tower("one"), tower("other")
    looks: list[Any] = []
    iterdir = Path.iterdir
    monkeypatch.setattr(Path, "iterdir", lambda path: looks.append(path) or iterdir(path))
    for _ in range(10):
        other.notify()
    assert len(looks) == 1
    start_listening(one, Ear())
    for _ in range(10):
        other.notify()
    assert len(looks) == 2


async def test_many_notifications_are_combined(tower: Any) -> None:
    one, other = tower("one"), tower("other")
    ear = Ear()
    start_listening(one, ear)
    loop = asyncio.get_running_loop()
    for _ in range(2**16 + 1000):  # more than a pipe holds
        other.notify()
    began = loop.time()
    while ear.times < 6:
        for _ in range(1000):
            other.notify()
        await asyncio.sleep(0)
    assert loop.time() - began > 4 * module._PAUSE
    heard = ear.times
    other.notify()
    await eventually(lambda: ear.times > heard)


async def test_the_pipe_of_a_killed_process_is_removed(tower: Any, tmp_path: Path) -> None:
    script = f"""
import asyncio, os, signal
from pathlib import Path
from queue_middleware.stores.sqlite.shared_numbers import SharedNumbers
from queue_middleware.stores.sqlite.wakeup import WakeupPipes
async def main():
    database = Path({str(tmp_path / "db")!r})
    pipes = WakeupPipes(database, "victim", SharedNumbers(database))
    pipes.create()
    pipes.listen(print)
    os.kill(os.getpid(), signal.SIGKILL)
asyncio.run(main())
"""
    victim = await asyncio.to_thread(subprocess.run, [sys.executable, "-c", script], timeout=30, check=False)
    assert victim.returncode == -9
    assert hanging(tmp_path) == ["db.wakeup-victim"]
    one, other = tower("one"), tower("other")
    ear = Ear()
    start_listening(one, ear)
    other.notify()
    assert await ear.hears()
    assert hanging(tmp_path) == ["db.wakeup-one"]


async def test_the_pipe_of_a_process_that_dies_later_is_closed(tower: Any, tmp_path: Path) -> None:
    one, other = tower("one"), tower("other")
    start_listening(one, Ear())
    other.notify()
    assert len(other._others) == 1
    assert one._own is not None
    asyncio.get_running_loop().remove_reader(one._own[0])
    one._close_own()  # like the death of its process
    other.notify()
    assert other._others == {}


@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
async def test_a_forked_child_leaves_the_pipe_of_its_parent(tower: Any, tmp_path: Path) -> None:
    one, other = tower("one"), tower("other")
    ear = Ear()
    start_listening(one, ear)
    child = os.fork()
    if child == 0:
        one.disown()
        os._exit(0)
    os.waitpid(child, 0)
    other.notify()
    assert await ear.hears()


@pytest.mark.parametrize("missing", ["mkfifo", "mmap"])
async def test_missing_system_features_cause_no_failure(tower: Any, monkeypatch: pytest.MonkeyPatch, missing: str) -> None:
    def refuse(*_: object) -> None:
        raise OSError("not here")

    monkeypatch.setattr(module.os if missing == "mkfifo" else shared_numbers.mmap, missing, refuse)
    one, other = tower("one"), tower("other")
    ear = Ear()
    start_listening(one, ear)
    other.notify()
    stop_and_remove(one)
    assert ear.times == 0


async def test_notify_after_close_does_nothing(tower: Any) -> None:
    one, other = tower("one"), tower("other")
    start_listening(one, Ear())
    other.close()
    other.notify()
    assert other._others == {}


@pytest.mark.parametrize("lacking", ["reader", "writer", "name"])
async def test_a_pipe_that_could_not_be_created_leaves_nothing_and_is_created_later(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, lacking: str
) -> None:
    pipes = WakeupPipes(tmp_path / "queue.sqlite3", "me", SharedNumbers(tmp_path / "queue.sqlite3"))
    before, opened, real = open_files(tmp_path), 0, os.open

    def scarce(*arguments: Any, **more: Any) -> int:
        nonlocal opened
        opened += 1
        if opened == {"reader": 1, "writer": 2, "name": 99}[lacking]:
            raise OSError(errno.EMFILE, "Too many open files")
        return real(*arguments, **more)

    with monkeypatch.context() as patch:
        patch.setattr(module.os, "open", scarce)
        if lacking == "name":
            patch.setattr(Path, "rename", lambda *_: (_ for _ in ()).throw(OSError(errno.ENOSPC, "No space left on device")))
        for _ in range(2):
            opened = 0
            start_listening(pipes, lambda: None)
    assert open_files(tmp_path) == before
    assert not list(tmp_path.glob("*.wakeup-*"))
    assert len([record for record in caplog.records if "every 50 ms" in record.message]) == 1, "it is said once"
    start_listening(pipes, lambda: None)
    assert [path.name for path in tmp_path.glob("*.wakeup-*")] == ["queue.sqlite3.wakeup-me"]
    pipes.close()


async def test_a_symbolic_link_in_place_of_a_pipe_is_not_followed(tmp_path: Path) -> None:
    other = tmp_path / "other"
    os.mkfifo(other)
    (tmp_path / "queue.sqlite3.wakeup-me.new").symlink_to(other)
    (tmp_path / "queue.sqlite3.wakeup-linked").symlink_to(other)
    pipes = WakeupPipes(tmp_path / "queue.sqlite3", "me", SharedNumbers(tmp_path / "queue.sqlite3"))
    before = open_files(tmp_path)
    start_listening(pipes, lambda: None)
    assert (tmp_path / "queue.sqlite3.wakeup-me").is_fifo()
    assert not (tmp_path / "queue.sqlite3.wakeup-me").is_symlink()
    pipes.notify()
    pipes.close()
    assert open_files(tmp_path) == before
