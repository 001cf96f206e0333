"""Warnings of the maintenance for the operator, and its end."""

from __future__ import annotations

import asyncio
from collections.abc import Collection
from types import SimpleNamespace
from typing import Any

from queue_middleware.errors import DiskFull
from queue_middleware.events import DeliveryDead, Event, Finished, OperatorWarning, Rescued, ServiceError
from queue_middleware.jobs.models import JobState, RescuedJob, WebhookKind
from queue_middleware.jobs.outcomes import LOST
from queue_middleware.jobs.pauses import Pause
from queue_middleware.jobs.rescues import GivenUpDelivery
from queue_middleware.runtime.maintenance import Maintenance


class NoOperations:
    """An operator's store in which nothing is paused, and of which this process is the only one."""

    async def end_pauses(self) -> list[Pause]:
        return []

    async def forget_processes(self) -> None:
        pass


def make_maintenance(store: Any = None, **options: Any) -> tuple[Maintenance, list[Event]]:
    events: list[Event] = []
    return Maintenance(store, getattr(store, "waiting", None), NoOperations(), events.append, **options), events


async def test_a_warning_is_emitted_once_while_it_applies() -> None:
    now: list[str] = ["one"]
    maintenance, events = make_maintenance(warnings=lambda: now)
    for true in (["one"], ["one"], ["one", "two"], ["two"], ["one", "two"]):
        now[:] = true
        await maintenance.warn()
    assert events == [OperatorWarning("one"), OperatorWarning("two"), OperatorWarning("one")]


async def test_a_new_warning_is_emitted_while_the_queue_runs() -> None:
    async def nothing(*_: Any, **__: Any) -> Any:
        return []

    async def prune(limit: int) -> int:
        maintenance.stop()
        return 0

    store = SimpleNamespace(rescue=nothing, expire=nothing, waiting=SimpleNamespace(time_out=nothing), prune=prune)
    maintenance, events = make_maintenance(store, warnings=lambda: ["the disk is on fire"])
    await maintenance.run()
    assert events == [OperatorWarning("the disk is on fire")]


async def test_a_job_that_fails_with_its_process_emits_finished() -> None:
    async def rescue(*, running: Collection[int]) -> list[RescuedJob]:
        return [RescuedJob("one", JobState.DELAYED, 1, None, "/work"), RescuedJob("other", JobState.FAILED, 3, LOST)]

    maintenance, events = make_maintenance(SimpleNamespace(rescue=rescue))
    await maintenance.rescue()
    assert events == [
        Rescued("one", JobState.DELAYED, "/work"),
        Rescued("other", JobState.FAILED, "other"),
        Finished.of("other", 3, LOST, 0.0),
    ]


async def test_a_webhook_that_is_given_up_with_its_process_is_reported() -> None:
    async def rescue(*, running: Collection[int]) -> list[GivenUpDelivery]:
        return [GivenUpDelivery(7, "one", WebhookKind.COMPLETED, "receiver.test", 5, "lost")]

    maintenance, events = make_maintenance(SimpleNamespace(rescue=rescue))
    await maintenance.rescue()
    assert events == [DeliveryDead(7, "one", WebhookKind.COMPLETED, "receiver.test", 5, "lost")]


async def test_a_stop_interrupts_the_expiry_of_many_jobs() -> None:
    async def always(*_: Any) -> list[RescuedJob]:
        maintenance.stop()
        return [RescuedJob("id", JobState.FAILED)]

    maintenance, events = make_maintenance(SimpleNamespace(expire=always, waiting=SimpleNamespace(time_out=always)))
    await maintenance.expire()
    assert [type(event) for event in events] == [Finished]
    maintenance, events = make_maintenance(SimpleNamespace(waiting=SimpleNamespace(time_out=always)))
    await maintenance.time_out()
    assert [type(event) for event in events] == [Finished]


async def test_on_a_full_disk_pruning_continues_although_other_steps_fail() -> None:
    async def full(*_: Any, **__: Any) -> Any:
        raise DiskFull("no room", 60)

    async def prune(limit: int) -> int:
        pruned.append(limit)
        maintenance.stop()
        return 0

    pruned: list[int] = []
    store = SimpleNamespace(rescue=full, expire=full, waiting=SimpleNamespace(time_out=full), prune=prune)
    maintenance, events = make_maintenance(store)
    async with asyncio.timeout(5):
        await maintenance.run()
    assert pruned
    assert [type(event) for event in events] == [ServiceError]
