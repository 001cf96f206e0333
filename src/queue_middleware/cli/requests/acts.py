"""`queue-middleware requests cancel`, `replay` and `run-now`."""

from __future__ import annotations

import argparse
import asyncio
import sys
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from typing import NamedTuple

from queue_middleware.cli.approval import add_approval, approve
from queue_middleware.cli.exit_codes import CommandError, Exit, NotUnderstood
from queue_middleware.cli.failures import code_of
from queue_middleware.cli.filters import add_filters, filter_of, is_filtered
from queue_middleware.cli.flags import Actions, add_action, add_operator, operator_of
from queue_middleware.cli.opening import Counting, acting, counting, reading, settings_of
from queue_middleware.cli.output import Terminal, plural
from queue_middleware.errors import NotEnded, QueueError
from queue_middleware.jobs.acts import ActReport, Changes
from queue_middleware.jobs.job_list import JobFilter
from queue_middleware.jobs.models import CancelOutcome, JobState
from queue_middleware.jobs.states import FINAL
from queue_middleware.jobs.struct import Struct
from queue_middleware.runtime.request_admin import RequestAdmin
from queue_middleware.stores import ReadOnlyStores, Stores
from queue_middleware.tasks.secret_ids import SecretIds, callback_secrets

from .listing import all_jobs

_ENDED = "ended"
_NOT_DELAYED = "not_delayed"


class ActDone(Struct, frozen=True):
    """What became of an act on requests."""

    selected: int
    """How many are named, or match and are in a state in which the act is possible."""
    done: int
    """How many were changed or copied; 0 with `--dry-run`."""
    left_out: Mapping[str, int]
    """How many were not, by the reason, e.g. `NotKept`, `UnknownRequest`, or `changed` for another state meanwhile."""
    copies: Mapping[str, str]
    """`replay`: the id of each request that was copied, and that of its copy."""


class _Act(NamedTuple):
    """One of the three acts."""

    done: str
    """What is done to the requests, e.g. `cancelled`."""
    possible: frozenset[JobState]
    """The states in which it is possible."""
    check: Callable[[ReadOnlyStores, str], Awaitable[None]]
    """Raises what `one` would raise, and changes nothing."""
    one: Callable[[RequestAdmin, str, str], Awaitable[str | None]]
    """Acts on one request. Returns the id of its copy, or None."""
    selected: Callable[[RequestAdmin, JobFilter, str, int | None], Awaitable[ActReport]]
    """Acts on all requests that a filter selects."""


def add_action_to(actions: Actions[argparse.ArgumentParser]) -> None:
    """Add all three."""
    _add(actions, "cancel", "end requests that wait, and stop those that run", _cancel)
    replay = _add(actions, "replay", "submit ended requests again, as copies", _replay)
    replay.add_argument("--body", metavar="FILE", help="with one ID: the body of the copy; - for standard input")
    _add(actions, "run-now", "start delayed requests now", _run_now)


def _add(
    actions: Actions[argparse.ArgumentParser], name: str, text: str, command: Callable[[argparse.Namespace, Terminal], int]
) -> argparse.ArgumentParser:
    parser = add_action(actions, name, text, command)
    parser.add_argument("ids", nargs="*", metavar="ID", help="these requests")
    add_filters(parser)
    parser.add_argument("--all", action="store_true", help="all requests; needed if neither IDs nor a selection are given")
    add_approval(parser)
    add_operator(parser)
    return parser


def _cancel(chosen: argparse.Namespace, terminal: Terminal) -> int:
    """Cancel requests: those that are named or selected and have not ended. A running one ends when its code has stopped."""

    def ended(request_id: str) -> _LeftOut:
        return _LeftOut(_ENDED, f"the request {request_id} has already ended")

    async def check(stores: ReadOnlyStores, request_id: str) -> None:
        if (await stores.jobs.job(request_id)).state in FINAL:
            raise ended(request_id)

    async def one(admin: RequestAdmin, request_id: str, operator: str) -> None:
        if await admin.cancel(request_id, operator) is CancelOutcome.FINISHED:
            raise ended(request_id)

    act = _Act("cancelled", frozenset(JobState) - FINAL, check, one, RequestAdmin.cancel_selected)
    return asyncio.run(_run(chosen, terminal, act))


def _replay(chosen: argparse.Namespace, terminal: Terminal) -> int:
    """Submit requests again that have ended and that are kept (option keep_requests): those that are named or selected.

    Each copy is a new request with an id of its own; it and the original name each other. The original does not change.
    """
    changes = Changes(body=_body(chosen))

    async def check(stores: ReadOnlyStores, request_id: str) -> None:
        await stores.operations.kept_request(request_id)
        state = (await stores.jobs.job(request_id)).state
        if state not in FINAL:
            raise NotEnded(f"the request {request_id} is {state}; it can be submitted again when it has ended")

    async def one(admin: RequestAdmin, request_id: str, operator: str) -> str:
        return await admin.replay(request_id, changes, operator)

    return asyncio.run(_run(chosen, terminal, _Act("submitted again", FINAL, check, one, RequestAdmin.replay_selected)))


def _body(chosen: argparse.Namespace) -> bytes | None:
    if chosen.body is None:
        return None
    if len(chosen.ids) != 1:
        raise NotUnderstood("--body needs exactly one ID")
    try:
        return sys.stdin.buffer.read() if chosen.body == "-" else Path(chosen.body).read_bytes()
    except OSError as error:
        raise CommandError(f"{chosen.body}: {error.strerror}") from error


def _run_now(chosen: argparse.Namespace, terminal: Terminal) -> int:
    """Make delayed requests due now: those that wait for their next attempt or their start time, and are named or selected."""

    def not_delayed(request_id: str) -> _LeftOut:
        return _LeftOut(_NOT_DELAYED, f"the request {request_id} is not delayed")

    async def check(stores: ReadOnlyStores, request_id: str) -> None:
        if (await stores.jobs.job(request_id)).state is not JobState.DELAYED:
            raise not_delayed(request_id)

    async def one(admin: RequestAdmin, request_id: str, operator: str) -> None:
        if not await admin.run_now(request_id, operator):
            raise not_delayed(request_id)

    act = _Act("made due", frozenset({JobState.DELAYED}), check, one, RequestAdmin.run_selected_now)
    return asyncio.run(_run(chosen, terminal, act))


# --- acting


class _LeftOut(CommandError):
    """A request on which the act had no effect."""

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(detail)
        self.reason = reason


async def _run(chosen: argparse.Namespace, terminal: Terminal, act: _Act) -> int:
    if chosen.ids and (chosen.all or is_filtered(chosen)):
        raise NotUnderstood("name requests by their ids, or select them, not both")
    if not chosen.ids and not chosen.all and not is_filtered(chosen):
        raise NotUnderstood("no requests are selected; name their ids, select them, e.g. with --route, or add --all")
    if chosen.ids:
        return await _act_on_named(chosen, terminal, act)
    return await _act_on_selected(chosen, terminal, act)


async def _act_on_named(chosen: argparse.Namespace, terminal: Terminal, act: _Act) -> int:
    total = len(chosen.ids)
    if not approve(chosen, terminal, total, act.done, "request", is_named=True):
        async with reading(chosen) as readable:
            done, code = await _each(chosen, terminal, lambda one: act.check(readable, one))
        _print(done.replace(done=0), terminal, act, is_dry=True)
        return code
    async with acting(chosen) as stores, counting(chosen, stores) as counts:
        admin = _admin(chosen, stores, act, counts)
        done, code = await _each(chosen, terminal, lambda one: act.one(admin, one, operator_of(chosen)))
    _print(done, terminal, act)
    return code


async def _each(
    chosen: argparse.Namespace, terminal: Terminal, work: Callable[[str], Awaitable[str | None]]
) -> tuple[ActDone, Exit]:
    """Do something with each request that is named. Why it is impossible for one is printed, and the others follow."""
    left_out: Counter[str] = Counter()
    copies: dict[str, str] = {}
    code = Exit.DONE
    for request_id in chosen.ids:
        try:
            copy = await work(request_id)
        except (QueueError, _LeftOut) as error:
            terminal.note(f"queue-middleware: {error.detail}")
            left_out[error.reason if isinstance(error, _LeftOut) else type(error).__name__] += 1
            code = code or code_of(error)
        else:
            copies |= {} if copy is None else {request_id: copy}
    total = len(chosen.ids)
    return ActDone(total, total - left_out.total(), dict(left_out), copies), code


async def _act_on_selected(chosen: argparse.Namespace, terminal: Terminal, act: _Act) -> int:
    wanted = filter_of(chosen, terminal)
    total = await _count(chosen, wanted, act)
    if not approve(chosen, terminal, total, act.done, "request", is_named=False):
        return _print(await _preview(chosen, wanted, act, total), terminal, act, is_dry=True)
    # With --yes, requests that the selection has gained or lost meanwhile are included or not, as the operator wishes.
    expect = None if chosen.yes and chosen.expect is None else total
    async with acting(chosen) as stores, counting(chosen, stores) as counts:
        report = await act.selected(_admin(chosen, stores, act, counts), wanted, operator_of(chosen), expect)
    _print(ActDone(report.selected, report.done, report.left_out, report.copies), terminal, act)
    if report.ended_by is not None:
        raise report.ended_by
    return Exit.DONE


async def _count(chosen: argparse.Namespace, wanted: JobFilter, act: _Act) -> int:
    return len(await _ids(chosen, wanted, act))


async def _ids(chosen: argparse.Namespace, wanted: JobFilter, act: _Act) -> list[str]:
    states = (wanted.states or act.possible) & act.possible
    if not states:
        return []
    async with reading(chosen) as stores:
        return [one.job.request_id async for one in all_jobs(stores.jobs, wanted.replace(states=states))]


async def _preview(chosen: argparse.Namespace, wanted: JobFilter, act: _Act, total: int) -> ActDone:
    """What would be done: requests that are not kept cannot be submitted again."""
    if act.possible is not FINAL:
        return ActDone(total, 0, {}, {})
    ids = await _ids(chosen, wanted, act)
    async with reading(chosen) as stores:
        lost = [one for one in ids if (await stores.operations.detail(one)).kept_until is None]
    return ActDone(len(ids), 0, {"NotKept": len(lost)} if lost else {}, {})


def _admin(chosen: argparse.Namespace, stores: Stores, act: _Act, counts: Counting) -> RequestAdmin:
    # The secret may be in a file, which is created if it does not exist. Only copies of tasks need it.
    option, folder = settings_of(chosen).callback_secret, stores.location.secrets
    secrets = callback_secrets(option, folder) if act.possible is FINAL else ()
    return RequestAdmin(stores.jobs, stores.operations, SecretIds(secrets), *counts)


def _print(document: ActDone, terminal: Terminal, act: _Act, *, is_dry: bool = False) -> int:
    if terminal.json:
        terminal.print_json(document)
        return Exit.DONE
    left = sum(document.left_out.values())
    done = document.selected - left if is_dry else document.done
    verb = "would be" if is_dry else "was" if done == 1 else "were"
    terminal.print(f"{plural(done, 'request')} {verb} {act.done}")
    for copy in document.copies.values():
        terminal.print(copy)
    if left:
        reasons = ", ".join(f"{count:,} {reason}" for reason, count in document.left_out.items())
        terminal.note(f"left out: {reasons}")
    return Exit.DONE
