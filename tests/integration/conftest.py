"""Fixtures of the integration tests."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from queue_middleware.runtime import maintenance
from queue_middleware.tasks.polling.schedule import next_poll_delay
from tests.support.database_template import create_empty_database


@pytest.fixture(autouse=True)
def brisk(monkeypatch: pytest.MonkeyPatch) -> None:
    """Run maintenance often, so that no test waits a second for a deadline that has passed."""
    monkeypatch.setattr(maintenance, "TICK", 0.05)


@pytest.fixture
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Remove the pause between two attempts of a job."""
    monkeypatch.setattr("queue_middleware.worker.completer.exponential", lambda attempt: 0.0)
    monkeypatch.setattr("queue_middleware.worker.completer.task_backoff", lambda kind, attempt: 0.0)


@pytest.fixture
def soon(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make polls due after a twentieth of their usual delay."""

    def shorter(*arguments: Any) -> float | None:
        delay = next_poll_delay(*arguments)
        return None if delay is None else delay / 20

    monkeypatch.setattr("queue_middleware.tasks.polling.schedule.next_poll_delay", shorter)
    monkeypatch.setattr("queue_middleware.tasks.polling.poller.next_poll_delay", shorter)


@pytest.fixture
def database(tmp_path: Path) -> Path:
    """The path of an empty queue database."""
    return create_empty_database(tmp_path / "queue.sqlite3")
