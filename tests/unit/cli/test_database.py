"""`queue-middleware database`."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from typing import Any

import pytest

from queue_middleware.stores.sqlite.sql.schema import migrations
from tests.support.factories import make_job, make_request

SECRET = "s3cr3t-c4n4ry"
NEWEST = migrations()[-1][0]


async def fill(stores) -> None:
    request = make_request(query=f"key={SECRET}".encode(), headers=((b"authorization", SECRET.encode()),), body=SECRET.encode())
    await stores.jobs.submit(make_job(request=request, webhook=f"https://hooks.example.com/{SECRET}"))


@pytest.fixture
def database(terminal) -> Any:
    terminal.in_queue(fill, name="pictures")
    return terminal.database


def test_info(terminal, database):
    terminal.now += 90
    lines = dict(line.split("  ", 1) for line in terminal.run("database", "info").splitlines())
    shown = {name: value.strip() for name, value in lines.items()}
    assert shown["database"] == str(database)
    assert shown["application"] == "pictures"
    assert shown["requests"] == "1 queued"
    assert shown["oldest unfinished"] == "1 min 30 s ago"
    assert shown["schema"] == f"version {NEWEST}"
    assert shown["settings"] == "journal_mode=wal, synchronous=full, page_size=8192"
    document = terminal.json("database", "info")
    assert document["bytes"] == database.stat().st_size
    assert document["requests"] == {"queued": 1}
    assert document["oldest_request_at"] == "2027-01-15T08:00:00.000Z"
    assert document["processes"] == 0


def test_check(terminal, database):
    assert terminal.run("database", "check") == f"{database} is intact\n"
    assert terminal.json("database", "check") == {"database": str(database), "problems": []}
    with closing(sqlite3.connect(database)) as connection, connection:
        connection.execute("DELETE FROM backlog_client")
    status, out = terminal.run_any("database", "check")
    assert (status, out, terminal.error) == (1, "backlog_client is not what counting gives (1 row)\n", "")
    assert terminal.run_any("database", "check", "--json")[0] == 1


def test_backup_to_a_file_and_to_a_folder(terminal, database, tmp_path):
    for suffix in (".key", ".secret"):
        database.with_name(database.name + suffix).write_text("content\n")
    copy = tmp_path / "today.sqlite3"
    lines = terminal.run("database", "backup", str(copy)).splitlines()
    assert [line.split("  ")[0] for line in lines] == [f"{copy}{suffix}" for suffix in ("", ".key", ".secret")]
    assert terminal.run("database", "check", "--database", str(copy)) == f"{copy} is intact\n"
    folder = tmp_path / "backups"
    folder.mkdir()
    document = terminal.json("database", "backup", str(folder))
    assert document["database"] == str(folder / database.name)
    assert document["bytes"] == (folder / database.name).stat().st_size
    assert len(document["files"]) == 3
    assert document["not_included"] == []
    assert "replaces none" in terminal.run("database", "backup", str(folder), fails=True)


def test_backup_names_the_secrets_that_are_elsewhere(terminal, database, tmp_path):
    terminal.set(QUEUE_SIGNING_KEY="/etc/queue/keys", QUEUE_CALLBACK_SECRET="a" * 64)
    assert terminal.json("database", "backup", str(tmp_path / "a"))["not_included"] == [
        "the keys that sign webhooks are in /etc/queue/keys and not in the backup",
        "the secret of callback URLs is in QUEUE_CALLBACK_SECRET and not in the backup",
    ]
    terminal.set(QUEUE_SIGNING_KEY="b" * 64)
    terminal.run_any("database", "backup", str(tmp_path / "b"))
    assert "the keys that sign webhooks are in QUEUE_SIGNING_KEY and not in the backup\n" in terminal.error
    assert "bbbb" not in terminal.error


def test_compact(terminal, database):
    with closing(sqlite3.connect(database)) as connection, connection:
        connection.execute("CREATE TABLE large (x)")
        connection.execute("INSERT INTO large VALUES (zeroblob(1000000))")
        connection.execute("DROP TABLE large")
    before = database.stat().st_size
    document = terminal.json("database", "compact")
    assert document == {"database": str(database), "bytes_before": before, "bytes_after": database.stat().st_size}
    assert document["bytes_after"] < before
    assert terminal.run("database", "compact").startswith(f"{database}: ")


def test_migrate(terminal, database):
    assert terminal.run("database", "migrate") == f"{database} has schema version {NEWEST} already\n"
    database.unlink()
    with closing(sqlite3.connect(database)) as connection:
        connection.executescript(f"PRAGMA journal_mode = WAL; {dict(migrations())[100]} PRAGMA user_version = 100;")
    assert f"version 100; this release has version {NEWEST}" in terminal.run("database", "info")
    assert terminal.run("database", "migrate") == f"{database}: schema version 100 before, {NEWEST} now\n"


def test_acting_on_a_database_in_use(terminal, database):
    async def work(stores) -> tuple[list[str], tuple[int, str]]:
        refused = [terminal.run("database", action, fails=True) for action in ("compact", "migrate")]
        return refused, terminal.run_any("database", "migrate", "--yes")

    (compact, migrate), (status, _) = terminal.in_queue(work, name="pictures")
    assert compact == f"queue-middleware: 1 process has {database} open: stop the service first\n"
    assert "or add --yes: processes of an older release then store nothing more until they are restarted" in migrate
    assert status == 0


@pytest.mark.parametrize("action", ["info", "check", "compact", "migrate", "backup"])
def test_a_missing_database_is_not_created(terminal, tmp_path, action):
    more = [str(tmp_path / "copy")] if action == "backup" else []
    assert "there is no queue at" in terminal.run("database", action, *more, fails=True, code=5)
    assert list(tmp_path.iterdir()) == []


def test_no_secret_is_printed(terminal, database):
    for action in ("info", "check"):
        for flags in ([], ["--json"]):
            assert SECRET not in terminal.run("database", action, *flags)
