"""Which databases are replaced while pytest runs, and with which."""

from __future__ import annotations

import tempfile
from pathlib import Path

import pytest

from queue_middleware.testing.isolation import Isolation, isolation

FOLDER = Path("/tmp/queue-tests-x")


def of(root: str, here: str | None = None, basetemp: str | None = None) -> Isolation:
    return Isolation.of(FOLDER, root=Path(root), here=Path(here or root), basetemp=None if basetemp is None else Path(basetemp))


@pytest.mark.parametrize(
    ("run", "database", "replaced"),
    [
        (of("/home/me/shop"), "/home/me/shop/queue.sqlite3", True),
        (of("/home/me/shop"), "/home/me/shop/data/queue.sqlite3", True),
        (of("/home/me/shop", "/home/me/shop/tests"), "/home/me/shop/queue.sqlite3", True),
        (of("/home/me/shop"), "/var/lib/shop/queue.sqlite3", True),  # on this machine
        (of("/home/me/shop"), "/home/me/shopping/queue.sqlite3", True),
        (of("/home/me/shop"), "/tmp/pytest-of-me/pytest-0/test_x0/queue.sqlite3", False),
        (of("/home/me/shop"), f"{tempfile.gettempdir()}/tmpabc/queue.sqlite3", False),
        (of("/home/me/shop"), "/dev/shm/pytest-of-me/queue.sqlite3", False),
        (of("/home/me/shop", basetemp="/home/me/shop/.tmp"), "/home/me/shop/.tmp/test_x0/queue.sqlite3", False),
        (of("/home/me/shop", basetemp="/home/me/shop/.tmp"), "/home/me/shop/queue.sqlite3", True),
        (of("/tmp/build/shop"), "/tmp/build/shop/queue.sqlite3", True),  # a project in a temporary folder
        (of("/tmp/build/shop"), "/tmp/pytest-of-me/pytest-0/test_x0/queue.sqlite3", False),
        (of("/tmp"), "/tmp/queue.sqlite3", True),  # one test file in it
        (of("/tmp"), "/tmp/pytest-of-me/pytest-0/test_x0/queue.sqlite3", False),
        (of("/"), "/srv/queue.sqlite3", True),
        (of("/"), "/tmp/pytest-of-me/pytest-0/test_x0/queue.sqlite3", False),
        (of("/", "/srv"), "/srv/queue.sqlite3", True),
    ],
)
def test_files_of_the_project_and_of_the_machine_are_replaced(run: Isolation, database: str, replaced: bool) -> None:
    placed = run.place(Path(database), "shop")
    assert (placed != Path(database)) == replaced
    assert placed.parent == (FOLDER if replaced else Path(database).parent)


def test_each_queue_has_a_new_database_and_other_processes_share_it() -> None:
    run, child = of("/home/me/shop"), Isolation.read(of("/home/me/shop").written())
    database, other = Path("/home/me/shop/queue.sqlite3"), Path("/home/me/shop/other.sqlite3")
    order = [(database, "shop.main"), (database, "shop.main"), (other, "shop.main"), (database, "an admin's panel")]
    placed = [run.place(path, name) for path, name in order]
    assert len(set(placed)) == len(placed)
    assert [child.place(path, name) for path, name in order] == placed
    assert placed[0].name.startswith("shop.main-")
    assert placed[3].name.startswith("an-admin-s-panel-")


def test_the_variable_sets_the_database() -> None:
    run = of("/home/me/shop", basetemp="/home/me/shop/.tmp")
    read = isolation({"QUEUE_TESTS": run.written()})
    assert read == run
    assert isolation({"QUEUE_TESTS": run.written()}) is read  # the variable is set, so all queues share one database
    assert isolation({}) is None
