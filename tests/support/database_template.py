"""The file of a queue that nobody has used yet: made once, by the store itself, and laid wherever a test starts a queue.

Making one costs more than most tests, and how it is made is tested for itself (`unit/stores/sqlite`). The queue starts on it
as after a restart.
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
        Files(path, "nobody").close()
        return path.read_bytes()


def lay_blank(path: Path) -> Path:
    """Put one there."""
    path.touch(0o600)
    path.write_bytes(_blank())
    return path
