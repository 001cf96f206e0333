"""What every test shares."""

from __future__ import annotations

import gc
import os
import shutil
from pathlib import Path

import pytest

os.environ["QUEUE_NAME"] = "tests"  # tests play several processes of one application, with applications of several modules

_MEMORY = Path("/dev/shm")
_ROOM = 2**30


def pytest_configure(config: pytest.Config) -> None:
    """The quick part keeps its files in memory where there is room: thousands of queues, each of which waits for the disk.

    Nothing in it could tell the difference, which takes a power cut. The whole suite keeps them where users do, on a disk.
    """
    if config.option.markexpr == "not slow" and _MEMORY.is_dir() and shutil.disk_usage(_MEMORY).free > _ROOM:
        os.environ.setdefault("PYTEST_DEBUG_TEMPROOT", str(_MEMORY))


def pytest_collection_finish() -> None:
    """What was imported stays to the end: the garbage collector need not look through it again and again."""
    gc.collect()
    gc.freeze()


@pytest.fixture(scope="session")
def anyio_backend() -> str:
    """asyncio only: aiosqlite and the frameworks under test are at home there."""
    return "asyncio"
