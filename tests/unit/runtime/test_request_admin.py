"""Acts on many requests while the database fails."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest

from queue_middleware.errors import StoreBusy
from queue_middleware.events import Operated
from queue_middleware.jobs.acts import ActReport
from queue_middleware.jobs.audit import Action
from queue_middleware.jobs.job_detail import KeptRequest
from queue_middleware.jobs.job_list import JobFilter, JobPage, ListedJob, ListPosition
from queue_middleware.jobs.models import JobState, NewJob
from queue_middleware.runtime import request_admin
from queue_middleware.runtime.request_admin import RequestAdmin
from queue_middleware.tasks.secret_ids import SecretIds
from tests.support.doubles import EventRecorder
from tests.support.factories import make_job, make_job_view


class FailingStore:
    """Lists five requests, and carries out `successes` writes. It stands for both ports."""

    def __init__(self, successes: int) -> None:
        self.successes = successes

    async def page(self, wanted: JobFilter, after: ListPosition | None, limit: int) -> JobPage:
        (state,) = wanted.states
        jobs = [ListedJob(make_job_view(state, key=key, request_id=f"request {key}"), "POST", "/a") for key in range(5)]
        return JobPage(jobs, None)

    def write(self) -> None:
        if not self.successes:
            raise StoreBusy("the queue's database does not respond", 5)
        self.successes -= 1

    async def cancel_many(self, keys: Sequence[int], operator: str, target: str) -> dict[int, JobState]:
        self.write()
        return dict.fromkeys(keys, JobState.CANCELLED)

    async def run_now(self, keys: Sequence[int], operator: str, target: str) -> list[int]:
        self.write()
        return list(keys)

    async def kept_request(self, request_id: str) -> KeptRequest:
        return KeptRequest(make_job(), None)

    async def copy(self, originals: Sequence[tuple[str, NewJob]], operator: str, target: str) -> list[str]:
        self.write()
        return [f"copy of {request_id}" for request_id, _ in originals]


ACTS: list[tuple[JobState, Any, Action]] = [
    (JobState.QUEUED, RequestAdmin.cancel_selected, Action.CANCEL),
    (JobState.DELAYED, RequestAdmin.run_selected_now, Action.RUN_NOW),
    (JobState.FAILED, RequestAdmin.replay_selected, Action.REPLAY),
]


@pytest.mark.parametrize(("state", "act", "action"), ACTS)
async def test_an_act_that_the_database_interrupts_reports_what_was_done(
    state: JobState, act: Any, action: Action, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(request_admin, "_BATCH", 2)
    monkeypatch.setattr(request_admin, "_COPIES", 2)
    recorder = EventRecorder()
    store: Any = FailingStore(1)
    wanted = JobFilter(frozenset({state}))
    admin = RequestAdmin(store, store, SecretIds([b"secret"]), recorder.on_event)
    report: ActReport = await act(admin, wanted, "carol", 5)
    assert (report.selected, report.done, report.left_out) == (5, 2, {"StoreBusy": 3})
    assert isinstance(report.ended_by, StoreBusy)
    assert len(report.copies) == (2 if action is Action.REPLAY else 0)
    (done,) = [event for event in recorder.events if isinstance(event, Operated)]
    assert (done.action, done.count) == (action, 2)
    with pytest.raises(StoreBusy):
        await act(admin, wanted, "carol", 5)
