"""The command line of both demos: start the servers, run the scenario, report the result, then let the user try."""

from __future__ import annotations

import argparse
import asyncio
import shutil
import signal
import sys
import tempfile
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

import httpx

from .client import CheckFailed, DemoClient
from .display import Display
from .servers import ServerFailed, serving, tail

JWKS = "/fal/queue/.well-known/jwks.json"


@dataclass(frozen=True, slots=True)
class Demo:
    """What is shown: two applications, the scenario, and what a visitor may want to try afterwards.

    `neighbours` are applications that the service calls: name of the variable in which it finds the URL → application.
    """

    title: str
    service: str
    receiver: str
    scenario: Callable[[DemoClient], Awaitable[None]]
    commands: Callable[[DemoClient], Sequence[str]]
    neighbours: Mapping[str, str] = field(default_factory=dict)

    def main(self, arguments: Sequence[str] | None = None) -> int:
        """Run it; returns the exit status."""
        options = _parse(self, arguments)
        for number in (signal.SIGTERM, signal.SIGHUP):  # leave through `finally`, so that no server stays behind
            signal.signal(number, lambda number, _: sys.exit(128 + number))
        display = Display()
        with ExitStack() as stack, suppress(KeyboardInterrupt):
            try:
                return _run(self, options, stack.enter_context(_folder()), display, stack)
            except ServerFailed as error:
                display.line(f"FAILED: {error}", "bold red")
                return 1
        return 130 if options.once else 0  # Ctrl-C is the ordinary end of a visit, and not of a check


def _parse(demo: Demo, arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=demo.title)
    parser.add_argument("--once", action="store_true", help="end after the show: status 0 when every webhook was verified")
    parser.add_argument(
        "--database", type=Path, help="where the queue is kept (default: in a folder that is removed at the end)"
    )
    parser.add_argument("--jwks-url", help="where the receiver fetches the keys (default: the service's own)")
    parser.add_argument("--timeout", type=float, default=60.0, metavar="SECONDS", help="for the show (default: %(default)g)")
    return parser.parse_args(arguments)


@contextmanager
def _folder() -> Iterator[Path]:
    folder = Path(tempfile.mkdtemp(prefix="queue-demo-"))
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _run(demo: Demo, options: argparse.Namespace, folder: Path, display: Display, stack: ExitStack) -> int:
    database = (options.database or folder / "queue.sqlite3").resolve()
    queue = {
        "QUEUE_DATABASE": str(database),
        "QUEUE_OUTBOUND_ALLOW": "127.0.0.1",  # webhooks to private addresses are refused unless the owner says so
        "QUEUE_SHUTDOWN_TIMEOUT": "2s",  # do not wait for the last picture on exit
        "DARKROOM_PICTURES": str(folder / "pictures"),
    }
    for name, app in demo.neighbours.items():
        queue[name] = stack.enter_context(serving(app, folder / f"{name.lower()}.log", {}))
    service = stack.enter_context(serving(demo.service, folder / "service.log", queue))
    keys = options.jwks_url or service + JWKS
    receiver = stack.enter_context(serving(demo.receiver, folder / "receiver.log", {"JWKS_URL": keys}))
    display.line(demo.title, "bold")
    display.line(f"  service   {service}    its queue: {service}/fal/queue")
    display.line(f"  receiver  {receiver}    trusts the keys of {keys}")
    for name in demo.neighbours:
        display.line(f"  {name.lower():<9} {queue[name]}    an external service, which calls back")
    display.line(f"  database  {database}{'' if options.database else '    (removed at the end; --database keeps one)'}\n")
    status = asyncio.run(_show(demo, options, service, receiver, display))
    if status:
        display.line(f"the end of the service's log:\n{tail(folder / 'service.log')}")
    return status


async def _show(demo: Demo, options: argparse.Namespace, service: str, receiver: str, display: Display) -> int:
    # No proxy from the environment: everything here is on this machine.
    async with httpx.AsyncClient(trust_env=False, timeout=15) as http:
        client = DemoClient(service, receiver, http, display)
        if reason := await _failure(demo, client, options.timeout):
            display.line(f"\nFAILED: {reason}", "bold red")
            return 1
        display.line(f"\nOK: {len(client.requests)} requests, every webhook arrived and was verified", "bold green")
        if not options.once:
            display.line("\nNow you. Copy a line into another terminal; Ctrl-C ends the servers here.\n", "bold")
            for command in demo.commands(client):
                display.line(f"  {command}")
            await _show_arrivals(client)
        return 0


async def _failure(demo: Demo, client: DemoClient, seconds: float) -> str | None:
    reason = None
    try:
        async with asyncio.timeout(seconds):
            with client.display.showing():
                await demo.scenario(client)
    except* (CheckFailed, httpx.HTTPError) as group:  # the scenario may run things side by side, in a task group
        reason = _first(group)
    except* TimeoutError:
        waiting = ", ".join(watched.row.label for watched in client.requests if not watched.row.webhook)
        reason = f"not done after {seconds:g} s; without a verified webhook: {waiting or 'none'}"
    return reason


def _first(group: BaseException) -> str:
    while isinstance(group, BaseExceptionGroup):
        group = group.exceptions[0]
    return str(group) or repr(group)


async def _show_arrivals(client: DemoClient) -> None:
    """Print every webhook that arrives from now on."""
    told = {watched.request_id for watched in client.requests}
    while True:
        await asyncio.sleep(0.5)
        arrived = (await client.http.get(f"{client.receiver}/webhooks")).json()["accepted"]
        for message in arrived:
            if message["request_id"] not in told:
                told.add(message["request_id"])
                client.display.line(f"verified webhook: {message['request_id']} {message['status']} {message['error'] or ''}")
