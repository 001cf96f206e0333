"""See it work: `python -m examples.fastapi_app.demo`, or with `--once` to end after the show with a verdict."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Sequence

from examples._demo.client import CheckFailed, DemoClient
from examples._demo.command import JWKS, Demo


async def scenario(client: DemoClient) -> None:
    """Seven requests for two places: some wait, five succeed, one is refused by the service, one is cancelled in the middle.

    One leaves its place at once: an external service does the work, and calls back.
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
                group.create_task(client.until_over(watched))
        await client.until_running(sheet, fraction=0.02)
        await client.cancel(sheet)
        await client.until_over(sheet)
    # The queue says that the sheet was cancelled. Ask the service itself whether it really stopped.
    sheets = (await client.http.get(f"{client.service}/sheets")).json()
    if not sheets["stopped"]:
        raise CheckFailed(f"expected the cancelled contact sheet to stop, but the service reports {sheets}")


def commands(client: DemoClient) -> Sequence[str]:
    """Lines to paste."""
    queue, answer = f"{client.service}/fal/queue", client.requests[1].answer
    picture = answer.json()["picture"] if answer else ""
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
    neighbours={"RETOUCHER": "examples.fastapi_app.retoucher:app"},
)

if __name__ == "__main__":
    sys.exit(DEMO.main())
