"""The flags that select requests."""

from __future__ import annotations

import argparse
import ipaddress

from queue_middleware.jobs.job_list import JobFilter
from queue_middleware.jobs.models import IDENTITY_PREFIX, ErrorType, JobState

from .exit_codes import NotUnderstood
from .flags import past
from .output import Terminal


def add_filters(parser: argparse.ArgumentParser) -> None:
    """Add the flags that select requests. All that are given have to hold."""
    group = parser.add_argument_group("selection")
    states = ", ".join(JobState)
    group.add_argument(
        "--state",
        type=_states,
        metavar="S,…",
        help=f"{states}; `failed` alone includes responses with a status from 500",
    )
    group.add_argument("--route", metavar="R", help="the template of the path, e.g. /items/{id}")
    group.add_argument("--client", metavar="C", help="the name or the network address of the client")
    group.add_argument(
        "--error", choices=[str(one) for one in ErrorType], metavar="E", help=f"the error_type: {', '.join(ErrorType)}"
    )
    group.add_argument(
        "--since", type=past, metavar="TIME", help="submitted at this time or later: 2h, or 2027-01-15T08:00:00Z"
    )
    group.add_argument("--until", type=past, metavar="TIME", help="submitted before this time")


def is_filtered(chosen: argparse.Namespace) -> bool:
    """Whether any of the flags is given."""
    return any(getattr(chosen, name) is not None for name in ("state", "route", "client", "error", "since", "until"))


def filter_of(chosen: argparse.Namespace, terminal: Terminal) -> JobFilter:
    """What the flags select. Raises `NotUnderstood`."""
    states = chosen.state or frozenset()
    failed_only = states == {JobState.FAILED}
    if chosen.route is not None and " " in chosen.route:
        raise NotUnderstood(f"--route {chosen.route!r}: write the path without a method, e.g. --route /items/{{id}}")
    return JobFilter(
        states=frozenset() if failed_only else states,
        failed_only=failed_only,
        route=chosen.route,
        client=None if chosen.client is None else _client(chosen.client),
        error_type=None if chosen.error is None else ErrorType(chosen.error),
        since=None if chosen.since is None else milliseconds(chosen.since.at(terminal.clock()).timestamp()),
        until=None if chosen.until is None else milliseconds(chosen.until.at(terminal.clock()).timestamp()),
    )


def milliseconds(seconds: float) -> int:
    """A time in seconds as the stores count it."""
    return round(seconds * 1000)


def _states(text: str) -> frozenset[JobState]:
    try:
        return frozenset(JobState(one.strip()) for one in text.split(","))
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r}: write one or more of {', '.join(JobState)}") from None


def _client(text: str) -> str:
    """The client as it is stored: a network address, otherwise an identity."""
    if text.startswith(IDENTITY_PREFIX):
        return text
    try:
        return str(ipaddress.ip_address(text))
    except ValueError:
        return f"{IDENTITY_PREFIX}{text}"
