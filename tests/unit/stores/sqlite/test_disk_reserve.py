"""Disk that is kept back: made where there is plenty, given up where there is none."""

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


def test_it_is_made_once_and_takes_room_on_the_disk(database: Path, monkeypatch: pytest.MonkeyPatch) -> None:
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


def test_it_is_not_made_where_the_disk_is_not_watched_or_small(database: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    free(monkeypatch, 2**40)
    DiskReserve(database, wanted=False).create()
    free(monkeypatch, 2 * SIZE)
    DiskReserve(database, wanted=True).create()
    assert not list(database.parent.iterdir())


@pytest.mark.parametrize(("size", "left"), [(2**19, 0), (2**30, 1)])
def test_before_the_start_it_is_given_up_only_where_nothing_could_be_opened(
    database: Path, monkeypatch: pytest.MonkeyPatch, size: int, left: int
) -> None:
    free(monkeypatch, 2**40)
    reserve = DiskReserve(database, wanted=True)
    reserve.create()
    free(monkeypatch, size)
    reserve.delete_if_scarce()
    assert len(list(database.parent.iterdir())) == left


def test_a_folder_that_is_not_there_is_somebody_elses_trouble(tmp_path: Path) -> None:
    reserve = DiskReserve(tmp_path / "no" / "queue.sqlite3", wanted=True)
    reserve.delete_if_scarce()
    reserve.delete()
