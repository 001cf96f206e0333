"""The command line of both demos: start the servers, run the scenario, report the result, and print commands to try."""

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
    """One demo: the applications that it starts, its scenario, and the commands that it prints afterwards.

    `external_services` are applications that the service calls: name of the variable that holds the URL → application.
    """

    title: str
    service: str
    receiver: str
    scenario: Callable[[DemoClient], Awaitable[None]]
    commands: Callable[[DemoClient], Sequence[str]]
    external_services: Mapping[str, str] = field(default_factory=dict)

    def main(self, arguments: Sequence[str] | None = None) -> int:
        """Run the demo and return the exit status."""
        options = _parse(self, arguments)
        for number in (signal.SIGTERM, signal.SIGHUP):  # exit through `finally`, which stops the servers
            signal.signal(number, lambda number, _: sys.exit(128 + number))
        display = Display()
        with ExitStack() as stack, suppress(KeyboardInterrupt):
            try:
                return _run(self, options, stack.enter_context(_folder()), display, stack)
            except ServerFailed as error:
                display.line(f"FAILED: {error}", "bold red")
                return 1
        return 130 if options.once else 0  # Ctrl-C ends the demo normally, but not a check


def _parse(demo: Demo, arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=demo.title)
    parser.add_argument(
        "--once", action="store_true", help="exit after the scenario, with status 0 if every webhook was verified"
    )
    parser.add_argument(
        "--database", type=Path, help="the queue's database file (default: in a folder that is removed at the end)"
    )
    parser.add_argument("--jwks-url", help="URL from which the receiver fetches the keys (default: the service's own)")
    parser.add_argument(
        "--timeout", type=float, default=60.0, metavar="SECONDS", help="time limit of the scenario (default: %(default)g)"
    )
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
        "QUEUE_OUTBOUND_ALLOW": "127.0.0.1",  # without this, webhooks to private addresses are refused
        "QUEUE_SHUTDOWN_TIMEOUT": "2s",  # do not wait long for running requests on exit
        "DARKROOM_PICTURES": str(folder / "pictures"),
    }
    for name, app in demo.external_services.items():
        queue[name] = stack.enter_context(serving(app, folder / f"{name.lower()}.log", {}))
    service = stack.enter_context(serving(demo.service, folder / "service.log", queue))
    keys = options.jwks_url or service + JWKS
    receiver = stack.enter_context(serving(demo.receiver, folder / "receiver.log", {"JWKS_URL": keys}))
    display.line(demo.title, "bold")
    display.line(f"  service   {service}    its queue: {service}/fal/queue")
    display.line(f"  receiver  {receiver}    trusts the keys of {keys}")
    for name in demo.external_services:
        display.line(f"  {name.lower():<9} {queue[name]}    external service, calls back")
    display.line(f"  database  {database}{'' if options.database else '    (removed at the end; use --database to keep it)'}\n")
    status = asyncio.run(_run_scenario(demo, options, service, receiver, display))
    if status:
        display.line(f"last lines of the service's log:\n{tail(folder / 'service.log')}")
    return status


async def _run_scenario(demo: Demo, options: argparse.Namespace, service: str, receiver: str, display: Display) -> int:
    # Ignore proxies in the environment: all servers run on this machine.
    async with httpx.AsyncClient(trust_env=False, timeout=15) as http:
        client = DemoClient(service, receiver, http, display)
        if reason := await _failure(demo, client, options.timeout):
            display.line(f"\nFAILED: {reason}", "bold red")
            return 1
        display.line(f"\nOK: {len(client.requests)} requests, every webhook was received and verified", "bold green")
        if not options.once:
            display.line("\nTry it: paste a line into another terminal. Ctrl-C stops the servers.\n", "bold")
            for command in demo.commands(client):
                display.line(f"  {command}")
            await _print_webhooks(client)
        return 0


async def _failure(demo: Demo, client: DemoClient, seconds: float) -> str | None:
    reason = None
    try:
        async with asyncio.timeout(seconds):
            with client.display.showing():
                await demo.scenario(client)
    except* (CheckFailed, httpx.HTTPError) as group:  # a scenario may run steps concurrently, in a task group
        reason = _first(group)
    except* TimeoutError:
        waiting = ", ".join(watched.row.label for watched in client.requests if not watched.row.webhook)
        reason = f"not done after {seconds:g} s; no verified webhook for: {waiting or 'none'}"
    return reason


def _first(group: BaseException) -> str:
    while isinstance(group, BaseExceptionGroup):
        group = group.exceptions[0]
    return str(group) or repr(group)


async def _print_webhooks(client: DemoClient) -> None:
    """Print every webhook that the receiver gets from now on."""
    printed = {watched.request_id for watched in client.requests}
    while True:
        await asyncio.sleep(0.5)
        arrived = (await client.http.get(f"{client.receiver}/webhooks")).json()["accepted"]
        for message in arrived:
            if message["request_id"] not in printed:
                printed.add(message["request_id"])
                client.display.line(f"verified webhook: {message['request_id']} {message['status']} {message['error'] or ''}")
