"""`queue-middleware trigger`: send a sample webhook to a receiver, as the service would send it."""

from __future__ import annotations

import argparse
import sys
from time import monotonic
from typing import Any

import httpx
import msgspec

from queue_middleware.errors import BadRequest
from queue_middleware.jobs.ids import is_request_id
from queue_middleware.jobs.struct import Struct

from .exit_codes import Exit, NotUnderstood, Unreachable
from .flags import seconds, set_command
from .output import Terminal, printable
from .request_data import read_data
from .sample_webhook import KINDS, Sample, SampleMessage, build_sample, new_request_id
from .service import http_url
from .trigger_key import key_set_of, trigger_key

_TIMEOUT = 15.0
_LONGEST_SHOWN = 1000
_KIND_HELP = "completed, failed (the request got no response), started or progress"


class Delivery(Struct, frozen=True):
    """What the receiver responded."""

    request_id: str
    webhook_id: str
    status: int
    body: str
    """At most 1,000 characters."""


OUTPUTS: dict[str, Any] = {"trigger": Delivery}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments."""
    parser.add_argument("kind", metavar="KIND", choices=KINDS, help=_KIND_HELP)
    goal = parser.add_mutually_exclusive_group(required=True)
    goal.add_argument("--to", metavar="URL", help="the receiver")
    goal.add_argument("--print", action="store_true", help="print the HTTP request instead of sending it, e.g. for `verify -`")
    goal.add_argument("--key-set", action="store_true", help="print the key set (JWKS) with which samples can be verified")
    parser.add_argument("--request", metavar="ID", help="the request id; default: a new one")
    parser.add_argument(
        "--data", metavar="JSON", help="the response of the application, or the progress; @FILE for a file, @- for stdin"
    )
    parser.add_argument("--status", metavar="N", type=int, default=200, help="the status of that response; default 200")
    parser.add_argument("--secret", metavar="SECRET", action="append", default=[], help="sign with whsec_… too; repeatable")
    parser.add_argument("--no-sign", action="store_true", help="leave out all signature headers")
    parser.add_argument("--timeout", metavar="TIME", type=seconds, default=_TIMEOUT, help="wait for the response; default 15s")
    parser.description = trigger.__doc__
    set_command(parser, trigger, database=False)


def trigger(chosen: argparse.Namespace, terminal: Terminal) -> int:
    """Send a sample webhook, built and signed like those of a service, but with a key of this user.

    `listen` and `verify` know this key; other receivers need the key set of `--key-set`. Exit status 4 if the receiver does not
    accept the webhook.
    """
    if terminal.json and chosen.to is None:
        raise NotUnderstood("--json describes the response of a receiver; pass it with --to, not with --print or --key-set")
    pair = trigger_key()
    if chosen.key_set:
        terminal.print(key_set_of(pair).decode())
        return Exit.DONE
    sample = _sample(chosen, terminal)
    try:
        message = build_sample(sample, pair, chosen.secret, terminal.clock, sign=not chosen.no_sign)
    except msgspec.DecodeError as error:
        raise NotUnderstood(f'--data: {error}; progress is written as {{"fraction": 0.4, "stage": "text"}}') from None
    if chosen.print:
        sys.stdout.buffer.write(_as_text(message))
        sys.stdout.flush()
        return Exit.DONE
    response, body = _send(http_url(chosen.to, "--to"), message, chosen.timeout)
    _print(response, body, sample, message, terminal)
    return Exit.DONE if response.is_success else Exit.REQUEST_FAILED


def _sample(chosen: argparse.Namespace, terminal: Terminal) -> Sample:
    if chosen.request is not None and not is_request_id(chosen.request):
        raise BadRequest(f"request id {chosen.request[:64]!r} is not a UUID")
    if not 200 <= chosen.status <= 599:
        raise NotUnderstood(f"--status needs a status of a response, 200 to 599, not {chosen.status}")
    data = None if chosen.data is None else read_data(chosen.data)
    return Sample(chosen.kind, chosen.request or new_request_id(terminal.clock()), data, chosen.status)


def _send(url: str, message: SampleMessage, timeout: float) -> tuple[httpx.Response, str]:
    """POST it, like the service: without redirects, and without proxies of the environment. The text begins the body."""
    deadline, text = monotonic() + timeout, ""
    headers = list(message.headers)
    try:
        with (
            httpx.Client(trust_env=False, timeout=timeout) as client,
            client.stream("POST", url, content=message.body, headers=headers) as response,
        ):
            for part in response.iter_text():
                text += part
                if len(text) >= _LONGEST_SHOWN or monotonic() >= deadline:
                    break
    except httpx.HTTPError as error:
        raise Unreachable(f"the receiver cannot be reached: {error or type(error).__name__}") from None
    return response, text[:_LONGEST_SHOWN]


def _print(response: httpx.Response, body: str, sample: Sample, message: SampleMessage, terminal: Terminal) -> None:
    if terminal.json:
        terminal.print_json(Delivery(sample.request_id, message.webhook_id, response.status_code, body))
        return
    verdict = "accepted" if response.is_success else "not accepted; the service would try again later, except after 3xx and 410"
    terminal.print(printable(f"{message.webhook_id}  {sample.kind}  {response.status_code}: {verdict}"))
    if body:
        terminal.print(printable(body))


def _as_text(message: SampleMessage) -> bytes:
    lines = [b"POST / HTTP/1.1", b"host: receiver.example", b"content-length: %d" % len(message.body)]
    lines += [name + b": " + value for name, value in message.headers]
    return b"\r\n".join(lines) + b"\r\n\r\n" + message.body
