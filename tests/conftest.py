"""Configuration of all tests."""

from __future__ import annotations

import gc
import os
import shutil
import sys
import tempfile
from pathlib import Path

import pytest
from hypothesis import settings

os.environ["QUEUE_NAME"] = "tests"  # several test applications act as processes of one

settings.register_profile("no-deadline", deadline=None)  # an example may take long on a busy machine
settings.load_profile("no-deadline")

_MEMORY = Path("/dev/shm")
_MIN_FREE = 2**30

COURSES = ("plain", "unusual")
"""How a job runs: with the shortcuts for common ones, and without any. `tests/support/courses.py` lists the shortcuts."""


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--course", choices=COURSES, default="plain", help="how jobs run in tests without the fixture `course`")


def pytest_configure(config: pytest.Config) -> None:
    """Keep the files of the quick part in memory if there is space: it creates thousands of queues that wait for the disk.

    No quick test depends on it, because only a power cut makes a difference. The complete suite uses a disk, as users do.
    """
    if config.option.markexpr == "not slow" and _MEMORY.is_dir() and shutil.disk_usage(_MEMORY).free > _MIN_FREE:
        os.environ.setdefault("PYTEST_DEBUG_TEMPROOT", str(_MEMORY))
    if sys.dont_write_bytecode and sys.pycache_prefix is None and config.pluginmanager.has_plugin("cacheprovider"):
        _keep_bytecode(config.cache.mkdir("bytecode"))
    if config.option.course == "unusual":
        config.pluginmanager.register(_UnusualCourse())


def _keep_bytecode(folder: Path) -> None:
    """Keep bytecode in pytest's cache if the environment allows none beside the sources.

    Otherwise each worker of pytest-xdist, and each process that a test starts, compiles all modules again.
    """
    for root in (tempfile.gettempdir(), str(_MEMORY)):
        for left in folder.joinpath(root.lstrip("/")).glob("pytest-of-*"):  # of modules that earlier runs wrote
            shutil.rmtree(left, ignore_errors=True)
    sys.dont_write_bytecode, sys.pycache_prefix = False, str(folder)
    os.environ["PYTHONPYCACHEPREFIX"] = str(folder)
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)


def pytest_collection_finish() -> None:
    """Exclude imported modules from garbage collection: they stay until the end."""
    gc.collect()
    gc.freeze()


@pytest.fixture(scope="session")
def anyio_backend() -> str:
    """asyncio only, because aiosqlite and the tested frameworks use it."""
    return "asyncio"


@pytest.fixture(params=COURSES)
def course(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Run the test with each course. What a client, an observer and the application see must be the same."""
    if request.param == "unusual":
        _take_unusual_course(monkeypatch)
    return str(request.param)


class _UnusualCourse:
    """Runs all other tests with the unusual course: `pytest --course unusual`."""

    @pytest.fixture(autouse=True)
    def _unless_the_test_has_a_course(self, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
        if "course" not in request.fixturenames:
            _take_unusual_course(monkeypatch)


def _take_unusual_course(monkeypatch: pytest.MonkeyPatch) -> None:
    from tests.support.courses import take_unusual_course  # it imports the package, which most runs of few tests do not need

    take_unusual_course(monkeypatch)
