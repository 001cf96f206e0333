"""The counters in memory and those of the triggers always equal the numbers of counted rows."""

from __future__ import annotations

import asyncio
import contextlib
import random
import sqlite3
from collections import Counter
from contextlib import closing
from pathlib import Path

import pytest

from queue_middleware.errors import UnknownRequest
from queue_middleware.jobs.models import Claim, ErrorType, Failure, NewJob, SubmitResult
from queue_middleware.settings import Settings
from queue_middleware.stores.sqlite import SQLiteStore
from queue_middleware.tasks.models import CompletionSource
from tests.support.clock import ManualClock
from tests.support.factories import make_job, make_response, make_result, make_task, make_wait

LIMITS = {"max_queued": 30, "max_queued_per_client": 20, "max_tasks": 25, "max_tasks_per_client": 15}
CLIENTS = ("one", "other")


class _Life:
    def __init__(self, store: SQLiteStore, clock: ManualClock, seed: int) -> None:
        self.store, self.clock, self.random = store, clock, random.Random(seed)
        self.claims: list[Claim] = []
        self.ids: list[tuple[int, str]] = []

    def _new(self) -> NewJob:
        kind = self.random.randrange(4)
        new = make_job(client=self.random.choice(CLIENTS), start_timeout=self.random.choice((None, 20.0)))
        if kind == 0:
            return new
        due_at = self.clock.now + self.random.choice((-1000, 5000, 60_000)) if kind == 1 else None
        return new.replace(task=make_task(listed=kind != 2), due_at=due_at)

    async def step(self) -> None:
        store, choose = self.store, self.random
        match choose.randrange(7):
            case 0 | 1:
                await self._submit()
            case 2:
                self.claims += await store.claim(choose.randrange(1, 6))
            case 3 | 4:
                choose.shuffle(self.claims)
                for _ in range(min(4, len(self.claims))):
                    await self._settle(self.claims.pop())
            case 5:
                for key, request_id in choose.sample(self.ids, min(4, len(self.ids))):
                    with contextlib.suppress(UnknownRequest):
                        await (store.cancel(request_id) if choose.random() < 0.5 else self._resolve(key))
            case 6:
                self.clock.advance(choose.choice((0.01, 6, 25, 70)))
                await store.expire()
                await store.tasks.time_out()
                await asyncio.to_thread(store.renew, ())
                await store.rescue()
                await store.prune(5)

    async def _submit(self) -> None:
        submissions = [
            self.store.submit(self._new(), start=self.random.random() < 0.3) for _ in range(self.random.randrange(1, 8))
        ]
        for receipt in await asyncio.gather(*submissions, return_exceptions=True):
            if isinstance(receipt, SubmitResult):
                self.ids.append(((await self.store.job(receipt.request_id)).key, receipt.request_id))
                self.claims += [receipt.claim] if receipt.claim else []

    async def _resolve(self, key: int) -> None:
        await self.store.tasks.resolve(key, CompletionSource.CALLBACK, make_result())

    async def _settle(self, claim: Claim) -> None:
        store, task = self.store, claim.task
        match self.random.randrange(4):
            case 0:
                await store.release(claim)
            case 1:
                await store.retry(claim, self.random.choice((0.0, 5.0, 3600.0)))
            case 2 if task is None:
                await store.complete(claim, make_response())
            case 3 if task is None:
                asked = make_task(listed=False)
                await store.tasks.register_callback(claim, asked)
                await store.tasks.complete_attempt(claim, asked, make_response(), self.random.choice((None, make_wait())))
            case _:
                assert task is not None
                outcome = self.random.choice((make_response(), Failure(ErrorType.RUNNER_SERVER_ERROR, "no")))
                await store.tasks.complete_attempt(claim, task, outcome, self.random.choice((None, make_wait())))


def _counted(connection: sqlite3.Connection) -> dict[str, Counter[str]]:
    """Count every row."""
    found: dict[str, Counter[str]] = {"queued": Counter(), "delayed": Counter(), "scheduled": Counter(), "task": Counter()}
    for state, attempt, client, task, ended in connection.execute("SELECT state, attempt, client, task, finished_at FROM job"):
        kind = "scheduled" if state == "delayed" and attempt == 0 else state
        if kind in found:
            found[kind][client] += 1
        if task and ended is None:
            found["task"][client] += 1
    return found


@pytest.mark.parametrize("seed", range(4))
async def test_counters_equal_the_counted_rows(tmp_path: Path, seed: int) -> None:
    clock = ManualClock()
    options = {"database": str(tmp_path / "queue.sqlite3"), "min_free_disk": 0, "retention": 60, **LIMITS}
    store = SQLiteStore(Settings.load(options, {}), clock)
    await store.open()
    life = _Life(store, clock, seed)
    with closing(sqlite3.connect(f"file:{store.path}?mode=ro", uri=True)) as connection:
        for _ in range(150):
            await life.step()
            found = _counted(connection)
            rows = connection.execute("SELECT state, sum(jobs) FROM backlog WHERE level = 4 GROUP BY state").fetchall()
            assert dict(rows) == {kind: clients.total() for kind, clients in found.items() if clients}
            assert dict(connection.execute("SELECT * FROM backlog_client")) == found["queued"] + found["delayed"]
            assert dict(connection.execute("SELECT * FROM unfinished_tasks")) == found["task"]
            counters = store._counters
            if counters.version >= 0:  # otherwise it is counted again before it is used
                assert counters.queued.total() == found["queued"].total()
                assert (counters.delayed, counters.scheduled) == (found["delayed"].total(), found["scheduled"].total())
                assert counters.tasks == found["task"].total()
                assert all(found["task"][client] == count for client, count in counters.task_clients.items())
                assert all((found["queued"] + found["delayed"])[one] == count for one, count in counters.clients.items())
    await store.close()
