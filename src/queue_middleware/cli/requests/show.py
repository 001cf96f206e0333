"""`queue-middleware requests show`."""

from __future__ import annotations

import argparse
import asyncio

from queue_middleware.cli.exit_codes import Exit
from queue_middleware.cli.flags import Actions, add_action
from queue_middleware.cli.opening import reading
from queue_middleware.cli.output import Terminal, plural, printable, size, timestamp
from queue_middleware.cli.rows import RequestRow, is_failed, make_row, result_of, time_or_none
from queue_middleware.jobs.job_detail import JobDetail
from queue_middleware.jobs.job_list import ListedJob
from queue_middleware.jobs.states import FINAL
from queue_middleware.jobs.struct import Struct
from queue_middleware.stores import ReadOnlyStores

from .content import Message, print_message, request_message, response_message
from .history import TimelineRow, print_timeline, timeline_row
from .logs import LogRow, log_row, print_line


class RequestDetail(Struct, frozen=True):
    """Everything about one request."""

    request: RequestRow
    failure: str | None
    """The reason why there is no response, as a sentence."""
    position: int | None
    """The number of requests in front of it; only while it is queued or delayed."""
    progress: float | None
    """0 to 1, as the application reports it."""
    stage: str | None
    priority: int
    """Smaller values run first."""
    max_attempts: int
    due_at: str | None
    """When a delayed request becomes due."""
    start_by: str | None
    """The request fails if it has not started by then."""
    webhook_host: str | None
    is_cancelling: bool
    process: str | None
    """The process that runs it: the column `owner` of `processes list`."""
    request_bytes: int | None
    """Size of the body; None if the request is not kept."""
    response_bytes: int | None
    log_lines: int
    kept_until: str | None
    """Until when an ended request can be submitted again; None if it is not kept."""
    original: str | None
    """The request of which this one is a copy."""
    copies: list[str]
    """The copies of this request, the oldest first."""
    timeline: list[TimelineRow] | None
    """With `--timeline`."""
    logs: list[LogRow] | None
    """With `--logs`."""
    stored_request: Message | None
    """With `--request`."""
    stored_response: Message | None
    """With `--response`; None before the end, and without a response."""


def add_action_to(actions: Actions[argparse.ArgumentParser]) -> None:
    """Add `show`."""
    parser = add_action(actions, "show", "everything about one request", _show)
    parser.add_argument("id", metavar="ID", help="the request")
    parser.add_argument("--timeline", action="store_true", help="what happened to it too, in order of time")
    parser.add_argument("--logs", action="store_true", help="its log too")
    parser.add_argument("--request", action="store_true", help="the stored request too, without its secrets")
    parser.add_argument("--response", action="store_true", help="the stored response too, without its secrets")
    parser.add_argument(
        "--reveal",
        action="store_true",
        help="the bodies, all headers, path and query of what is shown, and with --json the labels of the log",
    )
    parser.add_argument("--exit-status", action="store_true", help="exit with 4 if the request has failed")


def _show(chosen: argparse.Namespace, terminal: Terminal) -> int:
    """Show one request: its state, its attempts and its result."""
    return asyncio.run(_read(chosen, terminal))


async def _read(chosen: argparse.Namespace, terminal: Terminal) -> int:
    async with reading(chosen) as stores:
        detail = await stores.operations.detail(chosen.id)
        entries = await stores.operations.timeline(chosen.id) if chosen.timeline else None
        lines = await stores.jobs.logs(detail.job.key) if chosen.logs else None
        request, response = await _content(chosen, stores, detail)
    if terminal.json:
        timeline = None if entries is None else [timeline_row(one) for one in entries]
        logs = None if lines is None else [log_row(line, reveal=chosen.reveal) for line in lines]
        terminal.print_json(_document(detail, timeline, logs, request, response))
        return _exit_status(chosen, detail)
    _print(detail, terminal)
    print_timeline(entries or [], terminal)
    for line in lines or ():
        print_line(line, terminal)
    for message in (request, response):
        if message is not None:
            terminal.print()
            print_message(message, terminal)
    return _exit_status(chosen, detail)


def _exit_status(chosen: argparse.Namespace, detail: JobDetail) -> int:
    return Exit.REQUEST_FAILED if chosen.exit_status and is_failed(detail.job) else Exit.DONE


async def _content(
    chosen: argparse.Namespace, stores: ReadOnlyStores, detail: JobDetail
) -> tuple[Message | None, Message | None]:
    """What `--request` and `--response` add. Raises `NotKept`."""
    request = response = None
    if chosen.request:
        request = request_message((await stores.operations.kept_request(chosen.id)).job.request, reveal=chosen.reveal)
    if chosen.response and detail.job.state in FINAL:
        response = await response_message(stores, await stores.jobs.result(chosen.id), reveal=chosen.reveal)
    return request, response


def _document(
    detail: JobDetail,
    timeline: list[TimelineRow] | None,
    logs: list[LogRow] | None,
    request: Message | None,
    response: Message | None,
) -> RequestDetail:
    job = detail.job
    return RequestDetail(
        request=make_row(ListedJob(job, detail.method, detail.route)),
        failure=None if job.failure is None else job.failure.detail,
        position=job.position,
        progress=None if job.progress is None else job.progress.fraction,
        stage=None if job.progress is None else job.progress.stage,
        priority=detail.priority,
        max_attempts=detail.max_attempts,
        due_at=time_or_none(detail.due_at),
        start_by=time_or_none(detail.start_by),
        webhook_host=detail.webhook_host,
        is_cancelling=detail.is_cancelling,
        process=detail.process,
        request_bytes=detail.request_bytes,
        response_bytes=detail.response_bytes,
        log_lines=detail.log_lines,
        kept_until=time_or_none(detail.kept_until),
        original=detail.original,
        copies=list(detail.copies),
        timeline=timeline,
        logs=logs,
        stored_request=request,
        stored_response=response,
    )


def _print(detail: JobDetail, terminal: Terminal) -> None:
    for name, value in _fields(detail, terminal):
        if value:
            terminal.print(f"{name:11} {printable(value)}")


def _fields(detail: JobDetail, terminal: Terminal) -> list[tuple[str, str | None]]:
    job = detail.job
    progress = None if job.progress is None else f"{job.progress.fraction:.0%} {job.progress.stage or ''}"
    return [
        ("request", job.request_id),
        ("state", f"{job.state}, to be cancelled" if detail.is_cancelling else job.state),
        ("position", None if job.position is None else f"{plural(job.position, 'request')} in front of it"),
        ("route", f"{detail.method} {detail.route}".strip()),
        ("client", job.identity or job.client),
        ("submitted", terminal.since(job.created_at)),
        ("due", None if detail.due_at is None else terminal.since(detail.due_at)),
        ("start by", None if detail.start_by is None else terminal.since(detail.start_by)),
        ("started", None if job.started_at is None else terminal.since(job.started_at)),
        ("ended", None if job.finished_at is None else terminal.since(job.finished_at)),
        ("attempts", f"{job.attempt} of at most {detail.max_attempts}"),
        ("process", detail.process),
        ("progress", progress),
        ("result", result_of(job) if job.failure is None else f"{job.failure.error_type}: {job.failure.detail}"),
        ("webhook to", detail.webhook_host),
        ("kept", _kept(detail, terminal)),
        ("response", None if detail.response_bytes is None else size(detail.response_bytes)),
        ("log", plural(detail.log_lines, "line") if detail.log_lines else None),
        ("copy of", detail.original),
        ("copied as", ", ".join(detail.copies)),
    ]


def _kept(detail: JobDetail, terminal: Terminal) -> str | None:
    """Whether the request can be submitted again."""
    if detail.job.state not in FINAL:
        return None
    if detail.kept_until is None:
        return "no: it cannot be replayed"
    return f"until {timestamp(detail.kept_until)}, {size(detail.request_bytes or 0)}"
