"""A database belongs to one application, and nothing in it is changed for another one."""

from __future__ import annotations

import hashlib
import sqlite3
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path

import pytest

from queue_middleware.errors import StoreError
from queue_middleware.stores.sqlite.files import Files
from tests.support.database_template import lay_blank


def opened(path: Path, name: str | None, owner: str = "one") -> None:
    Files(path, owner, name).close()


def stored_name(path: Path) -> str | None:
    with closing(sqlite3.connect(path)) as connection:
        row = connection.execute("SELECT name FROM application").fetchone()
    return None if row is None else row[0]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return lay_blank(tmp_path / "queue.sqlite3")


def test_the_first_application_owns_the_database_and_the_second_is_refused(path: Path) -> None:
    opened(path, "shop.main")
    opened(path, "shop.main")
    with pytest.raises(StoreError) as refusal:
        opened(path, "admin panel")
    told = refusal.value.detail
    assert f"the database {path} belongs to the application 'shop.main', and this is the application 'admin panel'" in told
    assert "database='admin-panel.sqlite3' or QUEUE_DATABASE=admin-panel.sqlite3" in told
    assert "name='shop.main' or QUEUE_NAME=shop.main" in told
    assert stored_name(path) == "shop.main"


def test_without_a_name_every_database_is_opened_and_no_name_is_stored(path: Path) -> None:
    opened(path, None)
    assert stored_name(path) is None
    opened(path, "shop")
    opened(path, None)
    assert stored_name(path) == "shop"


def test_of_concurrent_applications_one_owns_the_database(tmp_path: Path) -> None:
    names = [f"service-{number}" for number in range(8)]
    for attempt in range(5):
        path = tmp_path / f"{attempt}.sqlite3"
        together = threading.Barrier(len(names))

        def come(name: str, path: Path = path, together: threading.Barrier = together) -> str:
            together.wait(10)
            try:
                opened(path, name, name)
            except StoreError as refusal:
                return refusal.detail
            return ""

        with ThreadPoolExecutor(len(names)) as pool:
            told = dict(zip(names, pool.map(come, names), strict=True))
        (winner,) = [name for name, text in told.items() if not text]
        assert stored_name(path) == winner
        assert all(f"belongs to the application {winner!r}" in text for name, text in told.items() if name != winner)


def test_a_refused_application_changes_nothing_not_even_the_schema(path: Path) -> None:
    opened(path, "shop")
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.execute("PRAGMA user_version = 0")  # it would be migrated
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    before = hashlib.sha256(path.read_bytes()).digest()
    with pytest.raises(StoreError, match="belongs to the application"):
        opened(path, "admin")
    assert hashlib.sha256(path.read_bytes()).digest() == before
    assert not list(path.parent.glob("*.alive-*"))


def test_the_database_of_another_program_is_not_changed(tmp_path: Path) -> None:
    path = tmp_path / "db.sqlite3"
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("CREATE TABLE auth_user (id INTEGER PRIMARY KEY)")
        connection.commit()
    before = path.read_bytes()
    with pytest.raises(StoreError, match=f"{path} is the database of another program"):
        opened(path, "shop")
    assert path.read_bytes() == before


def test_a_hard_link_is_refused(path: Path) -> None:
    other = path.with_name("other.sqlite3")
    other.hardlink_to(path)
    for name in (path, other):
        with pytest.raises(StoreError, match=f"the database {name} has another name, a hard link"):
            opened(name, "shop")
    other.unlink()
    opened(path, "shop")


def test_a_missing_folder_is_not_created(tmp_path: Path) -> None:
    path = tmp_path / "typo" / "queue.sqlite3"
    with pytest.raises(StoreError, match=f"its folder is missing; correct the option database, or run: mkdir -p {path.parent}"):
        opened(path, "shop")
    assert list(tmp_path.iterdir()) == []


def test_one_of_several_processes_reports_for_the_file(path: Path) -> None:
    first, second, third = (Files(path, owner, "shop") for owner in ("z", "a", "m"))
    assert [files.is_first for files in (first, second, third)] == [True, False, False]
    assert [files.liveness.is_oldest() for files in (first, second, third)] == [True, False, False]
    first.close()
    assert [files.liveness.is_oldest() for files in (second, third)] == [True, False]
    second.close(leave_liveness_lock=True)  # as if it had died
    assert third.liveness.is_oldest()
    third.close()
    again = Files(path, "z", "shop")
    assert again.is_first
    again.close()
