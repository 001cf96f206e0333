"""What the integration tests share."""

from __future__ import annotations

from pathlib import Path

import pytest


@pytest.fixture
def database(tmp_path: Path) -> Path:
    """Where a test's queue may live; nothing is there yet."""
    return tmp_path / "queue.sqlite3"
