"""The demo of the Flask service: `python -m examples.flask_via_a2wsgi.demo`; with `--once` it exits after the scenario."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Sequence

from examples._demo.client import CheckFailed, DemoClient
from examples._demo.command import JWKS, Demo


async def scenario(client: DemoClient) -> None:
    """Submit four requests: two succeed, the view rejects one, and one is cancelled while a thread works on it."""
    cancelled = await client.submit("enlarge x4, 60 rounds", "/enlarge", {"scale": 4, "rounds": 60}, expected=499)
    await client.submit("enlarge x3", "/enlarge", {"scale": 3, "rounds": 30})
    await client.submit("enlarge x40 (mistake)", "/enlarge", {"scale": 40}, expected=422)
    await client.submit("enlarge x2", "/enlarge", {"scale": 2, "rounds": 30})
    async with asyncio.TaskGroup() as group:
        for watched in client.requests:
            if watched is not cancelled:
                group.create_task(client.wait_until_completed(watched))
        await client.wait_until_running(cancelled, fraction=0.2)
        await client.cancel(cancelled)
        await client.wait_until_completed(cancelled)
    await _show_thread_limit(client)


async def _show_thread_limit(client: DemoClient) -> None:
    """Show that a thread cannot be stopped: the cancelled work runs to its end, and its result is discarded."""
    counts = {"started": 0, "finished": -1}
    while counts["finished"] < counts["started"]:
        counts = (await client.http.get(f"{client.service}/counts")).json()
        await asyncio.sleep(0.1)
    if counts["started"] != 3:
        raise CheckFailed(f"expected three started enlargements, but the service reports {counts}")
    client.display.line("\nA thread finished the cancelled enlargement anyway, and the queue discarded its result.")


def commands(client: DemoClient) -> Sequence[str]:
    """Commands to paste into a terminal."""
    request = client.requests[1].urls
    post = "curl -X POST -H 'content-type: application/json'"
    submit = f"{client.service}/fal/queue/submit/enlarge?fal_webhook={client.receiver}/webhook"
    return (
        f"{post} -d '{{\"scale\": 4, \"rounds\": 100}}' '{submit}'",
        f"curl '{request['status_url']}'",
        f"curl '{request['response_url']}'",
        f"curl -X PUT '{request['cancel_url']}'",
        f"curl '{client.receiver}/webhooks'",
        f"curl '{client.service}{JWKS}'",
    )


DEMO = Demo(
    title="queue_middleware: a Flask service with a queue, through a2wsgi",
    service="examples.flask_via_a2wsgi.service:app",
    receiver="examples.flask_via_a2wsgi.receiver:app",
    scenario=scenario,
    commands=commands,
)

if __name__ == "__main__":
    sys.exit(DEMO.main())
