"""Paused routes: jobs are accepted and keep their positions, and do not start."""

from __future__ import annotations

import random
from typing import Any

import pytest

from queue_middleware.jobs.audit import MAX_AUDIT_RECORDS, QUEUE, Action
from queue_middleware.jobs.models import Claim, JobState, NewJob, Priority
from queue_middleware.jobs.pauses import ALL_ROUTES, Pause, next_end, paused_routes
from queue_middleware.jobs.store import Topic
from queue_middleware.stores.common.route_ids import MAX_ROWS
from tests.conformance.conftest import Stores
from tests.support.clock import ManualClock
from tests.support.factories import make_job, make_request, make_response
from tests.support.leases import lease_passes

A, B = "/a", "/b/{id}"


def pause_of(route: str, clock: ManualClock, seconds: float | None = None, operator: str = "carol") -> Pause:
    return Pause(route, operator, "", clock(), None if seconds is None else clock() + round(seconds * 1000))


def job(route: str = A, **changes: object) -> NewJob:
    return make_job(route=route, **changes)


async def claimed_routes(store: Any) -> list[str]:
    return [claim.route for claim in await store.claim(100)]


def test_a_pause_holds_until_its_end_and_one_without_an_end_until_it_is_resumed() -> None:
    pauses = [Pause(A, "carol", "", 0, 100), Pause(B, "carol", "", 0)]
    assert paused_routes(pauses, 99) == {A, B}
    assert paused_routes(pauses, 100) == {B}
    assert (next_end(pauses, 99), next_end(pauses, 100)) == (100, None)
    assert paused_routes([], 0) == frozenset()


@pytest.mark.parametrize("method", ["GET", "POST"])
@pytest.mark.parametrize("start", [False, True])
async def test_jobs_of_a_paused_route_do_not_start_and_others_do(
    store: Any, clock: ManualClock, start: bool, method: str
) -> None:
    await store.operations.pause(pause_of(A, clock))
    other = await store.submit(job(B), start=start)
    held = await store.submit(job(request=make_request(method=method)), start=start)
    assert (held.claim, held.position) == (None, 0 if start else 1)
    assert [other.claim is not None, await claimed_routes(store)] == ([True, []] if start else [False, [B]])
    found = await store.job(held.request_id)
    assert (found.state, found.position) == (JobState.QUEUED, 0)
    assert await store.operations.resume(A, "carol")
    assert await claimed_routes(store) == [A]


async def test_a_pause_of_all_routes_holds_every_start(store: Any, clock: ManualClock) -> None:
    await store.operations.pause(pause_of(ALL_ROUTES, clock))
    results = [await store.submit(job(route), start=True) for route in (A, B, "other")]
    assert [result.claim for result in results] == [None] * 3
    assert await claimed_routes(store) == []
    await store.operations.resume(ALL_ROUTES, "carol")
    assert await claimed_routes(store) == [A, B, "other"]


async def test_the_pause_of_all_routes_and_that_of_one_are_separate(store: Any, clock: ManualClock) -> None:
    await store.operations.pause(pause_of(ALL_ROUTES, clock))
    await store.operations.pause(pause_of(A, clock))
    for route in (A, B):
        await store.submit(job(route))
    await store.operations.resume(ALL_ROUTES, "carol")
    assert await claimed_routes(store) == [B]
    assert not await store.operations.resume(ALL_ROUTES, "carol")


async def test_running_jobs_go_on_and_a_job_that_is_retried_does_not_start_again(store: Any, clock: ManualClock) -> None:
    first, second = [(await store.submit(job(), start=True)).claim for _ in range(2)]
    assert first
    assert second
    await store.operations.pause(pause_of(A, clock))
    assert await store.complete(first, make_response())
    await store.retry(second, 5.0)
    clock.advance(6)
    assert await claimed_routes(store) == []
    assert (await store.job(second.request_id)).state is JobState.QUEUED
    await store.operations.resume(A, "carol")
    (again,) = await store.claim(10)
    assert (again.request_id, again.attempt) == (second.request_id, 2)


async def test_a_pause_holds_in_every_process_and_over_restarts(stores: Stores, clock: ManualClock) -> None:
    one, other = [await stores.open() for _ in range(2)]
    notified: list[Topic] = []
    one.subscribe(Topic.WORK, lambda: notified.append(Topic.WORK))
    assert (await other.submit(job(), start=True)).claim
    await one.operations.pause(pause_of(A, clock))
    assert notified
    assert (await other.submit(job(), start=True)).claim is None
    await one.close()
    await other.close()
    later = await stores.open()
    assert (await later.submit(job(), start=True)).claim is None
    assert await claimed_routes(later) == []
    assert await later.operations.pauses() == [pause_of(A, clock)]


async def test_a_pause_ends_by_itself(store: Any, clock: ManualClock) -> None:
    await store.operations.pause(pause_of(A, clock, 60))
    await store.submit(job())
    assert await store.next_due(Topic.WORK) == 60
    assert await store.operations.end_pauses() == []
    clock.advance(59.999)
    assert await claimed_routes(store) == []
    clock.advance(0.001)
    assert await store.operations.pauses() == []
    assert await store.next_due(Topic.WORK) is None
    assert await claimed_routes(store) == [A]
    (ended,) = await store.operations.end_pauses()
    assert ended.route == A
    assert await store.operations.end_pauses() == []
    acts = [(act.operator, act.action, act.target, act.count) for act in await store.operations.audit()]
    assert acts == [(QUEUE, Action.RESUME, A, 1), ("carol", Action.PAUSE, A, 1)]


async def test_a_pause_replaces_an_earlier_one_of_its_route(store: Any, clock: ManualClock) -> None:
    await store.operations.pause(pause_of(A, clock, 60))
    await store.operations.pause(pause_of(A, clock, operator="dave"))
    clock.advance(61)
    assert await store.operations.pauses() == [pause_of(A, clock, operator="dave").replace(paused_at=clock() - 61_000)]


async def test_positions_are_those_of_all_queued_jobs(store: Any, clock: ManualClock) -> None:
    await store.operations.pause(pause_of(A, clock))
    held = [await store.submit(job()) for _ in range(3)]
    free = await store.submit(job(B))
    assert [result.position for result in (*held, free)] == [0, 1, 2, 3]
    await store.claim(1)
    assert [(await store.job(result.request_id)).position for result in held] == [0, 1, 2]


async def test_a_delayed_job_is_queued_when_it_is_due_and_does_not_start(store: Any, clock: ManualClock) -> None:
    (claim,) = [(await store.submit(job(), start=True)).claim]
    await store.operations.pause(pause_of(A, clock, 3600))
    await store.retry(claim, 10.0)
    assert await store.next_due(Topic.WORK) == 10
    clock.advance(10)
    assert await store.claim(1) == []
    assert (await store.job(claim.request_id)).state is JobState.QUEUED
    assert await store.next_due(Topic.WORK) == 3590


async def test_a_paused_suspect_does_not_hold_up_the_suspects_of_other_routes(stores: Stores, clock: ManualClock) -> None:
    one, other = await stores.open(), await stores.open()
    for route in (A, A, B):
        assert (await one.submit(job(route), start=True)).claim
    await lease_passes(other, clock)
    assert len(await other.rescue()) == 3
    await other.operations.pause(pause_of(A, clock))
    clock.advance(60)
    (suspect,) = await other.claim(8)
    assert suspect.route == B
    await other.complete(suspect, make_response())
    assert await other.claim(8) == []
    assert await other.next_due(Topic.WORK) is None
    await one.operations.resume(A, "carol")
    for _ in range(2):
        (suspect,) = await other.claim(8)
        assert suspect.route == A
        await other.complete(suspect, make_response())


async def test_a_queued_suspect_whose_route_is_paused_gives_way(stores: Stores, clock: ManualClock) -> None:
    one, other = await stores.open(), await stores.open()
    for route in (A, B):
        assert (await one.submit(job(route), start=True)).claim
    await lease_passes(other, clock)
    await other.rescue()
    clock.advance(60)
    first = await other.submit(job("/c"))  # queues the first suspect
    await other.operations.pause(pause_of(A, clock))
    assert sorted(await claimed_routes(other)) == [B, "/c"]
    assert (await other.job(first.request_id)).state is JobState.RUNNING


async def test_a_suspect_that_is_handed_back_while_its_route_is_paused_gives_way(stores: Stores, clock: ManualClock) -> None:
    one, other = await stores.open(), await stores.open()
    for route in (A, B):
        assert (await one.submit(job(route), start=True)).claim
    await lease_passes(other, clock)
    await other.rescue()
    clock.advance(60)
    (suspect,) = await other.claim(8)
    await one.operations.pause(pause_of(suspect.route, clock))
    await other.release(suspect)
    assert await claimed_routes(one) == [B if suspect.route == A else A]


async def test_a_pause_of_other_holds_the_jobs_of_routes_that_have_no_row(store: Any, clock: ManualClock) -> None:
    """There are more routes than the database distinguishes."""
    for number in range(MAX_ROWS):
        await store.submit(job(f"/{number}"))
    await store.claim(MAX_ROWS)
    await store.operations.pause(pause_of("other", clock))
    assert (await store.submit(job("/one-too-many"), start=True)).claim is None
    assert await store.claim(10) == []


async def test_a_start_deadline_passes_while_a_route_is_paused(store: Any, clock: ManualClock) -> None:
    await store.operations.pause(pause_of(A, clock))
    submitted = await store.submit(job(start_timeout=5.0))
    clock.advance(6)
    (expired,) = await store.expire()
    assert (expired.request_id, expired.state) == (submitted.request_id, JobState.FAILED)


async def test_acts_are_recorded_the_newest_first_and_in_pages(store: Any, clock: ManualClock) -> None:
    for number in range(5):
        await store.operations.record(f"operator {number}", Action.PROBE, "hooks.example.com", number)
        clock.advance(1)
    first = await store.operations.audit(limit=2)
    assert [(act.operator, act.action, act.target, act.count) for act in first] == [
        ("operator 4", Action.PROBE, "hooks.example.com", 4),
        ("operator 3", Action.PROBE, "hooks.example.com", 3),
    ]
    rest = await store.operations.audit(before=first[-1].id)
    assert [act.count for act in rest] == [2, 1, 0]
    assert [act.at for act in rest] == [clock() - seconds * 1000 for seconds in (3, 4, 5)]
    assert await store.operations.audit(before=rest[-1].id) == []


async def test_only_the_newest_acts_are_kept(store: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    assert MAX_AUDIT_RECORDS == 10_000
    monkeypatch.setattr("queue_middleware.stores.common.audit.MAX_AUDIT_RECORDS", 3)
    for number in range(7):
        await store.operations.record("carol", Action.PROBE, "hooks.example.com", number)
    assert [act.count for act in await store.operations.audit()] == [6, 5, 4]


async def test_text_that_no_database_can_store_is_replaced(store: Any, clock: ManualClock) -> None:
    await store.operations.pause(Pause(A, "c\0", "\ud800", clock()))
    (stored,) = await store.operations.pauses()
    assert (stored.operator, stored.reason) == ("c\ufffd", "\ufffd")


class Model:
    """What two processes do with jobs of three routes while operators pause and resume, and what must come of it."""

    def __init__(self, clock: ManualClock, chance: random.Random) -> None:
        self.clock, self.chance = clock, chance
        self.pauses: dict[str, int | None] = {}
        self.waiting: dict[str, tuple[int, int, str]] = {}
        """The queued jobs: priority, number and route by request id."""
        self.claims: list[tuple[Any, Claim]] = []
        self.submitted = 0

    def holds(self, name: str) -> bool:
        return name in self.pauses and ((until := self.pauses[name]) is None or until > self.clock())

    def is_paused(self, route: str) -> bool:
        return self.holds(route) or self.holds(ALL_ROUTES)

    def any_route(self) -> str:
        return self.chance.choice((A, B, "/c"))

    def any_pause(self) -> str:
        return self.chance.choice((A, B, "/c", ALL_ROUTES))

    async def pause(self, store: Any) -> None:
        route, seconds = self.any_pause(), self.chance.choice((None, 5, 50))
        await store.operations.pause(pause_of(route, self.clock, seconds))
        self.pauses[route] = None if seconds is None else self.clock() + seconds * 1000

    async def resume(self, store: Any) -> None:
        route = self.any_pause()
        assert await store.operations.resume(route, "carol") == (route in self.pauses)
        self.pauses.pop(route, None)

    async def submit(self, store: Any) -> None:
        route, start = self.any_route(), self.chance.random() < 0.5
        priority = self.chance.choice((Priority.NORMAL, Priority.LOW))
        result = await store.submit(job(route, priority=priority), start=start)
        assert (result.claim is not None) == (start and not self.waiting and not self.is_paused(route))
        self.submitted += 1
        if result.claim is None:
            self.waiting[result.request_id] = (priority, self.submitted, route)
        else:
            self.claims.append((store, result.claim))

    async def claim(self, store: Any) -> None:
        startable = [one for one in self.waiting if not self.is_paused(self.waiting[one][2])]
        limit = self.chance.randint(1, 4)
        found = await store.claim(limit)
        assert [claim.request_id for claim in found] == sorted(startable, key=lambda one: self.waiting[one])[:limit]
        for claim in found:
            del self.waiting[claim.request_id]
            self.claims.append((store, claim))

    async def end(self, store: Any) -> None:
        if self.claims:
            owner, claim = self.claims.pop(self.chance.randrange(len(self.claims)))
            assert await owner.complete(claim, make_response())

    async def wait(self, store: Any) -> None:
        self.clock.advance(self.chance.choice((1, 10)))

    async def end_pauses(self, store: Any) -> None:
        ended = {name for name in self.pauses if not self.holds(name)}
        assert {one.route for one in await store.operations.end_pauses()} == ended
        self.pauses = {name: until for name, until in self.pauses.items() if name not in ended}


@pytest.mark.parametrize("seed", range(12))
async def test_any_course_of_events(stores: Stores, clock: ManualClock, seed: int) -> None:
    """Two processes submit, run and end jobs of three routes while operators pause and resume; a model knows what may start."""
    chance = random.Random(seed)
    both = [await stores.open() for _ in range(2)]
    model = Model(clock, chance)
    acts = (model.pause, model.resume, *[model.submit] * 4, *[model.claim] * 3, model.end, model.wait, model.end_pauses)
    for _ in range(60):
        store = chance.choice(both)
        await chance.choice(acts)(store)
        assert {one.route for one in await store.operations.pauses()} == {name for name in model.pauses if model.holds(name)}
