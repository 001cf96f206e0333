"""See it work: `python -m examples.flask_via_a2wsgi.demo`, or with `--once` to end after the show with a verdict."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Sequence

from examples.stage.command import JWKS, Demonstration
from examples.stage.watch import Disappointed, Watcher


async def play(watcher: Watcher) -> None:
    """Four requests: two succeed, one is refused by the view, one is cancelled while a thread works on it."""
    doomed = await watcher.submit("enlarge x4, 60 rounds", "/enlarge", {"scale": 4, "rounds": 60}, expected=499)
    await watcher.submit("enlarge x3", "/enlarge", {"scale": 3, "rounds": 30})
    await watcher.submit("enlarge x40 (mistake)", "/enlarge", {"scale": 40}, expected=422)
    await watcher.submit("enlarge x2", "/enlarge", {"scale": 2, "rounds": 30})
    async with asyncio.TaskGroup() as group:
        for watched in watcher.requests:
            if watched is not doomed:
                group.create_task(watcher.until_over(watched))
        await watcher.until_running(doomed, fraction=0.2)
        await watcher.cancel(doomed)
        await watcher.until_over(doomed)
    await _show_the_limit(watcher)


async def _show_the_limit(watcher: Watcher) -> None:
    """A thread cannot be stopped: what was cancelled is worked on to its end, and its result is thrown away."""
    counts = {"begun": 0, "finished": -1}
    while counts["finished"] < counts["begun"]:
        counts = (await watcher.client.get(f"{watcher.service}/counts")).json()
        await asyncio.sleep(0.1)
    if counts["begun"] != 3:
        raise Disappointed(f"three enlargements ought to be begun, but the service says {counts}")
    watcher.display.line("\nThe cancelled enlargement was finished all the same by its thread, and its result discarded.")


def commands(watcher: Watcher) -> Sequence[str]:
    """Lines to paste."""
    request = watcher.requests[1].urls
    post = "curl -X POST -H 'content-type: application/json'"
    submit = f"{watcher.service}/fal/queue/submit/enlarge?fal_webhook={watcher.receiver}/webhook"
    return (
        f"{post} -d '{{\"scale\": 4, \"rounds\": 100}}' '{submit}'",
        f"curl '{request['status_url']}'",
        f"curl '{request['response_url']}'",
        f"curl -X PUT '{request['cancel_url']}'",
        f"curl '{watcher.receiver}/webhooks'",
        f"curl '{watcher.service}{JWKS}'",
    )


DEMONSTRATION = Demonstration(
    title="queue_middleware: a Flask service with a queue, through a2wsgi",
    service="examples.flask_via_a2wsgi.service:app",
    receiver="examples.flask_via_a2wsgi.receiver:app",
    play=play,
    commands=commands,
)

if __name__ == "__main__":
    sys.exit(DEMONSTRATION.main())
