import fcntl
import os
import shutil
import sqlite3
import threading

import pytest

from queue_middleware.errors import StoreError
from queue_middleware.jobs.models import JobState
from queue_middleware.settings import Settings
from queue_middleware.stores import open_for_reading, open_stores
from queue_middleware.stores.sqlite.read_only import open_for_reading as open_connection_for_reading
from tests.support.factories import make_job

pytestmark = pytest.mark.anyio


@pytest.fixture
def settings(tmp_path) -> Settings:
    return Settings.load({"database": str(tmp_path / "queue.sqlite3")})


async def submit_to(settings: Settings) -> str:
    """Submit a job as a service does that stops after it."""
    stores = open_stores(settings)
    await stores.database.open()
    request_id = (await stores.jobs.submit(make_job())).request_id
    await stores.database.close()
    return request_id


def state_of(folder) -> dict[str, tuple[int, int, int]]:
    """The size and times of all files."""
    return {
        path.name: (path.stat().st_size, path.stat().st_mtime_ns, path.stat().st_ino)
        for path in folder.iterdir()
        if not path.name.endswith("-shm")  # SQLite's index, which also readers lock and mark
    }


async def test_a_stopped_queue_is_read_and_nothing_is_created(settings, tmp_path):
    request_id = await submit_to(settings)
    before = state_of(tmp_path)
    async with open_for_reading(settings) as stores:
        assert (await stores.jobs.job(request_id)).state is JobState.QUEUED
        assert (await stores.jobs.counts()).jobs == {JobState.QUEUED: 1}
    assert state_of(tmp_path) == before
    assert not (tmp_path / "queue.sqlite3-wal").exists()


async def test_a_running_queue_is_read(settings, tmp_path):
    service = open_stores(settings)
    await service.database.open()
    try:
        first = (await service.jobs.submit(make_job())).request_id
        before = state_of(tmp_path)
        async with open_for_reading(settings) as stores:
            assert (await stores.jobs.job(first)).state is JobState.QUEUED
            assert state_of(tmp_path) == before
            second = (await service.jobs.submit(make_job())).request_id
            assert (await stores.jobs.job(second)).state is JobState.QUEUED
    finally:
        await service.database.close()


async def test_what_a_crash_left_in_the_write_ahead_log_is_read(settings, tmp_path):
    service = open_stores(settings)
    await service.database.open()
    request_id = (await service.jobs.submit(make_job())).request_id
    crashed = tmp_path / "crashed"
    crashed.mkdir()
    for end in ("", "-wal", "-shm"):
        shutil.copy(tmp_path / f"queue.sqlite3{end}", crashed)
    await service.database.close()
    before = state_of(crashed)
    async with open_for_reading(Settings.load({"database": str(crashed / "queue.sqlite3")})) as stores:
        assert (await stores.jobs.job(request_id)).state is JobState.QUEUED
    assert state_of(crashed) == before


async def test_a_reader_follows_the_start_of_a_service(settings):
    await submit_to(settings)
    async with open_for_reading(settings) as stores:
        assert (await stores.jobs.counts()).jobs == {JobState.QUEUED: 1}
        await submit_to(settings)
        assert (await stores.jobs.counts()).jobs == {JobState.QUEUED: 2}


async def test_a_service_that_starts_waits_for_a_reader_of_the_unused_file(settings, tmp_path):
    """The file is read as an immutable one, so nothing may be written meanwhile."""
    await submit_to(settings)
    lock = os.open(tmp_path / "queue.sqlite3.lock", os.O_RDWR)
    started = threading.Event()

    def start() -> None:
        fcntl.flock(lock, fcntl.LOCK_EX)
        started.set()

    with open_connection_for_reading(tmp_path / "queue.sqlite3"):
        with pytest.raises(BlockingIOError):
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        service = threading.Thread(target=start)
        service.start()
    service.join(10)
    assert started.is_set()
    os.close(lock)


async def test_a_reader_changes_nothing(settings):
    await submit_to(settings)
    async with open_for_reading(settings) as stores:
        with pytest.raises(StoreError, match="reading only"):
            await stores.jobs.submit(make_job())
        with pytest.raises(StoreError, match="reading only"):
            await stores.jobs.claim(1)
        with pytest.raises(StoreError, match="reading only"):
            await stores.webhooks.redeliver([1], "carol", "all")


async def test_a_file_that_cannot_be_read_is_reported(settings, tmp_path):
    async def reason() -> str:
        with pytest.raises(StoreError) as caught:
            async with open_for_reading(settings):
                pass
        return caught.value.detail

    path = tmp_path / "queue.sqlite3"
    assert "there is no queue at" in await reason()
    path.write_text("These are the notes of a meeting, and no database. " * 100)
    assert "is not the database of a queue" in await reason()
    path.unlink()
    connection = sqlite3.connect(path)
    connection.execute("CREATE TABLE job (id)")
    connection.close()
    assert "is the database of another program" in await reason()


async def test_a_schema_of_another_release_is_not_read(settings, tmp_path):
    await submit_to(settings)
    for version, remedy in ((100, "database migrate"), (9999, "upgrade the package")):
        connection = sqlite3.connect(tmp_path / "queue.sqlite3")
        connection.execute(f"PRAGMA user_version = {version}")
        connection.close()
        with pytest.raises(StoreError, match=remedy):
            async with open_for_reading(settings):
                pass
