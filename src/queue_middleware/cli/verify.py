"""`queue-middleware verify`: check a recorded webhook, and explain what fits and what does not."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

from queue_middleware.errors import KeysUnavailable
from queue_middleware.jobs.struct import Struct
from queue_middleware.secret_file import reason_of

from .exit_codes import CommandError, Exit
from .flags import set_command
from .known_keys import add_key_arguments, checker_of
from .output import Terminal, printable
from .recorded_request import RecordedRequest, parse_recording
from .webhook_check import Check, Finding, Mark


class FindingRow(Struct, frozen=True):
    """One step of the explanation: `ok` fits, `XX` does not fit, `--` is information."""

    mark: Mark
    text: str


class Verification(Struct, frozen=True):
    """The result for one recorded webhook."""

    valid: bool
    reason: str | None
    """Why it is not valid."""
    request_id: str | None
    """This and the next two are null unless the webhook is valid."""
    webhook_id: str | None
    signed_by: str | None
    findings: list[FindingRow]


OUTPUTS: dict[str, Any] = {"verify": list[Verification]}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments."""
    parser.add_argument(
        "file", metavar="FILE", help="a raw HTTP request, a dump with headers as by `curl -i`, or a HAR archive; `-` for stdin"
    )
    add_key_arguments(parser)
    parser.description = verify.__doc__
    set_command(parser, verify, database=False)


def verify(chosen: argparse.Namespace, terminal: Terminal) -> int:
    """Check recorded webhooks step by step: headers, time, body, signatures. Exit status 1 if one is not valid."""
    requests = parse_recording(_read(chosen.file))
    checker = checker_of(chosen, terminal.clock)
    results = [(request, checker.check(request.headers, request.body)) for request in requests]
    if terminal.json:
        terminal.print_json([_row(request, check) for request, check in results])
    else:
        for request, check in results:
            _print(request, check, terminal)
    if any(isinstance(check.error, KeysUnavailable) for _, check in results):
        return Exit.UNREACHABLE
    return Exit.REFUSED if any(check.error for _, check in results) else Exit.DONE


def _read(path: str) -> bytes:
    try:
        return sys.stdin.buffer.read() if path == "-" else Path(path).read_bytes()
    except OSError as error:
        raise CommandError(f"cannot read {path}: {reason_of(error)}") from error


def _findings(request: RecordedRequest, check: Check) -> list[Finding]:
    return [*(Finding(Mark.NOTE, note) for note in request.notes), *check.findings]


def _row(request: RecordedRequest, check: Check) -> Verification:
    webhook = check.webhook
    return Verification(
        valid=webhook is not None,
        reason=None if check.error is None else check.error.detail,
        request_id=None if webhook is None else webhook.request_id,
        webhook_id=None if webhook is None else webhook.webhook_id,
        signed_by=check.signed_by or None,
        findings=[FindingRow(mark, text) for mark, text in _findings(request, check)],
    )


def _print(request: RecordedRequest, check: Check, terminal: Terminal) -> None:
    for mark, text in _findings(request, check):
        terminal.print(printable(f" {mark}   {text}"))
    if check.webhook is None:
        terminal.print(printable(f"not valid: {'' if check.error is None else check.error.detail}"))
    else:
        terminal.print(printable(f"valid: webhook {check.webhook.webhook_id} of request {check.webhook.request_id}"))
