"""The commands of the database on a service that works: a backup is complete, passes the check, and can be restored."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import anyio
import anyio.to_thread
import pytest

from tests.support.webhook_receiver import receiving

from .load import Load, judge
from .servers import ROOT, Server, serving, uvicorn

pytestmark = pytest.mark.slow


async def command(server: Server, *arguments: str, status: int = 0) -> Any:
    """Run the command on the server's database as an operator does, and return its JSON document."""
    environ = {
        "PATH": os.environ["PATH"],
        "PYTHONPATH": str(ROOT / "src"),
        "QUEUE_DATABASE": str(server.database),
    }
    done = await anyio.run_process(
        [sys.executable, "-m", "queue_middleware", *arguments, "--json"],
        env=environ,
        check=False,
        stderr=subprocess.PIPE,
    )
    assert done.returncode == status, done.stderr.decode()
    return json.loads(done.stdout) if done.stdout else done.stderr.decode()


async def test_a_backup_of_a_busy_service_is_restored(tmp_path: Path) -> None:
    backups = tmp_path / "backups"
    backups.mkdir(mode=0o700)
    async with receiving() as receiver, serving(uvicorn("--workers", "2"), tmp_path, 2, concurrency=4, lease=1) as server:
        load = Load(server, receiver)
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(load.run)
            for number in range(3):
                await load.goes_on()
                before = dict(load.acknowledged)
                made = await command(server, "database", "backup", str(backups / str(number)))
                assert len(made["files"]) == 3
                assert await command(server, "database", "check", "--database", made["database"]) == {
                    "database": made["database"],
                    "problems": [],
                }
                assert (await command(server, "database", "check"))["problems"] == []
                assert (await command(server, "database", "info"))["processes"] == 2
            await load.goes_on()
            assert "2 processes have" in await command(server, "database", "compact", status=1)
            tasks.cancel_scope.cancel()
        after = load.acknowledged.keys() - before.keys()
        await server.stop()

        # The four steps of docs/how-to/back-up-and-restore.md.
        for suffix in ("-wal", "-shm"):
            Path(f"{server.database}{suffix}").unlink(missing_ok=True)
        for suffix in ("", ".key", ".secret"):
            shutil.copy2(f"{backups / '2'}{suffix}", f"{server.database}{suffix}")
        assert (await command(server, "database", "check"))["problems"] == []
        assert (await command(server, "database", "compact"))["bytes_after"] > 0
        await server.start(2)
        load.acknowledged = before
        await judge(load)
        async with server.client() as client:
            unknown = [(await client.get(f"/fal/queue/requests/{one}/status")).status_code for one in after]
        assert 404 in unknown, "what was submitted after the backup is not in it"
