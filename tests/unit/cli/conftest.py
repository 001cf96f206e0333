"""An operator's terminal, and queues to operate."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

import jsonschema_rs
import pytest

from queue_middleware.cli import main
from queue_middleware.cli.schemas import schemas
from queue_middleware.settings import Settings
from queue_middleware.stores import Stores, open_stores

NOW = 1_800_000_000.0  # 2027-01-15T08:00:00Z
T = TypeVar("T")


class OperatorTerminal:
    """An operator's terminal: environment, clock and output."""

    def __init__(self, folder, monkeypatch, capsys) -> None:
        self.now = NOW
        self.database = folder / "queue.sqlite3"
        self.error = ""
        """What the last command has printed on standard error."""
        self._environment, self._capsys = monkeypatch, capsys
        for name in ("QUEUE_DATABASE", "QUEUE_SIGNING_KEY", "NO_COLOR", "FORCE_COLOR"):
            monkeypatch.delenv(name, raising=False)
        monkeypatch.chdir(folder)

    def set(self, **variables: str) -> None:
        for name, value in variables.items():
            self._environment.setenv(name, value)

    def run(self, *arguments: str, fails: bool = False, code: int = 1) -> str:
        """Run a command and return its output, or its error output if it is expected to fail."""
        status, out = self.run_any(*arguments)
        assert status == (code if fails else 0)
        assert (self.error if not fails else out) == ""
        return self.error if fails else out

    def run_any(self, *arguments: str) -> tuple[int, str]:
        """Run a command and return its exit status and its output."""
        status = main(arguments, clock=lambda: self.now)
        out, self.error = self._capsys.readouterr()
        return status, out

    def json(self, *arguments: str) -> Any:
        """Run a command with `--json` and return its document, which must be as its published schema says."""
        document = json.loads(self.run_any(*arguments, "--json")[1])
        published = schemas()
        (schema,) = [published[one] for one in {arguments[0], " ".join(arguments[:2])} if one in published]
        jsonschema_rs.validate(schema, document)
        return document

    def in_queue(self, work: Callable[[Stores], Coroutine[Any, Any, T]], **options: Any) -> T:
        """Do something as a service on the database, which ends after it. Its time is `now`."""

        async def run() -> T:
            settings = Settings.load({"database": str(self.database), **options})
            stores = open_stores(settings, clock=lambda: round(self.now * 1000), lease_clock=lambda: round(self.now * 1000))
            await stores.database.open()
            try:
                return await work(stores)
            finally:
                await stores.database.close()

        return asyncio.run(run())


@pytest.fixture
def terminal(tmp_path, monkeypatch, capsys) -> OperatorTerminal:
    return OperatorTerminal(tmp_path, monkeypatch, capsys)
