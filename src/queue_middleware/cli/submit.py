"""`queue-middleware submit`: submit a request to a running queue, wait for its end, and print the response."""

from __future__ import annotations

import argparse
import shlex
from contextlib import closing
from typing import Any

from queue_middleware.jobs.ids import is_request_id
from queue_middleware.jobs.struct import Struct

from .exit_codes import CommandError, Exit, NotUnderstood
from .flags import seconds, set_command
from .output import Terminal
from .progress_lines import ProgressLines
from .queue_client import Event, QueueClient, Submission, WaitIsOver
from .request_data import header, read_data
from .response_output import Written, write_response
from .service import add_key, add_url, http_url, key_headers, shown_url, url_of

_METHODS = ("POST", "GET", "PUT", "PATCH", "DELETE")
_DEFAULT_WAIT = 60.0


class Submitted(Struct, frozen=True):
    """The request, and its response if the command waited for the end."""

    request_id: str
    repeated: bool
    """Whether an earlier submission with the same `--idempotency-key` had created it."""
    status: str
    """IN_QUEUE (also if the command did not wait), IN_PROGRESS or COMPLETED."""
    error: str | None = None
    error_type: str | None = None
    response_status: int | None = None
    response: Any = None
    """The body: as JSON if it is JSON, otherwise as text. Null with `--output`."""
    output: str | None = None
    """The file with the body."""


OUTPUTS: dict[str, Any] = {"submit": Submitted}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments."""
    parser.add_argument(
        "path", metavar="PATH", nargs="?", help="the path in the application, with its query, e.g. /generate?n=2"
    )
    parser.add_argument("-X", "--method", metavar="METHOD", choices=_METHODS, help="POST (default), GET, PUT, PATCH, DELETE")
    parser.add_argument(
        "-d", "--data", metavar="BODY", help="the body; @FILE for a file, @- for stdin; JSON unless -H says else"
    )
    parser.add_argument("-H", "--header", metavar="NAME: VALUE", action="append", type=header, default=[], help="repeatable")
    parser.add_argument("--webhook", metavar="URL", help="the receiver of a webhook at the end")
    parser.add_argument("--webhook-events", metavar="KINDS", help="started,progress: further webhooks")
    parser.add_argument("--idempotency-key", metavar="KEY", help="a second submission with it creates no second request")
    parser.add_argument("--attach", metavar="ID", help="submit nothing; wait for this request, and print its response")
    parser.add_argument(
        "--wait",
        metavar="TIME",
        nargs="?",
        type=seconds,
        const=_DEFAULT_WAIT,
        help="wait for the end, at most this time (60s by default), and print the response",
    )
    parser.add_argument("--follow", action="store_true", help="wait, and print position, progress and log lines meanwhile")
    parser.add_argument("-o", "--output", metavar="FILE", help="write the response to this file; needs --wait or --follow")
    add_url(parser)
    add_key(parser)
    parser.description = submit.__doc__
    set_command(parser, submit, database=False)


def submit(chosen: argparse.Namespace, terminal: Terminal) -> int:
    """Submit a request to the service at `--url`, and print its id; with `--wait`, `--follow` or `--attach` its response.

    Exit status 4 if the request failed. Ctrl-C ends the command and not the request.
    """
    submission = _submission(chosen)
    waits = chosen.wait is not None or chosen.follow or chosen.attach is not None
    if chosen.output is not None and not waits:
        raise NotUnderstood("--output needs --wait or --follow: without them there is no response yet")
    with closing(QueueClient(url_of(chosen), key_headers(chosen))) as client:
        return run(client, submission, chosen, terminal, waits=waits)


def run(
    client: QueueClient, submission: Submission | None, chosen: argparse.Namespace, terminal: Terminal, *, waits: bool
) -> int:
    """Submit, unless `submission` is None, and wait. Apart from `submit` for tests."""
    request_id, repeated = (chosen.attach, False) if submission is None else client.submit(submission)
    if repeated:
        terminal.note(f"{request_id}  was created by an earlier submission with this key")
    if not waits:
        if terminal.json:
            terminal.print_json(Submitted(request_id, repeated, "IN_QUEUE"))
        else:
            terminal.print(request_id)
        return Exit.DONE
    try:
        return _finish(client, request_id, repeated, chosen, terminal)
    except KeyboardInterrupt:
        terminal.note(f"detached; the request continues. {_how_to_continue(request_id, chosen)}")
        return Exit.INTERRUPTED
    except WaitIsOver:
        terminal.note(f"not completed within {chosen.wait:g} s; the request continues. {_how_to_continue(request_id, chosen)}")
        return Exit.REFUSED
    except CommandError as error:
        terminal.note(f"{request_id}  {_how_to_continue(request_id, chosen)}")
        raise error from None


def _submission(chosen: argparse.Namespace) -> Submission | None:
    if (chosen.path is None) == (chosen.attach is None):
        raise NotUnderstood("name the path to submit, or a request with --attach ID")
    if chosen.attach is not None:
        if not is_request_id(chosen.attach):
            raise NotUnderstood(f"request id {chosen.attach[:64]!r} is not a UUID")
        return None
    headers = list(chosen.header)
    if chosen.idempotency_key is not None:
        headers.append(("idempotency-key", chosen.idempotency_key))
    if chosen.data is not None and not any(name.lower() == "content-type" for name, _ in headers):
        headers.append(("content-type", "application/json"))
    return Submission(
        method=chosen.method or "POST",
        path=chosen.path,
        headers=tuple(headers),
        body=b"" if chosen.data is None else read_data(chosen.data),
        webhook=None if chosen.webhook is None else http_url(chosen.webhook, "--webhook"),
        webhook_events=chosen.webhook_events,
    )


def _finish(client: QueueClient, request_id: str, repeated: bool, chosen: argparse.Namespace, terminal: Terminal) -> int:
    lines = ProgressLines(request_id, terminal)
    last: Event = {}
    for last in client.events(request_id, chosen.wait):
        if chosen.follow:
            lines.show(last)
    with client.response(request_id) as response:
        written = write_response(response, chosen.output, in_document=terminal.json)
    lines.end(last, written)
    if terminal.json:
        terminal.print_json(_document(request_id, repeated, last, written))
    return Exit.REQUEST_FAILED if "error" in last or not 200 <= written.status < 300 else Exit.DONE


def _document(request_id: str, repeated: bool, last: Event, written: Written) -> Submitted:
    return Submitted(
        request_id=request_id,
        repeated=repeated,
        status="COMPLETED",
        error=last.get("error"),
        error_type=last.get("error_type"),
        response_status=written.status,
        response=written.content,
        output=written.path,
    )


def _how_to_continue(request_id: str, chosen: argparse.Namespace) -> str:
    words = ["queue-middleware", "submit", "--attach", request_id]
    words += ["--follow"] if chosen.follow else ["--wait"]
    words += ["--url", shown_url(chosen.url)] if chosen.url else []
    words += ["--output", chosen.output] if chosen.output else []
    return f"To wait for it again: {shlex.join(words)}"
