"""Health checks: whether the process responds, and whether it can serve requests."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import httpx
import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Mount, Route

from queue_middleware import QueueMiddleware
from queue_middleware.events import Recovered, ServiceError
from queue_middleware.runtime import readiness
from queue_middleware.stores.common import processes
from queue_middleware.stores.sqlite import store
from queue_middleware.stores.sqlite.locks import WriteLock
from tests.support.doubles import EventRecorder
from tests.support.gated_service import GatedService
from tests.support.queue_client import client_of, connected, eventually

LIVE, READY = "/fal/queue/health/live", "/fal/queue/health/ready"


def wrapped(database: Path, **options: Any) -> QueueMiddleware:
    async def work(request: Request) -> Response:
        return PlainTextResponse("done")

    routes = [Route("/{path:path}", work, methods=["GET", "POST"])]
    return QueueMiddleware(Starlette(routes=routes), database=database, **{"min_free_disk": 0, **options})


async def why_not(client: httpx.AsyncClient) -> list[str]:
    """The reasons; an empty list if it is ready."""
    response = await client.get(READY)
    found = response.json()
    if response.status_code == 200:
        assert found == {"ready": True}
        return []
    assert response.status_code == 503
    assert set(found) == {"ready", "because"}
    assert found["ready"] is False
    return list(found["because"])


async def test_a_running_queue_is_live_and_ready(database: Path) -> None:
    async with connected(wrapped(database, api_keys="alice:a-secret-key")) as queue:
        for path, body in ((LIVE, {"live": True}), (READY, {"ready": True}), (f"{READY}/", {"ready": True})):
            response = await queue.client.get(path)
            assert (response.status_code, response.json()) == (200, body)
            assert response.headers["cache-control"] == "no-store"
            assert response.headers["content-type"] == "application/json"
            assert (await queue.client.head(path)).status_code == 200


@pytest.mark.parametrize("path", [LIVE, READY])
async def test_other_methods_are_refused(database: Path, path: str) -> None:
    async with connected(wrapped(database)) as queue:
        response = await queue.client.post(path)
    assert (response.status_code, response.headers["allow"]) == (405, "GET")


async def test_a_queue_that_was_not_started_is_live_and_not_ready(database: Path) -> None:
    async with client_of(wrapped(database)) as client:
        assert (await client.get(LIVE)).status_code == 200
        assert await why_not(client) == ["not_running"]


async def test_a_queue_that_stops_is_not_ready(database: Path) -> None:
    class Service(GatedService):
        async def work(self, request: Request) -> Response:
            await self.go.wait()
            return PlainTextResponse("done")

    service = Service(database, shutdown_timeout=30)
    async with client_of(service.app) as client:
        async with service.app.running():
            await client.post("/fal/queue/submit/work")
            await eventually(lambda: service.app._runtime.services.worker.tokens())
            assert await why_not(client) == []
            stopping = asyncio.create_task(service.app._runtime.stop())
            await asyncio.sleep(0)
            assert await why_not(client) == ["stopping"]
            assert (await client.get(LIVE)).status_code == 200
            service.go.set()
            await stopping
        assert await why_not(client) == ["not_running"]


async def test_a_disk_that_is_nearly_full_is_a_reason(database: Path) -> None:
    async with connected(wrapped(database, min_free_disk=2**50)) as queue:
        assert await why_not(queue.client) == ["disk"]


async def test_a_removed_database_is_a_reason(database: Path) -> None:
    app = wrapped(database)
    async with connected(app) as queue:
        moved = database.rename(database.with_name("moved"))
        app._runtime.services.stores.database._file_watch.check_all()  # type: ignore[attr-defined]
        assert await why_not(queue.client) == ["store"]
        moved.rename(database)
        app._runtime.services.stores.database._file_watch.check_all()  # type: ignore[attr-defined]
        assert await why_not(queue.client) == []


async def test_a_database_that_cannot_be_written_in_time_is_a_reason(database: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(store, "RECENT", -1.0)
    monkeypatch.setattr(readiness, "_LIMIT", 0.1)
    async with connected(wrapped(database)) as queue:
        assert await why_not(queue.client) == []
        lock = WriteLock(database.with_name(f"{database.name}.lock"))
        with lock:
            assert await why_not(queue.client) == ["store"]
        lock.close()
        await eventually(lambda: _is_ready(queue.client))


async def _is_ready(client: httpx.AsyncClient) -> bool:
    return not await why_not(client)


async def test_a_check_writes_only_if_nothing_was_committed_lately(database: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    written: list[int] = []
    beat = processes.beat

    def counted(transaction: Any, batch: Any) -> Any:
        written.append(len(batch))
        return beat(transaction, batch)

    monkeypatch.setattr(processes, "beat", counted)
    async with connected(wrapped(database)) as queue:
        assert await why_not(queue.client) == []
        assert written == []
        monkeypatch.setattr(store, "RECENT", -1.0)
        results = await asyncio.gather(*[why_not(queue.client) for _ in range(20)])
        assert results == [[]] * 20
        assert sum(written) == 1


async def no() -> bool:
    return False


async def fails() -> bool:
    raise RuntimeError("the model is not loaded")


async def hangs() -> bool:
    await asyncio.get_running_loop().create_future()
    return True


async def waits_for_a_task_that_was_cancelled() -> bool:
    loading = asyncio.create_task(asyncio.Event().wait())
    loading.cancel()
    return await loading


@pytest.mark.parametrize("ready", [no, fails, hangs, waits_for_a_task_that_was_cancelled])
async def test_the_application_may_not_be_ready(
    database: Path, monkeypatch: pytest.MonkeyPatch, ready: Callable[[], Awaitable[bool]]
) -> None:
    monkeypatch.setattr(readiness, "_LIMIT", 0.1)
    recorder = EventRecorder()
    async with connected(wrapped(database, ready=ready, observers=[recorder])) as queue:
        assert await why_not(queue.client) == ["application"]
        assert (await queue.client.get(LIVE)).status_code == 200
        assert (await queue.run("POST", "/work")).text == "done"
    errors = [event for event in recorder.events if isinstance(event, ServiceError)]
    assert [event.where for event in errors] == ([] if ready is no else ["ready"])


async def test_a_ready_that_ignores_its_cancellation_is_not_waited_for(database: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    go, calls = asyncio.Event(), []

    async def ready() -> bool:
        calls.append(True)
        while not go.is_set():
            with suppress(asyncio.CancelledError):
                await go.wait()
        return True

    monkeypatch.setattr(readiness, "_LIMIT", 0.1)
    monkeypatch.setattr(readiness, "_GRACE", 0.1)
    async with connected(wrapped(database, ready=ready)) as queue:
        assert [await why_not(queue.client) for _ in range(2)] == [["application"]] * 2
        assert len(calls) == 1, "a call that goes on is not made again"
        go.set()
        await eventually(lambda: _is_ready(queue.client))


async def test_an_outage_of_the_application_has_an_end(database: Path) -> None:
    results: list[bool | Exception] = [RuntimeError("the model is not loaded"), RuntimeError("still not"), False, True]

    async def ready() -> bool:
        result = results.pop(0)
        if isinstance(result, Exception):
            raise result
        return result

    recorder = EventRecorder()
    async with connected(wrapped(database, ready=ready, observers=[recorder])) as queue:
        found = [await why_not(queue.client) for _ in range(4)]
    assert found == [["application"], ["application"], ["application"], []]
    assert [type(event) for event in recorder.events if isinstance(event, ServiceError | Recovered)] == [
        ServiceError, ServiceError, Recovered,
    ]  # fmt: skip


async def test_checks_at_the_same_time_ask_the_application_once(database: Path) -> None:
    asked, go = [], asyncio.Event()

    async def ready() -> bool:
        asked.append(True)
        await go.wait()
        return True

    async with connected(wrapped(database, ready=ready)) as queue:
        checks = [asyncio.create_task(why_not(queue.client)) for _ in range(20)]
        await eventually(lambda: asked)
        checks.pop().cancel()  # one client gives up, which does not affect the others
        go.set()
        assert await asyncio.gather(*checks) == [[]] * 19
        assert len(asked) == 1
        assert await why_not(queue.client) == []
        assert len(asked) == 2


async def test_several_reasons_are_all_named(database: Path) -> None:
    async with connected(wrapped(database, ready=no, min_free_disk=2**50)) as queue:
        assert await why_not(queue.client) == ["disk", "application"]


async def test_a_host_of_fal_has_no_health_routes(database: Path) -> None:
    async with connected(wrapped(database, fal_hosts="queue.example")) as queue:
        response = await queue.client.get("/health/ready", headers={"host": "queue.example"})
        assert "ready" not in response.json()
        below = await queue.client.get(READY, headers={"host": "queue.example"})
    assert below.json() == {"ready": True}


async def test_a_queue_is_ready_again_in_another_event_loop(database: Path) -> None:
    app = wrapped(database)

    async def check() -> list[str]:
        async with connected(app) as queue:
            return await why_not(queue.client)

    for _ in range(2):
        assert await asyncio.to_thread(asyncio.run, check()) == []


@pytest.mark.parametrize("root", ["", "/outer"])
@pytest.mark.parametrize("prefix", ["/fal/queue", "/q"])
async def test_health_is_below_the_prefix_wherever_the_queue_is_mounted(database: Path, root: str, prefix: str) -> None:
    app = wrapped(database, prefix=prefix, api_keys="alice:a-secret-key", cors_origins="https://pages.example")
    outer = Starlette(routes=[Mount(root, app)]) if root else app
    async with app.running(), client_of(outer) as client:
        for path in ("live", "ready"):
            url = f"{root}{prefix}/health/{path}"
            assert (await client.get(url)).status_code == 200
            assert (await client.options(url)).status_code == 405
            response = await client.get(url, headers={"origin": "https://pages.example"})
            assert response.headers["access-control-allow-origin"] == "https://pages.example"
    async with client_of(outer) as client:
        response = await client.get(f"{root}{prefix}/health/ready")
        assert (response.status_code, response.json()["because"]) == (503, ["not_running"])


async def test_a_check_that_the_stop_overtakes_is_not_an_error(database: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(store, "RECENT", -1.0)
    app = wrapped(database)
    async with client_of(app) as client, app.running():
        lock = WriteLock(database.with_name(f"{database.name}.lock"))
        with lock:
            check = asyncio.create_task(why_not(client))
            await eventually(lambda: any(task.get_name() == "queue-readiness" for task in asyncio.all_tasks()))
            stopping = asyncio.create_task(app._runtime.stop())
            await eventually(lambda: app._runtime.is_stopping)
        lock.close()
        await stopping
        assert set(await check) <= {"stopping", "store", "not_running"}


async def test_a_stop_between_the_request_and_its_check_is_not_an_error(database: Path) -> None:
    app = wrapped(database)
    async with app.running():
        readiness = app._runtime.readiness(None)
        checking = asyncio.create_task(readiness.reasons())
        await asyncio.sleep(0)
        running, app._runtime._running = app._runtime._running, None
        assert await checking == []
        app._runtime._running = running
