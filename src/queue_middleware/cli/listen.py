"""`queue-middleware listen`: a receiver of webhooks on this machine, which shows and checks each one."""

from __future__ import annotations

import argparse
import asyncio
import ipaddress
import time
from typing import Any

from queue_middleware.errors import SettingsError
from queue_middleware.secret_file import reason_of

from .exit_codes import CommandError, Exit
from .flags import seconds, set_command
from .incoming_webhooks import Arrival, IncomingWebhooks, Plan
from .known_keys import add_key_arguments, checker_of
from .loopback_server import LoopbackServer
from .output import Terminal, printable
from .service import http_url
from .trigger_key import key_set_of, trigger_key

OUTPUTS: dict[str, Any] = {"listen": Arrival}
_LONGEST_SHOWN = 2000


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments."""
    parser.add_argument("--port", metavar="N", type=_port, default=8787, help="default 8787; 0 for a free one")
    parser.add_argument("--host", metavar="ADDRESS", default="127.0.0.1", help="default 127.0.0.1: only this machine")
    parser.add_argument("--forward-to", metavar="URL", help="send valid webhooks on, and respond with the response to that")
    parser.add_argument(
        "--answer",
        metavar="STATUS,…",
        type=_statuses,
        default=(200,),
        help="the statuses of the responses to the attempts of each webhook, e.g. 500,500,200; the last one is repeated",
    )
    parser.add_argument("--delay", metavar="TIME", type=seconds, default=0.0, help="wait before each response, e.g. 2s")
    parser.add_argument("--body", action="store_true", help="print the body of each webhook too")
    add_key_arguments(parser)
    parser.description = listen.__doc__
    set_command(parser, listen, database=False)


def listen(chosen: argparse.Namespace, terminal: Terminal) -> int:
    """Receive webhooks, check each one, and print a line for it, until Ctrl-C or SIGTERM.

    A valid webhook gets 200, the statuses of `--answer`, or the response of `--forward-to`; others get 401, or 503 if the key
    set cannot be fetched. The samples of `trigger` are valid too, and their key set is at `/.well-known/jwks.json`. With
    `--json`, each webhook is one JSON object on a line of its own.
    """
    forward_to = None if chosen.forward_to is None else http_url(chosen.forward_to, "--forward-to")
    try:
        key_set = key_set_of(trigger_key())
    except SettingsError as error:
        key_set = None  # the service's webhooks can be checked without it
        terminal.note(f"samples of `trigger` cannot be checked: {error.detail}")
    view = _View(terminal, show_body=chosen.body)
    plan = Plan(chosen.answer, chosen.delay, forward_to)
    incoming = IncomingWebhooks(checker_of(chosen, terminal.clock), plan, key_set, view.show, terminal.clock)
    try:
        asyncio.run(_serve(incoming, chosen, view))
    except BrokenPipeError:  # that of standard output
        raise
    except OSError as error:
        raise CommandError(f"cannot listen on {chosen.host} port {chosen.port}: {reason_of(error)}") from error
    view.close()
    return Exit.DONE


async def _serve(incoming: IncomingWebhooks, chosen: argparse.Namespace, view: _View) -> None:
    server = LoopbackServer(incoming.handle)
    await server.run(chosen.host, chosen.port, lambda port: view.open(chosen.host, port))


class _View:
    """Prints arrivals, and what they were in total."""

    def __init__(self, terminal: Terminal, *, show_body: bool) -> None:
        self._terminal = terminal
        self._show_body = show_body
        self._webhooks = 0
        self._refused = 0
        self._requests: set[str] = set()

    def open(self, host: str, port: int) -> None:
        """The server listens."""
        address = f"[{host}]" if ":" in host else host
        allowed = " with an address of this machine" if host in ("0.0.0.0", "::") else f'="{host}"'  # noqa: S104 - as given
        self._terminal.note(f"listening on http://{address}:{port}/   (the service needs outbound_allow{allowed})")
        if not _is_loopback(host):
            self._terminal.note("other machines can reach this address; valid webhooks are accepted from all of them")

    def show(self, arrival: Arrival) -> None:
        """A webhook was responded to."""
        self._webhooks += 1
        self._refused += not arrival.valid
        if arrival.valid:
            self._requests.add(arrival.request_id)
        if self._terminal.json:
            self._terminal.print_json(arrival, indent=None)
        else:
            self._print(arrival)
        self._terminal.flush()

    def close(self) -> None:
        """The server has ended."""
        webhooks, requests = _count(self._webhooks, "delivery attempt"), _count(len(self._requests), "request")
        self._terminal.note(f"{webhooks} for {requests}, {self._refused} not valid")

    def _print(self, arrival: Arrival) -> None:
        at = time.strftime("%H:%M:%S", (time.gmtime if self._terminal.utc else time.localtime)(arrival.at / 1000))
        status = f"{arrival.status} {arrival.note}".strip()
        line = f"{at}  {arrival.request_id or '-'}  {arrival.kind:10}  {status:18}  {_signature_text(arrival)}"
        self._terminal.print(printable(line))
        for text in arrival.explanation:
            self._terminal.print(printable(f"          {text}"))
        if self._show_body:
            self._terminal.print(printable(f"          {arrival.body[:_LONGEST_SHOWN]}"))


def _signature_text(arrival: Arrival) -> str:
    if not arrival.valid:
        return f"not valid: {arrival.reason}"
    repeated = f", attempt {arrival.attempt} of the same webhook" if arrival.attempt > 1 else ""
    return f"valid ({arrival.signed_by}), signed {arrival.age} s ago{repeated}"


def _count(number: int, noun: str) -> str:
    return f"{number:,} {noun}" + ("" if number == 1 else "s")


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _port(text: str) -> int:
    if not text.isdecimal() or int(text) > 65535:
        raise argparse.ArgumentTypeError(f"{text!r} is not a port, 0 to 65535")
    return int(text)


def _statuses(text: str) -> tuple[int, ...]:
    words = [word.strip() for word in text.split(",")]
    if not all(word.isdecimal() and 200 <= int(word) <= 599 for word in words):
        raise argparse.ArgumentTypeError(f"{text!r} is not a list of statuses of responses, e.g. 500,500,200")
    return tuple(map(int, words))
