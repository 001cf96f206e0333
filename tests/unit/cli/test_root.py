"""The command as root, on the database of another user."""

from __future__ import annotations

import io
import os
import tempfile
from pathlib import Path

import pytest

from queue_middleware.stores.sqlite.store import SQLiteStore
from tests.support.factories import make_job, make_task

from .conftest import OperatorTerminal


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")
def test_all_files_that_root_creates_belong_to_the_user_of_the_service(monkeypatch, capsys):
    """A file that the service cannot open prevents its start, or makes it wait for a process that does not exist."""
    seen: set[int] = set()
    close = SQLiteStore.close

    async def look_and_close(store: SQLiteStore) -> None:
        seen.update(path.stat().st_uid for path in folder.iterdir())
        await close(store)

    with tempfile.TemporaryDirectory() as name:  # in a folder of pytest, another user cannot reach it
        folder = Path(name)
        os.chown(folder, 65534, 65534)
        terminal = OperatorTerminal(folder, monkeypatch, capsys)
        task = make_job(task=make_task())
        terminal.in_queue(lambda stores: stores.jobs.submit(task))
        monkeypatch.chdir("/")
        database = ("--database", str(terminal.database))
        exported = terminal.run("requests", "export", "--reveal", *database)
        for path in folder.iterdir():
            if path == terminal.database:
                os.chown(path, 65534, 65534)
            else:
                path.unlink()
        monkeypatch.setattr(SQLiteStore, "close", look_and_close)
        terminal.run_any("pause", *database)
        monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(exported.encode())))
        terminal.run_any("requests", "import", "-", *database)
        terminal.run("keys", "rotate", *database)
        assert {"queue.sqlite3.lock", "queue.sqlite3.secret", "queue.sqlite3.key"} <= {one.name for one in folder.iterdir()}
        assert seen | {path.stat().st_uid for path in folder.iterdir()} == {65534}
        assert (os.geteuid(), os.getegid()) == (0, os.getgid())
