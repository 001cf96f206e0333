"""One definition of JSON on every route: results, callbacks, signals, tasks and polls."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.integration.test_tasks import Tasks, tasking
from tests.support.provider_server import Call, Reply, providing

MARK = b"\xef\xbb\xbf"
TEXTS = [b"1e400", b"1" * 5000, b'"\\ud800"', b"[" * 20_000 + b"]" * 20_000, b'{"a": 1, "a": 2}', b'["\\u0000"]']


async def _post(tasks: Tasks, path: str, content: bytes) -> int:
    return (await tasks.queue.client.post(path.replace("http://service.test", ""), content=content)).status_code


@pytest.mark.parametrize("text", TEXTS, ids=range(len(TEXTS)))
@pytest.mark.parametrize("mark", [b"", MARK])
async def test_a_callback_with_any_json_ends_its_task(database: Path, text: bytes, mark: bytes) -> None:
    payload = b'{"status": "OK", "output": ' + text + b"}"
    async with tasking(database) as tasks:
        created = await tasks.create("/work?c={callback_url}", maxWaitTime=60)
        await tasks.reaches(created["task"]["id"], "waiting")
        assert await _post(tasks, created["callbackUrl"], b"NaN") == 400
        assert await _post(tasks, created["callbackUrl"], mark + payload) == 200
        task = await tasks.read(created["task"]["id"])
        assert (task["status"], task["result"]["body"]) == ("completed", payload.decode())


async def test_a_failure_is_recognized_beside_values_that_python_cannot_represent(database: Path) -> None:
    async with tasking(database) as tasks:
        created = await tasks.create("/work?c={callback_url}", maxWaitTime=60)
        await tasks.reaches(created["task"]["id"], "waiting")
        failure = b'{"status": "failed", "error": "half \\ud800", "n": 1e400}'
        assert await _post(tasks, created["callbackUrl"], failure) == 200
        task = await tasks.read(created["task"]["id"])
    assert (task["status"], task["error"]) == ("failed", "half \ufffd")


async def test_a_signal_with_any_json(database: Path) -> None:
    async with tasking(database) as tasks:
        created = await tasks.create("/work", waitForSignal=True, maxWaitTime=60)
        signal = MARK + b'{"status": "completed", "n": 1e400, "half": "\\ud800"}'
        assert await _post(tasks, f"/fal/queue/v1/signals/{created['signalToken']}", signal) == 200
        await tasks.reaches(created["task"]["id"], "completed")


@pytest.mark.parametrize("text", TEXTS, ids=range(len(TEXTS)))
async def test_a_task_may_contain_any_json_beside_its_fields(database: Path, text: bytes) -> None:
    body = MARK + b'{"targetUrl": "/work", "body": "half \\ud800", "unknown": ' + text + b"}"
    async with tasking(database) as tasks:
        made = await tasks.queue.client.post("/fal/queue/v1/tasks", content=body)
        assert made.status_code == 201, made.text
        task = await tasks.reaches(made.json()["task"]["id"], "completed")
        assert json.loads(task["result"]["body"])["body"] == "half \ufffd"
        assert (
            "timeout is '1e400'"
            in (await tasks.call("POST", "/tasks", 400, content=b'{"targetUrl": "/", "timeout": 1e400}'))["error"]
        )


@pytest.mark.parametrize("text", TEXTS, ids=range(len(TEXTS)))
async def test_a_polled_result_keeps_its_text(database: Path, text: bytes) -> None:
    def reply(call: Call) -> Reply:
        return Reply(200, b'{"status": "done", "output": {"v": ' + text + b"}}")

    poll = {"urlTemplate": "/ask", "statusPath": "status", "doneValues": ["done"], "failValues": [], "resultPath": "output"}
    async with tasking(database) as tasks, providing(reply) as provider:
        task = await tasks.run(provider.url, pollConfig={**poll, "interval": 0.1})
    assert task["status"] == "completed"
    kept = task["result"]["body"].encode()
    assert kept.replace(b" ", b"") in (b'{"v":' + text.replace(b" ", b"") + b"}", b'{"v":{"a":2}}')
