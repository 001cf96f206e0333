"""Callback URLs in plain submissions and in handlers, against the whole middleware."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

from tests.asgi import Message, Receive, Send, answer, http_only
from tests.queueing import Queue, eventually, serving

URL = re.compile(r"http://service\.test/fal/queue/v1/callbacks/([0-9a-f]{64})")


class Provider:
    """An application that starts work for somebody outside, and remembers how it was called."""

    def __init__(self, status: int = 202, body: bytes = b'{"started": true}') -> None:
        self.calls: list[dict[str, Any]] = []
        self.status = status
        self.body = body

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        body = (await receive())["body"]
        self.calls.append({**scope, "body": body})
        await answer(send, self.body, self.status)


def callback_path(text: str | bytes) -> str:
    """The path of the callback URL in a text."""
    found = URL.search(text if isinstance(text, str) else text.decode())
    assert found, text
    return f"/fal/queue/v1/callbacks/{found[1]}"


async def call_back(queue: Queue, path: str, payload: Any = None, status: int = 200, **request: Any) -> None:
    told = await queue.client.post(path, **(request or {"json": payload or {"status": "OK"}}))
    assert told.status_code == status, told.text


async def test_a_submission_with_the_place_in_its_body_waits_for_its_callback(database: Path) -> None:
    provider = Provider()
    async with serving(http_only(provider), database) as queue:
        request_id = await queue.submit("POST", "/start", json={"webhook": "{callback_url}", "prompt": 'a "cat"'})
        await eventually(lambda: provider.calls)
        (call,) = provider.calls
        given = json.loads(call["body"])
        assert dict(call["headers"])[b"content-length"] == b"%d" % len(call["body"])
        assert (await queue.status(request_id))["status"] == "IN_PROGRESS"
        await call_back(queue, callback_path(given["webhook"]), {"images": ["cat.png"]})
        result = await queue.response(request_id)
    assert (result.status_code, result.json()) == (200, {"images": ["cat.png"]})
