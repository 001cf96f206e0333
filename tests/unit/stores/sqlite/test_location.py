"""A file has one path whatever links lead to it, and the path is known when the queue is created."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from queue_middleware.errors import SettingsError, StoreError
from queue_middleware.stores.sqlite.location import database_path


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A real path, because the path of the tests may contain links."""
    return Path(os.path.realpath(tmp_path))


def linked(place: Path, target: str | Path) -> Path:
    place.parent.mkdir(parents=True, exist_ok=True)
    place.symlink_to(target)
    return place


def test_links_anywhere_in_the_path_are_resolved(folder: Path) -> None:
    real = folder / "shared" / "queue.sqlite3"
    real.parent.mkdir()
    real.touch()
    linked(folder / "release1", "shared")
    linked(folder / "release2" / "queue.sqlite3", "../shared/queue.sqlite3")
    linked(folder / "release3" / "queue.sqlite3", folder / "release2" / "queue.sqlite3")
    linked(folder / "current", folder / "release3")
    for name in ("release1", "release2", "release3", "current"):
        assert database_path(str(folder / name / "queue.sqlite3")) == real
        assert database_path(f"sqlite:///{folder / name / 'queue.sqlite3'}") == real


def test_the_path_equals_that_of_realpath(folder: Path) -> None:
    (folder / "a" / "b").mkdir(parents=True)
    linked(folder / "link", "a/b")
    linked(folder / "up", "link/..")
    for text in ("link/../q", "up/q", "./a/./b//q", "a/b/../../link/q", "link/missing/../q", "up/link/q", "a/nothing/q"):
        assert str(database_path(str(folder / text))) == os.path.realpath(folder / text)


def test_a_link_to_a_missing_file_names_that_file(folder: Path) -> None:
    linked(folder / "queue.sqlite3", "data/real.sqlite3")
    assert database_path(str(folder / "queue.sqlite3")) == folder / "data" / "real.sqlite3"


def test_links_in_a_circle_are_refused(folder: Path) -> None:
    linked(folder / "one", "two")
    linked(folder / "two", "one")
    with pytest.raises(SettingsError, match="lead in a circle"):
        database_path(str(folder / "one"))


def test_a_relative_path_is_below_the_working_directory(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder)
    for text in ("q.sqlite3", "./q.sqlite3", "sqlite:///q.sqlite3", "sqlite:///./q.sqlite3"):
        assert database_path(text) == folder / "q.sqlite3"


def test_the_home_folder(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(folder))
    assert database_path("~/q.sqlite3") == database_path("sqlite:///~/q.sqlite3") == folder / "q.sqlite3"
    with pytest.raises(SettingsError, match="the home folder in '~no-such-user-here/q' is not known"):
        database_path("~no-such-user-here/q")


def test_a_folder_is_refused(folder: Path) -> None:
    linked(folder / "link", folder)
    for path in (folder, folder / "link"):
        with pytest.raises(SettingsError, match=f"{folder} is a folder; write the path of a file, e.g. {folder}/queue.sqlite3"):
            database_path(str(path))


def test_values_that_the_option_refuses_are_refused_here_too() -> None:
    with pytest.raises(StoreError, match="is not the path of a file"):
        database_path(":memory:")
