"""Polls on SQLite; the behavior of every store is tested in tests/conformance."""

from __future__ import annotations

from pathlib import Path

import pytest

from queue_middleware.jobs.store import JobStore
from queue_middleware.jobs.task_spec import PollConfig
from queue_middleware.settings import Settings
from queue_middleware.stores.common import polls
from queue_middleware.stores.sqlite import SQLiteStore
from queue_middleware.tasks.models import PollCapacity
from tests.support.clock import ManualClock
from tests.support.factories import a_job, a_task, a_wait, an_answer


async def waiting(store: JobStore, host: str) -> int:
    poll = PollConfig(f"https://{host}/x", "status", ("done",), ())
    receipt = await store.submit(a_job(task=a_task(poll=poll)), start=True)
    assert receipt.claim is not None
    assert receipt.claim.task is not None
    await store.tasks.complete_attempt(receipt.claim, receipt.claim.task, an_answer(), a_wait(600.0, poll_in=5.0))
    return receipt.claim.key


async def test_a_host_with_more_due_polls_than_a_claim_reads_hides_no_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(polls, "_MAX_DUE", 4)
    clock = ManualClock()
    store = SQLiteStore(Settings(database=str(tmp_path / "queue.sqlite3"), min_free_disk=0), clock, clock.boot)
    await store.open()
    slow = [await waiting(store, "slow.test") for _ in range(10)]
    other = await waiting(store, "other.test")
    clock.advance(5)
    places = PollCapacity(3, unproven=3, per_host=2, busy={"https://slow.test:443": 2})
    for _ in range(10):
        claimed = await store.tasks.claim_polls(places)
        if claimed.polls:
            break
        assert claimed.next_in == 0.0, "others stand behind those that were looked at"
    assert [poll.key for poll in claimed.polls] == [other]
    claimed = await store.tasks.claim_polls(PollCapacity(2, unproven=2, per_host=2))
    assert {poll.key for poll in claimed.polls} < set(slow), "some stayed, for places that become free"
    clock.advance(15)
    claimed = await store.tasks.claim_polls(PollCapacity(20, unproven=20, per_host=20))
    assert len(claimed.polls) == 4, "those that were put off are due again"
    await store.close()
