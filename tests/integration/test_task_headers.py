"""Headers of tasks: which of them a task's body may set, and which only a proxy may set."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from queue_middleware import QueueMiddleware
from tests.integration.test_tasks import Tasks, _echo, tasking
from tests.support.provider_server import Call, Reply, providing
from tests.support.queue_client import connected
from tests.support.raw_asgi import http_only

FORGED = {"X-Remote-User": "admin", "X-Forwarded-For": "10.0.0.1"}


def _behind_a_proxy(app: Any) -> Any:
    """Overwrites what clients send, as nginx does with `proxy_set_header`."""
    own = {b"x-remote-user": b"bob", b"x-forwarded-for": b"198.18.0.9", b"x-original-url": b"/fal/queue/v1/tasks"}

    async def proxy(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "http":
            scope = {**scope, "headers": [pair for pair in scope["headers"] if pair[0] not in own] + list(own.items())}
        await app(scope, receive, send)

    return proxy


def _seen(task: dict[str, Any]) -> dict[str, str]:
    return json.loads(task["result"]["body"])["headers"]


@pytest.mark.parametrize("name", ["X-Remote-User", "x-forwarded-for", "Forwarded", "CF-Connecting-IP", "X-Original-URL"])
async def test_a_task_cannot_set_headers_of_the_proxy(database: Path, name: str) -> None:
    async with tasking(database) as tasks:
        error = await tasks.refused(targetUrl="/work", headers={name: "10.0.0.1"})
    assert name.lower() in error
    assert "task_headers_allow" in error


async def test_the_application_sees_the_client_address_from_the_proxy(database: Path) -> None:
    inner = QueueMiddleware(http_only(_echo), database=database, min_free_disk=0)
    async with connected(_behind_a_proxy(inner)) as queue:
        headers = _seen(await Tasks(queue, **FORGED).run("/work"))
        submitted = (await queue.run("POST", "/work", headers=FORGED)).json()["headers"]
    assert (headers["x-remote-user"], headers["x-forwarded-for"]) == ("bob", "198.18.0.9")
    assert (submitted["x-remote-user"], submitted["x-forwarded-for"]) == ("bob", "198.18.0.9")
    assert "x-original-url" not in headers


async def test_options_allow_and_forbid_names(database: Path) -> None:
    options = {"task_headers_allow": "X-Forwarded-Host", "proxy_headers": "X-User-Id"}
    async with tasking(database, **options) as tasks:
        headers = _seen(await Tasks(tasks.queue, **{"x-user-id": "7"}).run("/work", headers={"X-Forwarded-Host": "a.example"}))
        await tasks.refused(targetUrl="/work", headers={"X-User-Id": "1"})
    assert (headers["x-forwarded-host"], headers["x-user-id"]) == ("a.example", "7")


async def test_a_target_in_the_operators_network_receives_no_forged_headers_either(database: Path) -> None:
    async with tasking(database) as tasks, providing() as provider:
        await tasks.refused(targetUrl=provider.url, headers=FORGED)
        await tasks.refused(
            targetUrl=provider.url,
            pollConfig={"urlTemplate": "/a", "statusPath": "s", "doneValues": ["x"], "failValues": [], "headers": FORGED},
        )
    assert not provider.calls


async def test_a_provider_does_not_receive_the_client_address(database: Path) -> None:
    """Polls to external hosts carry none of the headers with which the application sees its client."""

    async def begins(call: Call) -> Reply:
        return Reply(200, b'{"status": "done"}')

    async with providing(begins) as provider, tasking(database) as tasks:
        client = Tasks(tasks.queue, **{"x-remote-user": "bob", "x-forwarded-for": "198.18.0.9"})
        poll = {
            "urlTemplate": f"{provider.url}/status",
            "statusPath": "status",
            "doneValues": ["done"],
            "failValues": [],
            "interval": 0.1,
        }
        await client.run("/work", headers={"X-Own": "1"}, pollConfig=poll)
    assert provider.calls
    for call in provider.calls:
        assert call.headers["x-own"] == "1"
        assert not {"x-remote-user", "x-forwarded-for"} & call.headers.keys()


async def test_the_headers_of_a_task_have_the_limit_of_a_submission(database: Path) -> None:
    many = {f"h{number}": "v" * 8 for number in range(6000)}
    async with tasking(database) as tasks:
        assert "32768" in await tasks.refused(targetUrl="/work", headers=many)
        poll = {"urlTemplate": "https://a.example/", "statusPath": "s", "doneValues": ["x"], "failValues": [], "headers": many}
        assert "32768" in await tasks.refused(targetUrl="/work", pollConfig=poll)


async def test_headers_of_the_connection_are_not_forwarded(database: Path) -> None:
    given = {"Connection": "x-private", "X-Private": "1", "TE": "trailers", "Upgrade": "h2c", "Transfer-Encoding": "chunked"}
    async with tasking(database) as tasks:
        task = await tasks.run("/work", headers={**given, "Content-Length": "999", "Expect": "100-continue"}, body="{}")
    seen = _seen(task)
    assert not {"connection", "x-private", "te", "upgrade", "transfer-encoding", "expect"} & seen.keys()
    assert seen["content-length"] == "2"
