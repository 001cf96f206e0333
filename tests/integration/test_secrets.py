"""Data of clients, providers and applications is in no log at any level, and secrets are deleted when a request ends."""

from __future__ import annotations

import asyncio
import json
import logging
import sqlite3
from collections.abc import Awaitable, Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from queue_middleware import current_job
from tests.integration.test_tasks import ENDED, TOMORROW, Tasks, tasking
from tests.support.provider_server import Call, Reply, providing
from tests.support.queue_client import eventually
from tests.support.raw_asgi import Message, Receive, Send, respond
from tests.support.webhook_receiver import receiving

KEY, POLL_KEY = "canary-of-headers", "canary-of-polls"
CANARIES = [
    KEY, POLL_KEY, "canary-of-cookie", "canary-of-body", "canary-of-query", "canary-of-webhook", "canary-of-answer",
    "canary-of-set-cookie", "canary-of-provider", "canary-of-callback", "canary-of-stage", "canary-of-state",
    "canary-of-label",
]  # fmt: skip


async def _answers(scope: Message, receive: Receive, send: Send) -> None:
    current_job.report_progress(0.5, "canary-of-stage")
    current_job.log("painting", customer="canary-of-label")
    headers = [(b"content-type", b"application/json"), (b"set-cookie", b"s=canary-of-set-cookie")]
    await respond(send, b'{"token": "canary-of-answer"}', 200, headers)


async def test_nothing_private_is_logged_at_any_level(database: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    loop = asyncio.get_running_loop()
    loop.set_debug(True)
    loop.slow_callback_duration = 0  # the debug mode of asyncio logs every step with its arguments
    try:
        secrets = await _use_everything(database)
    finally:
        loop.set_debug(False)
    records = [record for record in caplog.records if not record.name.startswith("httpx")]  # the client of this test logs it
    assert {"queue_middleware", "asyncio"} <= {record.name for record in records}
    for record in records:
        text = f"{record.getMessage()} {vars(record)!r}"
        assert not [secret for secret in (*CANARIES, *secrets) if secret in text], text


async def _use_everything(database: Path) -> list[str]:
    def reply(call: Call) -> Reply:
        if call.target.startswith("/status"):
            return Reply(200, b'{"status": "canary-of-state", "output": "canary-of-provider"}')
        return Reply(200, b'{"id": "1", "note": "canary-of-provider"}', (("set-cookie", "canary-of-set-cookie"),))

    async with (
        tasking(database, _answers) as tasks,
        providing(reply) as provider,
        receiving(lambda webhook: 500 if "dead" in webhook.target else 200) as receiver,
    ):
        webhook = f"{receiver.url}/?token=canary-of-webhook"
        request_id = await tasks.queue.submit(
            "POST",
            "/work",
            params={"q": "canary-of-query", "fal_webhook": webhook, "fal_webhook_events": "started,progress"},
            headers={"authorization": KEY, "cookie": "c=canary-of-cookie"},
            content=b"canary-of-body",
        )
        await tasks.queue.response(request_id)
        await tasks.queue.submit("POST", "/work", params={"fal_webhook": f"{receiver.url}/dead?token=canary-of-webhook"})
        created = await tasks.create(
            f"{provider.url}/start?key=canary-of-query&c={{callback_url}}",
            headers={"authorization": KEY},
            body='{"a": "canary-of-body"}',
            onCompleteUrl=webhook,
            waitForSignal=True,
            maxWaitTime=6,  # the poll comes at half of it, and a busy machine needs the rest
            pollConfig=_polls(),
        )
        assert KEY not in json.dumps(created)
        assert POLL_KEY not in json.dumps(created)
        task_id, callback = created["task"]["id"], created["task"]["callbackId"]
        await eventually(lambda: [call for call in provider.calls if call.headers.get("x-key") == POLL_KEY])
        assert POLL_KEY not in json.dumps(await tasks.read(task_id))
        await tasks.call_back(created["callbackUrl"], {"status": "done", "output": "canary-of-callback"})
        await tasks.reaches(task_id, "completed")
        await eventually(lambda: len(receiver.webhooks_for(task_id)) == 1 and len(receiver.webhooks_for(request_id)) >= 1)
    return [callback, created["signalToken"]]


def _polls(**changes: Any) -> dict[str, Any]:
    config = {"urlTemplate": "/status", "statusPath": "status", "doneValues": ["done"], "failValues": ["bad"]}
    return {**config, "interval": 0.1, "headers": {"X-Key": POLL_KEY}, **changes}


def _kept(database: Path, secret: str) -> list[str]:
    """The tables that contain the text in a live row."""
    with closing(sqlite3.connect(f"file:{database}?mode=ro", uri=True)) as connection:
        tables = [name for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")]
        rows = {table: connection.execute(f"SELECT * FROM {table}").fetchall() for table in tables}
    return [table for table, found in rows.items() if any(_holds(value, secret) for row in found for value in row)]


def _holds(value: object, secret: str) -> bool:
    return secret in value if isinstance(value, str) else isinstance(value, bytes) and secret.encode() in value


async def _calls_back(tasks: Tasks, created: dict[str, Any]) -> None:
    await tasks.reaches(created["task"]["id"], "waiting")
    await tasks.call_back(created["callbackUrl"], {"status": "done"})


async def _fails(tasks: Tasks, created: dict[str, Any]) -> None:
    await tasks.reaches(created["task"]["id"], "waiting")
    await tasks.call_back(created["callbackUrl"], {"status": "bad"})


async def _signals(tasks: Tasks, created: dict[str, Any]) -> None:
    await tasks.call("POST", f"/signals/{created['signalToken']}", 200, json={"status": "completed"})


async def _cancels(tasks: Tasks, created: dict[str, Any]) -> None:
    await tasks.call("POST", f"/tasks/{created['task']['id']}/cancel", 200)


async def _waits(tasks: Tasks, created: dict[str, Any]) -> None:
    return None


ENDS: list[tuple[Callable[[Tasks, dict[str, Any]], Awaitable[None]], dict[str, Any]]] = [
    (_calls_back, {}),
    (_fails, {}),
    (_signals, {"delayUntil": TOMORROW}),
    (_cancels, {"delayUntil": TOMORROW}),
    (_cancels, {}),
    (_waits, {"maxWaitTime": 0.2}),
    (_waits, {"maxRetries": 0}),
]


@pytest.mark.parametrize(("end", "fields"), ENDS)
async def test_secrets_are_gone_when_a_task_has_ended(database: Path, end: Any, fields: dict[str, Any]) -> None:
    def reply(call: Call) -> Reply:
        return Reply(503 if "maxRetries" in fields else 200, b'{"status": "running"}')

    async with tasking(database, _answers) as tasks, providing(reply) as provider:
        created = await tasks.create(
            f"{provider.url}/start?c={{callback_url}}",
            waitForSignal=True,
            headers={"authorization": KEY},
            pollConfig=_polls(),
            **{"maxWaitTime": 60, **fields},
        )
        if "delayUntil" in fields:
            assert _kept(database, POLL_KEY) == ["task"]
        await end(tasks, created)
        shown = json.dumps(await tasks.reaches(created["task"]["id"], *ENDED))
    secrets = (KEY, POLL_KEY, created["task"]["callbackId"], created["signalToken"])
    assert [secret for secret in secrets if secret in shown] == []
    assert {secret: _kept(database, secret) for secret in secrets} == {key: [] for key in secrets}
