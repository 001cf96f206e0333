"""Spans of one request in three processes: one accepts it, another runs it, a third repeats its webhook after a restart."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.support.queue_client import eventually
from tests.support.webhook_receiver import Webhook, receiving

from .servers import Server, serving, uvicorn

pytestmark = pytest.mark.slow


def spans_of(server: Server, name: str) -> list[dict[str, Any]]:
    return [span for line in server.lines("spans") if (span := json.loads(line))["name"] == name]


async def test_spans_are_linked_over_processes_and_a_restart(tmp_path: Path) -> None:
    first_folder, second_folder = tmp_path / "first", tmp_path / "second"
    for folder in (first_folder, second_folder):
        folder.mkdir()
        (folder / "record-spans").touch()
    database = first_folder / "queue.sqlite3"
    options = {"concurrency": 1, "webhook_schedule": "1s,1s,1s,1s", "paths": "/*", "database": database}
    statuses = iter([503, 503])

    def respond(webhook: Webhook) -> int:
        return 200 if is_restarted else next(statuses, 503)

    is_restarted = False
    async with receiving(respond) as receiver, serving(uvicorn(), first_folder, **options) as first:
        async with first.queue() as queue:
            await queue.submit("POST", "/gated")
            await eventually(lambda: first.lines("entered"))
            request_id = await queue.submit("POST", "/square", json={"n": 3}, params={"fal_webhook": receiver.url})
            async with serving(uvicorn(), second_folder, **options) as second:
                await queue.reaches(request_id, "COMPLETED")
                (process,) = await eventually(lambda: spans_of(second, "process /*"))
                await eventually(lambda: receiver.webhooks_for(request_id))
        await first.kill_all()
        is_restarted = True
        earlier = len(spans_of(first, "POST"))
        await first.start()
        posts = await eventually(lambda: spans_of(first, "POST")[earlier:])
        submit = spans_of(first, "submit /*")[-1]
    assert process["links"] == [submit["id"]]
    assert {process["parent"], *(post["parent"] for post in posts)} == {None}
    assert [post["links"] for post in posts] == [[process["id"]]] * len(posts)
    assert len({submit["pid"], process["pid"], posts[0]["pid"]}) == 3
    sent = [webhook.headers["traceparent"].split("-")[2].lstrip("0") for webhook in receiver.webhooks_for(request_id)]
    assert posts[0]["id"] in sent
