"""The list of the processes that run a queue."""

from __future__ import annotations

import asyncio
import os
import socket
from typing import Any

from queue_middleware.jobs.processes import ProcessRecord, Usage
from queue_middleware.webhooks.formats.user_agent import VERSION
from tests.conformance.conftest import Stores
from tests.support.clock import ManualClock


async def owners(store: Any) -> list[str]:
    return [record.owner for record in await store.operations.processes()]


async def test_a_process_is_listed_from_its_registration_until_its_end(stores: Stores, clock: ManualClock) -> None:
    one, other = await stores.open(), await stores.open()
    assert await owners(one) == []
    await one.operations.register(8)
    (record,) = await other.operations.processes()
    assert record == ProcessRecord(one.owner, socket.gethostname(), os.getpid(), VERSION, 8, clock(), clock(), 0, 0, 0)
    clock.advance(1)
    await other.operations.register(4)
    assert await owners(one) == [one.owner, other.owner]
    await one.close()
    assert await owners(other) == [other.owner]
    await other.operations.unregister()
    await other.operations.unregister()
    assert await owners(other) == []


async def test_a_renewal_of_leases_reports_what_the_process_is_busy_with(store: Any, clock: ManualClock) -> None:
    await store.operations.register(8)
    started = clock()
    clock.advance(15)
    await asyncio.to_thread(store.renew, (), Usage(3, 1, 2))
    (record,) = await store.operations.processes()
    assert (record.started_at, record.seen_at) == (started, clock())
    assert (record.running, record.stuck, record.streams) == (3, 1, 2)


async def test_a_process_that_was_never_registered_reports_nothing(store: Any) -> None:
    await asyncio.to_thread(store.renew, (), Usage(3, 1, 2))
    assert await owners(store) == []


async def test_a_killed_process_is_not_listed_and_is_forgotten(stores: Stores, clock: ManualClock) -> None:
    killed, living = await stores.open(), await stores.open()
    await killed.operations.register(8)
    await living.operations.register(8)
    stores.die(killed)
    assert await owners(living) == [living.owner]
    await living.operations.forget_processes()
    await living.operations.forget_processes()
    assert await owners(living) == [living.owner]


async def test_a_process_whose_record_was_deleted_is_listed_again(store: Any, clock: ManualClock) -> None:
    """For instance because a cleanup program had deleted the file that shows that it lives."""
    await store.operations.register(8)
    process = store.operations.process
    await store.operations.unregister()
    store.operations.process = process
    await asyncio.to_thread(store.renew, (), Usage(1, 0))
    assert await owners(store) == [store.owner]
