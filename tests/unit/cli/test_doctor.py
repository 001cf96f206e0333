"""`queue-middleware doctor`: each finding, and what it says to do."""

from __future__ import annotations

import os
import shutil
import sqlite3
import stat
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from queue_middleware.stores.sqlite import connection, disk, examination, files
from queue_middleware.stores.sqlite.locks import WriteLock
from tests.support.factories import make_job, make_request, make_response

SECRET = "s3cr3t-c4n4ry"
QUIET = {"QUEUE_PUBLIC_URL": "https://q.example", "QUEUE_API_KEYS": f"alice:{SECRET}-long-enough", "QUEUE_PATHS": "/work"}


async def finish(stores) -> None:
    """One request that has ended, with secrets."""
    request = make_request(query=f"key={SECRET}".encode(), headers=((b"authorization", SECRET.encode()),), body=SECRET.encode())
    claim = (await stores.jobs.submit(make_job(request=request, webhook=f"https://h.example/{SECRET}"), start=True)).claim
    await stores.jobs.complete(claim, make_response(SECRET.encode()))


@pytest.fixture
def database(terminal) -> Path:
    """The database of a service with nothing to object to."""
    terminal.in_queue(finish)
    terminal.database.parent.chmod(0o700)
    terminal.set(**QUIET)
    return terminal.database


def findings(terminal, *flags: str, level: str | None = None) -> list[tuple[str, str | None]]:
    found = terminal.json("doctor", *flags)["findings"]
    return [(one["text"], one["action"]) for one in found if level is None or one["level"] == level]


def objections(terminal, *flags: str) -> list[tuple[str, str | None]]:
    return findings(terminal, *flags, level="problem") + findings(terminal, *flags, level="warning")


def test_nothing_is_wrong(terminal, database):
    status, out = terminal.run_any("doctor")
    assert (status, terminal.error) == (0, "0 problems, 0 warnings\n")
    assert all(line.startswith("ok  ") for line in out.splitlines())
    assert f"ok  {database} is on " in out
    assert "mode 0600; SQLite " in out
    assert "ok  no process has the database open, and all requests have ended" in out
    assert "ok  there is no signing key yet; the service makes one when it starts" in out


def test_no_secret_is_printed(terminal, database):
    terminal.set(QUEUE_API_KEYS=f"alice:{SECRET}-long-enough", QUEUE_CALLBACK_SECRET="a" * 64)
    terminal.run("keys", "rotate", "--json")
    for flags in ([], ["--json"]):
        status, out = terminal.run_any("doctor", *flags)
        assert status == 0
        assert SECRET not in out + terminal.error
        assert database.with_name(f"{database.name}.key").read_text().strip() not in out


def test_a_missing_database_is_not_created(terminal, tmp_path):
    terminal.set(**QUIET)
    status, out = terminal.run_any("doctor")
    assert status == 0
    assert f"!!  there is no database {terminal.database} yet" in out
    assert list(tmp_path.iterdir()) == []


def test_open_permissions_are_found_and_fixed(terminal, database):
    key = database.with_name(f"{database.name}.key")
    terminal.run("keys", "rotate", "--json")
    database.chmod(0o640)
    key.chmod(0o604)
    (opened, *_) = findings(terminal, level="problem")
    assert opened[0] == "other users can read or write queue.sqlite3, queue.sqlite3.key"
    assert opened[1].endswith(f"chmod 600 {database} {key}")
    status, out = terminal.run_any("doctor", "--fix-permissions")
    assert status == 0
    assert f"ok  {database} is closed to other users now\nok  {key} is closed to other users now\n" in out
    assert [stat.S_IMODE(file.stat().st_mode) for file in (database, key)] == [0o600, 0o600]
    assert terminal.run_any("doctor")[0] == 0


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files away")
def test_files_of_different_owners_are_found(terminal, database):
    lock = database.with_name(f"{database.name}.lock")
    os.chown(lock, 1234, 1234)
    ((text, action),) = objections(terminal)
    assert text.startswith("queue.sqlite3.lock and queue.sqlite3 have different owners")
    assert action == f"run: chown root {lock}"
    os.chown(database, 1234, 1234)
    os.chown(lock, 0, 0)
    assert objections(terminal)[0][1] == f"run: chown 1234 {lock}"


def test_a_folder_that_others_can_write_is_found(terminal, database):
    database.parent.chmod(0o770)
    ((text, action),) = objections(terminal)
    assert text == f"other users can write to the folder {database.parent}, and so replace the database"
    assert action == f"run: chmod 700 {database.parent}"


def test_a_network_file_system_is_found(terminal, database, monkeypatch):
    mounts = f"server:/x {database.parent} nfs4 rw 0 0\n"
    for module in (disk, files, examination):
        monkeypatch.setattr(module, "mount_table", lambda: mounts)
    ((text, _),) = findings(terminal, level="problem")
    assert "is on nfs4, which is a network file system" in text
    terminal.set(QUEUE_ALLOW_NETWORK_FILESYSTEM="1")
    assert findings(terminal, level="problem") == []
    assert "network file system" in findings(terminal, level="warning")[0][0]


def test_little_disk_is_found(terminal, database, monkeypatch):
    usage = shutil.disk_usage(database.parent)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage._replace(free=2**20))
    ((text, action),) = objections(terminal)
    assert text.startswith("only 1 MiB of disk are free and ")
    assert text.endswith(": submissions are refused")
    assert action == "free space, or set min_free_disk to less"


def test_a_log_that_grows_is_found(terminal, database, monkeypatch):
    monkeypatch.setattr(files, "LARGEST_WAL", 1)
    database.with_name(f"{database.name}-wal").write_bytes(b"xx")
    database.with_name(f"{database.name}-wal").chmod(0o600)
    assert "end the backup or the shell that does so" in objections(terminal)[0][0]


def test_a_second_name_is_found(terminal, database):
    database.with_name("other").hardlink_to(database)
    assert "has another name, a hard link" in objections(terminal)[0][0]


def test_a_blocked_write_lock_is_found(terminal, database, monkeypatch):
    monkeypatch.setattr(examination, "_LOCK_PATIENCE", 0.05)
    path = database.with_name(f"{database.name}.lock")
    lock = WriteLock(path)
    with lock:
        ((text, action),) = objections(terminal)
    lock.close()
    assert text.startswith(f"a process has held the write lock {path} for more than 0.05 s")
    assert action == f"find it with: fuser {path}"


def test_requests_that_wait_for_no_process_are_found(terminal, database):
    async def submit(stores) -> None:
        await stores.jobs.submit(make_job())

    terminal.in_queue(submit)
    assert objections(terminal) == [("requests have not ended, and no process runs", "start the service")]

    async def look(stores) -> Any:
        return objections(terminal), findings(terminal)

    found, everything = terminal.in_queue(look)
    assert found == []
    assert ("1 process has the database open", None) in everything


def test_processes_of_two_releases_are_found(terminal, database):
    async def look(stores) -> Any:
        owners = [stores.database.owner, f"{stores.database.owner}-2"]
        lock = database.with_name(f"{database.name}.alive-{owners[0]}")
        database.with_name(f"{database.name}.alive-{owners[1]}").hardlink_to(lock)
        with closing(sqlite3.connect(database)) as connection, connection:
            for number, owner in enumerate([*owners, "dead"]):
                row = (owner, "web-1", number, f"0.{number}", 8, 0, 0, 0, 0, 0)
                connection.execute("INSERT OR REPLACE INTO process VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)", row)
        return objections(terminal)

    assert terminal.in_queue(look) == [
        ("processes of the releases 0.0 and 0.1 run at the same time", "restart those of the older release")
    ]


def test_another_schema_is_found(terminal, database):
    with closing(sqlite3.connect(database)) as connection:
        connection.execute("PRAGMA user_version = 999")
    ((text, action),) = objections(terminal)
    assert text.startswith("the schema has version 999 and this release knows")
    assert action == "upgrade the package"
    with closing(sqlite3.connect(database)) as connection:
        connection.execute("PRAGMA user_version = 100")
    ((text, action),) = objections(terminal)
    assert text.startswith("the schema has version 100, this release has version ")
    assert "the first one migrates the database" in str(action)


def test_a_clock_that_is_behind_is_found(terminal, database):
    terminal.now -= 94
    assert objections(terminal) == [
        ("the clock is 94 s behind the newest request", "set the clock: schedules, ids and signatures depend on it")
    ]


def test_a_file_that_is_no_database_is_found(terminal, database):
    database.write_bytes(b"text" * 5000)
    assert "file is not a database" in objections(terminal)[0][0]


def test_an_option_that_is_wrong_is_found(terminal, database):
    terminal.set(QUEUE_CONCURRENCY="many")
    ((text, action),) = objections(terminal)
    assert text.startswith("QUEUE_CONCURRENCY: ")
    assert action == "correct the option: the service does not start with it"
    terminal.set(QUEUE_CONCURRENCY="8", QUEUE_CONCURENCY="7", QUEUE_OUTBOUND_ALLOW="127.0.0.1:80")
    problem, warning = objections(terminal)
    assert problem[0].startswith("outbound_allow: ")
    assert warning[0].startswith("the environment variable QUEUE_CONCURENCY is not an option")


def test_options_that_open_the_service_are_found(terminal, database):
    terminal.set(QUEUE_PUBLIC_URL="", QUEUE_API_KEYS="", QUEUE_PATHS="", QUEUE_OUTBOUND_ALLOW="::/0, 0.0.0.0/0")
    status, out = terminal.run_any("doctor")
    assert status == 0
    assert terminal.error == "0 problems, 4 warnings\n"
    paths = "list the paths that may be queued: QUEUE_PATHS=/generate,…"
    for action in ("QUEUE_PUBLIC_URL=https://…", "QUEUE_API_KEYS=…, or authenticate=…", paths):
        assert f"    -> {action}\n" in out
    assert "outbound_allow contains 0.0.0.0/0 and ::/0" in out


def test_the_keys_are_looked_at(terminal, database):
    terminal.run("keys", "rotate", "--json")
    (key,) = terminal.json("keys", "list")
    assert (f"webhooks are signed with the key {key['kid']}", None) in findings(terminal)
    database.with_name(f"{database.name}.key").write_text("no key")
    assert any("queue.sqlite3.key" in text for text, _ in findings(terminal, level="problem"))
    terminal.set(QUEUE_SIGNING_KEY=str(database.with_name("missing")))
    assert any("there is no signing key" in text for text, _ in findings(terminal, level="problem"))
    terminal.set(QUEUE_SIGNING_KEY="a" * 64)
    assert any(text.startswith("webhooks are signed with the key ") for text, _ in findings(terminal))


APPLICATIONS = {
    "around": "app = QueueMiddleware(service, **options)",
    "attached": "QueueMiddleware.attach(service, **options); app = service",
    "added": "service.add_middleware(QueueMiddleware, **options); app = service",
}


def write_application(folder: Path, form: str, options: str) -> str:
    """A module with an application; its name."""
    name = f"served_{form}_{abs(hash(options))}"
    (folder / f"{name}.py").write_text(
        "from starlette.applications import Starlette\n"
        "from starlette.routing import Mount, Route\n"
        "from queue_middleware import QueueMiddleware\n"
        "async def f(request): ...\n"
        "async def login(connection): ...\n"
        "routes = [Route('/work', f), Mount('/v1', routes=[Route('/admin/keys', f)])]\n"
        f"service = Starlette(routes=routes)\noptions = dict({options})\n{APPLICATIONS[form]}\n"
    )
    return f"{name}:app"


@pytest.mark.parametrize("form", APPLICATIONS)
def test_the_application_is_looked_at(terminal, database, form, monkeypatch):
    for name in ("QUEUE_API_KEYS", "QUEUE_PATHS"):
        monkeypatch.delenv(name)
    terminal.set(QUEUE_TESTS_ISOLATION="0")
    app = write_application(database.parent, form, f"database={str(database)!r}, name='tests'")
    found = objections(terminal, "--app", app)
    assert (
        "clients need no key: all that reach the service can submit requests",
        "QUEUE_API_KEYS=…, or authenticate=…",
    ) in found
    assert any(text == "2 of 2 routes can be queued: /v1/admin/keys" for text, _ in found)
    app = write_application(
        database.parent, form, f"database={str(database)!r}, name='tests', authenticate=login, paths=['/work']"
    )
    assert objections(terminal, "--app", app) == []
    assert ("1 of 2 routes can be queued: /work", None) in findings(terminal, "--app", app)


def test_the_database_of_another_application_is_found(terminal, database):
    app = write_application(database.parent, "around", f"database={str(database)!r}, name='other'")
    assert any("belongs to the application 'tests'" in text for text, _ in objections(terminal, "--app", app))


def test_an_application_that_cannot_be_imported(terminal, database):
    (database.parent / "broken_application.py").write_text("1 / 0")
    for name, message in [
        ("main", "write a module and a name, e.g. main:app"),
        ("not_there:app", "ModuleNotFoundError"),
        ("broken_application:app", "ZeroDivisionError"),
        ("json:dumps", "has no queue"),
        ("json:nothing", "AttributeError"),
    ]:
        assert message in terminal.run("doctor", "--app", name, fails=True, code=2)
    app = write_application(database.parent, "around", "concurrency=0")
    assert "concurrency: 0 is below the minimum" in objections(terminal, "--app", app)[0][0]


def test_the_limit_of_the_log_is_that_of_the_connection() -> None:
    assert files.LARGEST_WAL is connection.LARGEST_WAL
