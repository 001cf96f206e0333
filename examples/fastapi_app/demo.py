"""See it work: `python -m examples.fastapi_app.demo`, or with `--once` to end after the show with a verdict."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Sequence

from examples.stage.command import JWKS, Demonstration
from examples.stage.watch import Disappointed, Watcher


async def play(watcher: Watcher) -> None:
    """Seven requests for two places: some wait, five succeed, one is refused by the service, one is cancelled in the middle.

    One leaves its place at once: somebody else does the work, and calls back.
    """
    sheet = await watcher.submit("contact sheet, 200", "/contact-sheet", {"frames": 200}, expected=499)
    await watcher.submit("enlarge x4", "/enlarge", {"scale": 4, "rounds": 30})
    await watcher.submit("enlarge x3", "/enlarge", {"scale": 3, "rounds": 30})
    await watcher.submit("enlarge x40 (mistake)", "/enlarge", {"scale": 40}, expected=422)
    await watcher.submit("enlarge x2", "/enlarge", {"scale": 2, "rounds": 30})
    await watcher.submit("retouch", "/retouch", {})
    await watcher.submit("contact sheet, 6", "/contact-sheet", {"frames": 6})
    async with asyncio.TaskGroup() as group:
        for watched in watcher.requests:
            if watched is not sheet:
                group.create_task(watcher.until_over(watched))
        await watcher.until_running(sheet, fraction=0.02)
        await watcher.cancel(sheet)
        await watcher.until_over(sheet)
    # The queue says that the sheet was cancelled. Ask the service itself whether it really stopped.
    sheets = (await watcher.client.get(f"{watcher.service}/sheets")).json()
    if not sheets["stopped"]:
        raise Disappointed(f"the cancelled contact sheet ought to have stopped, but the service says {sheets}")


def commands(watcher: Watcher) -> Sequence[str]:
    """Lines to paste."""
    queue, answer = f"{watcher.service}/fal/queue", watcher.requests[1].answer
    picture = answer.json()["picture"] if answer else ""
    request = watcher.requests[1].urls
    post = "curl -X POST -H 'content-type: application/json'"
    return (
        f"{post} -d '{{\"scale\": 4, \"rounds\": 100}}' '{queue}/submit/enlarge?fal_webhook={watcher.receiver}/webhook'",
        f"curl '{request['status_url']}'",
        f"curl '{request['response_url']}'",
        f"curl -X PUT '{request['cancel_url']}'",
        f"curl -o enlarged.jpg '{watcher.service}{picture}'",
        f"{post} -d '{{\"scale\": 2}}' '{watcher.service}/enlarge'    # the same endpoint without the queue",
        f"{post} -d '{{}}' '{queue}/submit/retouch?fal_webhook={watcher.receiver}/webhook'    # waits for the retoucher",
        f"curl '{watcher.receiver}/webhooks'",
        f"curl '{watcher.service}{JWKS}'",
    )


DEMONSTRATION = Demonstration(
    title="queue_middleware: a FastAPI service with a queue",
    service="examples.fastapi_app.service:app",
    receiver="examples.fastapi_app.receiver:app",
    play=play,
    commands=commands,
    neighbours={"RETOUCHER": "examples.fastapi_app.retoucher:app"},
)

if __name__ == "__main__":
    sys.exit(DEMONSTRATION.main())
