"""Idle connections: which one is used again, and that nothing is kept of origins without one."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from queue_middleware.outbound import pool as pool_module
from queue_middleware.outbound.connector import Origin
from queue_middleware.outbound.pool import ConnectionPool
from tests.support.queue_client import eventually


class Idle:
    """Stands for a connection whose exchange is over."""

    is_open = True

    def reset(self) -> bool:
        return self.is_open

    def abort(self) -> None:
        self.is_open = False


@pytest.fixture
async def pool() -> AsyncIterator[ConnectionPool]:
    pool = ConnectionPool()
    yield pool
    pool.close()


async def test_the_connection_that_was_used_last_is_used_first(pool: ConnectionPool) -> None:
    origin, older, newer, closed = Origin(True, "a.example", 443), Idle(), Idle(), Idle()
    for connection in (older, newer, closed):
        pool.give_back(connection, origin)
    closed.is_open = False
    assert [pool.take(origin) for _ in range(3)] == [newer, older, None]


async def test_what_was_idle_for_too_long_is_closed(pool: ConnectionPool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pool_module, "_IDLE_TIMEOUT", 0.01)
    connections = [Idle() for _ in range(3)]
    for number, connection in enumerate(connections):
        pool.give_back(connection, Origin(False, f"{number}.example", 80))
    await eventually(lambda: not any(connection.is_open for connection in connections))
    again = Idle()
    pool.give_back(again, Origin(False, "again.example", 80))
    await eventually(lambda: not again.is_open)
    assert not pool._idle


async def test_a_closed_pool_keeps_nothing(pool: ConnectionPool) -> None:
    kept, late = Idle(), Idle()
    pool.give_back(kept, Origin(True, "a.example", 443))
    pool.close()
    pool.give_back(late, Origin(True, "a.example", 443))
    assert not kept.is_open
    assert not late.is_open


async def test_nothing_is_kept_of_an_origin_without_an_idle_connection(pool: ConnectionPool) -> None:
    """Submitters choose the hosts, so there may be any number of them."""
    for number in range(100):
        origin = Origin(True, f"{number}.example", 443)
        pool.give_back(Idle(), origin)
        assert pool.take(origin)
    assert not pool._idle
