"""An empty queue database, created once by the store itself and copied for each test that starts a queue.

Creating one takes longer than most tests, and `unit/stores/sqlite` tests it. A queue starts on the copy as after a restart.
"""

from __future__ import annotations

from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory

from queue_middleware.stores.sqlite.files import Files


@cache
def _blank() -> bytes:
    with TemporaryDirectory() as folder:
        path = Path(folder) / "queue.sqlite3"
        Files(path, "template").close()
        return path.read_bytes()


def create_empty_database(path: Path) -> Path:
    """Write an empty database to `path`."""
    path.touch(0o600)
    path.write_bytes(_blank())
    return path
