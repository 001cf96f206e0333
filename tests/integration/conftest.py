"""What the integration tests share."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from queue_middleware import maintenance
from queue_middleware.cadence import next_question
from tests.blank import lay_blank


@pytest.fixture(autouse=True)
def brisk(monkeypatch: pytest.MonkeyPatch) -> None:
    """Maintenance runs so often that no test waits a second for a deadline that has passed."""
    monkeypatch.setattr(maintenance, "TICK", 0.05)


@pytest.fixture
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """There is no pause between two attempts at a request."""
    monkeypatch.setattr("queue_middleware.account.exponential", lambda attempt: 0.0)
    monkeypatch.setattr("queue_middleware.account.grown", lambda kind, attempt: 0.0)


@pytest.fixture
def soon(monkeypatch: pytest.MonkeyPatch) -> None:
    """A provider is asked again after a twentieth of the time for which he is to be left alone."""

    def sooner(*arguments: Any) -> float | None:
        wait = next_question(*arguments)
        return None if wait is None else wait / 20

    monkeypatch.setattr("queue_middleware.cadence.next_question", sooner)
    monkeypatch.setattr("queue_middleware.poller.next_question", sooner)


@pytest.fixture
def database(tmp_path: Path) -> Path:
    """The file of a test's queue; nobody has used it yet."""
    return lay_blank(tmp_path / "queue.sqlite3")
