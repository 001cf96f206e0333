"""See it work: `python -m examples.flask_via_a2wsgi.demo`, or with `--once` to end after the show with a verdict."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Sequence

from examples._demo.client import CheckFailed, DemoClient
from examples._demo.command import JWKS, Demo


async def scenario(client: DemoClient) -> None:
    """Four requests: two succeed, one is refused by the view, one is cancelled while a thread works on it."""
    doomed = await client.submit("enlarge x4, 60 rounds", "/enlarge", {"scale": 4, "rounds": 60}, expected=499)
    await client.submit("enlarge x3", "/enlarge", {"scale": 3, "rounds": 30})
    await client.submit("enlarge x40 (mistake)", "/enlarge", {"scale": 40}, expected=422)
    await client.submit("enlarge x2", "/enlarge", {"scale": 2, "rounds": 30})
    async with asyncio.TaskGroup() as group:
        for watched in client.requests:
            if watched is not doomed:
                group.create_task(client.until_over(watched))
        await client.until_running(doomed, fraction=0.2)
        await client.cancel(doomed)
        await client.until_over(doomed)
    await _show_the_limit(client)


async def _show_the_limit(client: DemoClient) -> None:
    """A thread cannot be stopped: what was cancelled is worked on to its end, and its result is thrown away."""
    counts = {"begun": 0, "finished": -1}
    while counts["finished"] < counts["begun"]:
        counts = (await client.http.get(f"{client.service}/counts")).json()
        await asyncio.sleep(0.1)
    if counts["begun"] != 3:
        raise CheckFailed(f"expected three started enlargements, but the service reports {counts}")
    client.display.line("\nThe cancelled enlargement was finished all the same by its thread, and its result discarded.")


def commands(client: DemoClient) -> Sequence[str]:
    """Lines to paste."""
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
