"""The demo of the FastAPI service: `python -m examples.fastapi_app.demo`; with `--once` it exits after the scenario."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Sequence

from examples._demo.client import CheckFailed, DemoClient
from examples._demo.command import JWKS, Demo


async def scenario(client: DemoClient) -> None:
    """Submit seven requests for two slots: five succeed, the service rejects one, and one is cancelled while it runs.

    One of the five holds its slot only briefly: an external service does the work and calls back.
    """
    sheet = await client.submit("contact sheet, 200", "/contact-sheet", {"frames": 200}, expected=499)
    await client.submit("enlarge x4", "/enlarge", {"scale": 4, "rounds": 30})
    await client.submit("enlarge x3", "/enlarge", {"scale": 3, "rounds": 30})
    await client.submit("enlarge x40 (mistake)", "/enlarge", {"scale": 40}, expected=422)
    await client.submit("enlarge x2", "/enlarge", {"scale": 2, "rounds": 30})
    await client.submit("retouch", "/retouch", {})
    await client.submit("contact sheet, 6", "/contact-sheet", {"frames": 6})
    async with asyncio.TaskGroup() as group:
        for watched in client.requests:
            if watched is not sheet:
                group.create_task(client.wait_until_completed(watched))
        await client.wait_until_running(sheet, fraction=0.02)
        await client.cancel(sheet)
        await client.wait_until_completed(sheet)
    # The queue reports that the sheet was cancelled. Check with the service itself that the work stopped.
    sheets = (await client.http.get(f"{client.service}/sheets")).json()
    if not sheets["stopped"]:
        raise CheckFailed(f"expected the cancelled contact sheet to stop, but the service reports {sheets}")


def commands(client: DemoClient) -> Sequence[str]:
    """Commands to paste into a terminal."""
    queue, response = f"{client.service}/fal/queue", client.requests[1].response
    picture = response.json()["picture"] if response else ""
    request = client.requests[1].urls
    post = "curl -X POST -H 'content-type: application/json'"
    return (
        f"{post} -d '{{\"scale\": 4, \"rounds\": 100}}' '{queue}/submit/enlarge?fal_webhook={client.receiver}/webhook'",
        f"curl '{request['status_url']}'",
        f"curl '{request['response_url']}'",
        f"curl -X PUT '{request['cancel_url']}'",
        f"curl -o enlarged.jpg '{client.service}{picture}'",
        f"{post} -d '{{\"scale\": 2}}' '{client.service}/enlarge'    # the same endpoint without the queue",
        f"{post} -d '{{}}' '{queue}/submit/retouch?fal_webhook={client.receiver}/webhook'    # waits for the retoucher",
        f"curl '{client.receiver}/webhooks'",
        f"curl '{client.service}{JWKS}'",
    )


DEMO = Demo(
    title="queue_middleware: a FastAPI service with a queue",
    service="examples.fastapi_app.service:app",
    receiver="examples.fastapi_app.receiver:app",
    scenario=scenario,
    commands=commands,
    external_services={"RETOUCHER": "examples.fastapi_app.retoucher:app"},
)

if __name__ == "__main__":
    sys.exit(DEMO.main())
