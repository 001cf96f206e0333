"""Lists of jobs for the operator: each page is what a plain filter over all jobs gives, with bounded work."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest

from queue_middleware.jobs.job_list import JobFilter, JobPage, ListedJob
from queue_middleware.jobs.models import ErrorType, Failure, JobState, NewJob, RetryPolicy
from queue_middleware.jobs.outcomes import CANCELLED
from queue_middleware.jobs.routes import OTHER
from queue_middleware.jobs.store import JobStore
from queue_middleware.stores.common import job_list
from tests.conformance.conftest import Stores
from tests.support.clock import ManualClock
from tests.support.factories import make_job, make_response

LOST = Failure(ErrorType.RUNNER_DISCONNECTED, "lost")


async def fill(store: JobStore, clock: ManualClock) -> int:
    """Jobs in every state that a plain request can reach, of three routes and two clients; how many."""
    count = 0
    for number in range(36):
        route = (OTHER, "/work", "/items/{id}")[number % 3]
        client = ("192.0.2.7", "id:alice")[number % 2]
        new = make_job(route=route, client=client, priority=5 + number % 2)
        await put(store, number % 6, new, status=(200, 404, 500, 503)[number // 6 % 4])
        count += 1
        clock.advance(1.0)
    return count


async def put(store: JobStore, kind: int, new: NewJob, status: int = 200) -> None:
    """One more job, in a state by its kind. Those that wait are submitted without a start, and stay."""
    if kind == 0:
        await store.submit(new)
        return
    if kind == 1:
        assert await store.cancel((await store.submit(new)).request_id)
        return
    await store.submit(new.replace(priority=0))
    (claim,) = await store.claim(1)
    if kind == 2:
        assert await store.complete(claim, make_response(status=status))
    elif kind == 3:
        assert await store.fail(claim, LOST)
    elif kind == 4:
        assert await store.retry(claim, 3600)


async def everything(store: JobStore, wanted: JobFilter, limit: int = 500) -> list[ListedJob]:
    """All pages of a list."""
    jobs: list[ListedJob] = []
    page = JobPage([], None)
    for _ in range(100):
        page = await store.page(wanted, page.next, limit)
        assert len(page.jobs) <= limit
        jobs += page.jobs
        if page.next is None:
            return jobs
    raise AssertionError("the list does not end")


FILTERS: dict[str, tuple[JobFilter, Callable[[ListedJob], bool]]] = {
    "all": (JobFilter(), lambda one: True),
    "queued": (JobFilter(frozenset({JobState.QUEUED})), lambda one: one.job.state is JobState.QUEUED),
    "running": (JobFilter(frozenset({JobState.RUNNING})), lambda one: one.job.state is JobState.RUNNING),
    "completed": (JobFilter(frozenset({JobState.COMPLETED})), lambda one: one.job.state is JobState.COMPLETED),
    "state failed": (JobFilter(frozenset({JobState.FAILED})), lambda one: one.job.state is JobState.FAILED),
    "delayed or cancelled": (
        JobFilter(frozenset({JobState.DELAYED, JobState.CANCELLED})),
        lambda one: one.job.state in (JobState.DELAYED, JobState.CANCELLED),
    ),
    "completed or queued": (
        JobFilter(frozenset({JobState.COMPLETED, JobState.QUEUED})),
        lambda one: one.job.state in (JobState.COMPLETED, JobState.QUEUED),
    ),
    "route": (JobFilter(route="/work"), lambda one: one.route == "/work"),
    "other": (JobFilter(route=OTHER), lambda one: one.route == OTHER),
    "client": (JobFilter(client="id:alice"), lambda one: one.job.client == "id:alice"),
    "error": (
        JobFilter(error_type=ErrorType.RUNNER_DISCONNECTED),
        lambda one: one.job.failure is not None and one.job.failure.error_type is LOST.error_type,
    ),
    "cancelled by the client": (
        JobFilter(error_type=CANCELLED.error_type),
        lambda one: one.job.failure is not None and one.job.failure.error_type is CANCELLED.error_type,
    ),
    "queued of a client on a route": (
        JobFilter(frozenset({JobState.QUEUED}), "/work", "192.0.2.7"),
        lambda one: (one.job.state, one.route, one.job.client) == (JobState.QUEUED, "/work", "192.0.2.7"),
    ),
    "failed": (
        JobFilter(failed_only=True),
        lambda one: one.job.state is JobState.FAILED or (one.job.status or 0) >= 500,
    ),
    "failed with a response, of a client": (
        JobFilter(frozenset({JobState.COMPLETED}), client="192.0.2.7", failed_only=True),
        lambda one: (one.job.status or 0) >= 500 and one.job.client == "192.0.2.7",
    ),
    "failed with an error": (
        JobFilter(error_type=LOST.error_type, failed_only=True),
        lambda one: one.job.state is JobState.FAILED,
    ),
    "failed and queued": (JobFilter(frozenset({JobState.QUEUED}), failed_only=True), lambda one: False),
    "a status from 500": (JobFilter(statuses=frozenset({503})), lambda one: one.job.status == 503),
    "two statuses": (JobFilter(statuses=frozenset({404, 503})), lambda one: one.job.status in (404, 503)),
    "a status and a state": (JobFilter(frozenset({JobState.FAILED}), statuses=frozenset({404})), lambda one: False),
    "no such route": (JobFilter(route="/nowhere"), lambda one: False),
    "completed with an error": (
        JobFilter(frozenset({JobState.COMPLETED}), error_type=ErrorType.REQUEST_TIMEOUT),
        lambda one: False,
    ),
}


async def test_a_list_is_what_its_filter_selects(store: JobStore, clock: ManualClock) -> None:
    count = await fill(store, clock)
    whole = await everything(store, JobFilter())
    assert len(whole) == count
    assert [one.job.key for one in whole] == sorted((one.job.key for one in whole), reverse=True)
    assert {one.job.state for one in whole} == set(JobState) - {JobState.AWAITING}
    for limit in (1, 4, 500):
        for name, (wanted, is_selected) in FILTERS.items():
            selected = [one for one in whole if is_selected(one)]
            assert await everything(store, wanted, limit) == selected, f"{name}, pages of {limit}"


async def test_pages_examine_a_bounded_number_of_jobs(
    store: JobStore, clock: ManualClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    await fill(store, clock)
    expected = {name: await everything(store, wanted) for name, (wanted, _) in FILTERS.items()}
    monkeypatch.setattr(job_list, "_SLICE", 5)
    monkeypatch.setattr(job_list, "_INDEXED_SLICE", 5)
    assert {name: await everything(store, wanted, 2) for name, (wanted, _) in FILTERS.items()} == expected


async def test_a_list_ends_after_the_newest_jobs(store: JobStore, clock: ManualClock, monkeypatch: pytest.MonkeyPatch) -> None:
    await fill(store, clock)
    newest = [one for one in await everything(store, JobFilter()) if one.route == "/work"]
    monkeypatch.setattr(job_list, "MAX_EXAMINED", 12)
    monkeypatch.setattr(job_list, "_SLICE", 5)
    assert await everything(store, JobFilter(route="/work")) == newest[:4]


async def test_a_list_of_a_period(store: JobStore, clock: ManualClock) -> None:
    await fill(store, clock)
    whole = await everything(store, JobFilter())
    since, until = whole[20].job.created_at, whole[10].job.created_at
    assert await everything(store, JobFilter(since=since, until=until), 3) == whole[11:21]


async def test_the_method_and_the_route_are_listed(store: JobStore) -> None:
    new = make_job(route="/items/{id}")
    await store.submit(new.replace(request=new.request.replace(method="PUT")))
    await store.submit(new.replace(request=new.request.replace(method="BREW")))
    await store.submit(make_job())
    assert [(one.method, one.route) for one in (await store.page(JobFilter())).jobs] == [
        ("", OTHER),
        ("", OTHER),
        ("PUT", "/items/{id}"),
    ]


async def test_a_claim_knows_its_route_in_any_process(stores: Stores) -> None:
    one, other = await stores.open(), await stores.open()
    receipt = await one.submit(make_job(route="/items/{id}"), start=True)
    assert receipt.claim
    assert receipt.claim.route == "/items/{id}"
    assert await one.retry(receipt.claim, 0)
    (claim,) = await other.claim(1)
    assert claim.route == "/items/{id}"
    assert await other.routes() == ["/items/{id}"]


async def test_ids_of_routes_survive_a_rollback(store: JobStore) -> None:
    """A group that cannot be written as a whole is rolled back and written one by one."""
    broken = make_job(route="/new", retry=RetryPolicy(0))  # breaks a rule of the table
    good = make_job(route="/new")
    results = await asyncio.gather(store.submit(good), store.submit(broken), store.submit(good), return_exceptions=True)
    assert [isinstance(result, Exception) for result in results] == [False, True, False]
    assert [one.route for one in (await store.page(JobFilter())).jobs] == ["/new", "/new"]


async def test_there_are_at_most_so_many_stored_routes(store: JobStore, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("queue_middleware.stores.common.route_ids.MAX_ROWS", 4)
    for number in range(6):
        await store.submit(make_job(route=f"/{number}"))
    listed = [one.route for one in (await store.page(JobFilter())).jobs]
    assert sorted(set(listed)) == ["/0", "/1", "/2", OTHER]


@pytest.mark.parametrize(
    "wanted", [JobFilter(), JobFilter(route="/work"), JobFilter(frozenset({JobState.QUEUED, JobState.FAILED}))]
)
async def test_only_jobs_on_finished_pages_count_as_examined(
    store: JobStore, clock: ManualClock, wanted: JobFilter, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A page that is full before the end of its slice has not examined the rest of the slice."""
    count = await fill(store, clock)
    expected = await everything(store, wanted)
    monkeypatch.setattr(job_list, "MAX_EXAMINED", count + 1)
    assert await everything(store, wanted, 1) == expected


async def test_a_period_may_be_of_any_size(store: JobStore) -> None:
    await store.submit(make_job())
    assert len((await store.page(JobFilter(since=-(2**62), until=2**62))).jobs) == 1
    assert not (await store.page(JobFilter(since=2**62))).jobs


async def test_routes_are_stored_before_a_job_has_them(stores: Stores) -> None:
    one, other = await stores.open(), await stores.open()
    await one.keep_routes([("POST", "/items/{id}"), ("PUT", "/items/{id}"), ("made up", "/b")])
    await one.keep_routes([("POST", "/items/{id}")])
    assert await other.routes() == ["/items/{id}"]
    await one.keep_routes([("POST", f"/{number}") for number in range(300)])
    assert len(await other.routes()) == 198, "of 200 rows, one is `OTHER`, and two have one template"
