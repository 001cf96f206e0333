"""The reserve file: created on a large disk, deleted when space is scarce."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import NamedTuple

import pytest

from queue_middleware.stores.sqlite.disk_reserve import SIZE, DiskReserve


class Usage(NamedTuple):
    total: int
    used: int
    free: int


@pytest.fixture
def database(tmp_path: Path) -> Path:
    return tmp_path / "queue.sqlite3"


def free(monkeypatch: pytest.MonkeyPatch, size: int) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda _: Usage(10 * size, 9 * size, size))


def test_the_reserve_is_created_once_and_occupies_space(database: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    free(monkeypatch, 2**40)
    reserve = DiskReserve(database, wanted=True)
    for _ in range(2):
        reserve.create()
    (file,) = database.parent.iterdir()
    assert (file.name, file.stat().st_size, file.stat().st_mode & 0o777) == ("queue.sqlite3.reserve", SIZE, 0o600)
    assert file.stat().st_blocks * 512 >= SIZE
    for _ in range(2):
        reserve.delete()
    assert not file.exists()


def test_the_reserve_is_not_created_on_a_small_or_unwatched_disk(database: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    free(monkeypatch, 2**40)
    DiskReserve(database, wanted=False).create()
    free(monkeypatch, 2 * SIZE)
    DiskReserve(database, wanted=True).create()
    assert not list(database.parent.iterdir())


@pytest.mark.parametrize(("size", "left"), [(2**19, 0), (2**30, 1)])
def test_at_start_the_reserve_is_deleted_only_if_space_is_scarce(
    database: Path, monkeypatch: pytest.MonkeyPatch, size: int, left: int
) -> None:
    free(monkeypatch, 2**40)
    reserve = DiskReserve(database, wanted=True)
    reserve.create()
    free(monkeypatch, size)
    reserve.delete_if_scarce()
    assert len(list(database.parent.iterdir())) == left


def test_a_missing_folder_is_ignored(tmp_path: Path) -> None:
    reserve = DiskReserve(tmp_path / "no" / "queue.sqlite3", wanted=True)
    reserve.delete_if_scarce()
    reserve.delete()
