"""`queue-middleware requests export` and `import`."""

from __future__ import annotations

import argparse
import asyncio
import os
import sys
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO

import msgspec

from queue_middleware.cli.exit_codes import CommandError, Exit, NotUnderstood
from queue_middleware.cli.filters import add_filters, filter_of, is_filtered
from queue_middleware.cli.flags import Actions, add_action, add_operator, operator_of
from queue_middleware.cli.opening import acting, existing, reading, settings_of
from queue_middleware.cli.output import Terminal, plural, printable_json
from queue_middleware.errors import NotKept, QueueError, TooLarge, UnknownRequest
from queue_middleware.jobs.audit import Action
from queue_middleware.jobs.models import NewJob
from queue_middleware.jobs.struct import Struct
from queue_middleware.outbound.guard import WEBHOOK, Guard
from queue_middleware.secret_file import PRIVATE_MODE
from queue_middleware.settings import Settings
from queue_middleware.stores import ReadOnlyStores, Stores
from queue_middleware.syntax.urls import encode_url
from queue_middleware.tasks.secret_ids import SecretIds, callback_secrets
from queue_middleware.web.path_rules import PathRules, check_length

from .listing import all_jobs
from .portable import PortableRequest, export, new_job, read_line

_READ_TOGETHER = 16
"""Requests that are in memory at once while they are exported."""
_TOGETHER = 100
"""Requests that are submitted at once, in one or few transactions."""


class Imported(Struct, frozen=True):
    """One request that was submitted."""

    line: int
    """From 1."""
    original: str | None
    """The request id in the line."""
    id: str
    """The new request."""


class ImportDone(Struct, frozen=True):
    """What an import did."""

    imported: list[Imported]
    not_imported: list[int]
    """The numbers of the other lines; all with `--dry-run`."""
    refusal: str | None
    """Why the first of them was refused."""


def add_action_to(actions: Actions[argparse.ArgumentParser]) -> None:
    """Add `export` and `import`."""
    exporting = add_action(actions, "export", "print kept requests as JSON lines", _export)
    exporting.add_argument("ids", metavar="ID", nargs="*", help="the requests; default: those that the flags select")
    add_filters(exporting)
    exporting.add_argument("--output", metavar="FILE", type=Path, help="write a new file that only you can read")
    exporting.add_argument("--reveal", action="store_true", help="with bodies, queries, webhook URLs, all headers and paths")
    importing = add_action(actions, "import", "submit requests of an export", _import)
    importing.add_argument("file", metavar="FILE", help="JSON lines; - for standard input")
    importing.add_argument("--dry-run", action="store_true", help="check all lines and submit nothing")
    add_operator(importing)


# --- export


def _export(chosen: argparse.Namespace, terminal: Terminal) -> Exit:
    """Print requests that have not ended or were kept, one line of JSON each, the oldest first.

    Without --reveal the lines contain no bodies, queries, webhook URLs, secret headers and parameters of paths, and a line from
    which something was left out cannot be imported.
    """
    if chosen.ids and is_filtered(chosen):
        raise NotUnderstood("write request ids or flags that select requests, not both")
    exported, left_out = asyncio.run(_write_lines(chosen, terminal))
    if left_out:
        terminal.note(f"left out, because not kept: {left_out:,} of {plural(exported + left_out, 'request')}")
    return Exit.DONE if exported else Exit.NOTHING_MATCHED


async def _write_lines(chosen: argparse.Namespace, terminal: Terminal) -> tuple[int, int]:
    """How many requests were written, and how many are not kept."""
    written, left_out, document = 0, 0, []
    with _output(chosen.output) as file:
        async with reading(chosen) as stores:
            async for line in _lines(stores, chosen, terminal):
                if line is None:
                    left_out += 1
                    continue
                written += 1
                if terminal.json:
                    document.append(line)
                else:
                    file.write(printable_json(msgspec.json.encode(line).decode()) + "\n")
        if terminal.json:
            file.write(printable_json(msgspec.json.format(msgspec.json.encode(document)).decode()) + "\n")
    return written, left_out


@contextmanager
def _output(path: Path | None) -> Iterator[IO[str]]:
    """Standard output, or a new file, which is deleted again if an error occurs. Raises `CommandError`."""
    if path is None:
        yield sys.stdout
        return
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, PRIVATE_MODE)
    except OSError as error:
        raise CommandError(f"cannot create {path}: {error.strerror}") from error
    try:
        with open(descriptor, "w", encoding="utf-8") as file:  # noqa: PTH123 - pathlib cannot open a descriptor
            yield file
    except BaseException:
        path.unlink()  # half an export would look like a whole one, and the next attempt does not replace it
        raise


async def _lines(
    stores: ReadOnlyStores, chosen: argparse.Namespace, terminal: Terminal
) -> AsyncIterator[PortableRequest | None]:
    """The lines; None for a request that is not kept, unless its id was given. Raises `NotKept`, `UnknownRequest`."""
    if chosen.ids:
        jobs = [await stores.jobs.job(request_id) for request_id in chosen.ids]
    else:
        selected = [one.job async for one in all_jobs(stores.jobs, filter_of(chosen, terminal))]
        jobs = selected[::-1]  # so that an import submits them in the order in which they came
    for start in range(0, len(jobs), _READ_TOGETHER):
        group = jobs[start : start + _READ_TOGETHER]
        for job, kept in zip(group, await stores.operations.kept_requests([one.request_id for one in group]), strict=True):
            if isinstance(kept, QueueError):
                # An ended request may have been deleted since the list was read.
                if chosen.ids or not isinstance(kept, (NotKept, UnknownRequest)):
                    raise kept
                yield None
            else:
                yield export(job.request_id, job.state, kept, reveal=chosen.reveal)


# --- import


def _import(chosen: argparse.Namespace, terminal: Terminal) -> Exit:
    """Submit the requests of an export as new ones. All lines are checked first, and if one is wrong nothing is submitted."""
    settings = settings_of(chosen)
    existing(settings)
    lines = list(_read(chosen.file, Importer(settings)))
    if not lines:
        raise NotUnderstood(f"{chosen.file} contains no request")
    if chosen.dry_run:
        if terminal.json:
            terminal.print_json(ImportDone([], [number for number, _, _ in lines], None))
        terminal.note(f"{plural(len(lines), 'request')} would be submitted")
        return Exit.DONE
    done = asyncio.run(_submit(chosen, lines, terminal))
    if terminal.json:
        terminal.print_json(done)
    count = len(done.imported)
    if done.not_imported:
        numbers = ", ".join(_ranges(done.not_imported))
        raise CommandError(
            f"{count} of {plural(len(lines), 'request')} were submitted; {done.refusal}; not submitted: lines {numbers}"
        )
    terminal.note(f"{plural(count, 'request')} {'was' if count == 1 else 'were'} submitted")
    return Exit.DONE


class Importer:
    """Makes submissions of lines, by the rules of one service. Those of tasks have no ids yet."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._paths = PathRules(settings)
        self._guard = Guard(settings.outbound_allow)

    def submission(self, line: PortableRequest) -> NewJob:
        """The checked submission. Raises a `QueueError` for what the service would refuse, too."""
        new = new_job(line)
        request = new.request
        root = request.root_path
        if not line.path.startswith(f"{root}/"):
            raise NotUnderstood(f"path: {line.path!r} does not begin with {root}/")
        target = line.path.removeprefix(root)
        check_length(target, request.query)
        self._paths.check(target)
        if len(request.body) > self._settings.max_request_body:
            raise TooLarge(f"the body has {len(request.body)} bytes; the maximum is {self._settings.max_request_body}")
        if new.webhook is not None:
            self._guard.check_url(new.webhook, WEBHOOK)
            new = new.replace(webhook=encode_url(new.webhook, WEBHOOK))
        return new


Line = tuple[int, PortableRequest, NewJob]
"""The number of a line, and what it contains."""


def _read(path: str, importer: Importer) -> Iterator[Line]:
    """The lines of a file. Raises `NotUnderstood` for the first that is wrong."""
    try:
        with sys.stdin.buffer if path == "-" else Path(path).open("rb") as file:
            for number, text in enumerate(file, start=1):
                if text.strip():
                    try:
                        line = read_line(text)
                        yield number, line, importer.submission(line)
                    except (QueueError, NotUnderstood) as error:
                        raise NotUnderstood(f"{path}, line {number}: {error.detail}; nothing was submitted") from error
    except OSError as error:
        raise CommandError(f"cannot read {path}: {error.strerror}") from error


async def _submit(chosen: argparse.Namespace, lines: Sequence[Line], terminal: Terminal) -> ImportDone:
    """Submit the lines; after the first group with a line that is refused, submit no more."""
    imported: list[Imported] = []
    refusals: list[str] = []
    async with acting(chosen) as stores:
        lines = _with_ids(chosen, stores, lines)
        for start in range(0, len(lines), _TOGETHER):
            group = lines[start : start + _TOGETHER]
            results = await asyncio.gather(*(_submit_one(stores, new) for _, _, new in group))
            for (number, line, _), result in zip(group, results, strict=True):
                if isinstance(result, QueueError):
                    refusals.append(f"line {number}: {result.detail}")
                    continue
                imported.append(Imported(number, line.id, result))
                if not terminal.json:
                    terminal.print(result)
            if refusals:
                break
        if imported:
            await stores.operations.record(operator_of(chosen), Action.IMPORT, f"{len(lines)} lines", len(imported))
    done = {one.line for one in imported}
    rest = [number for number, _, _ in lines if number not in done]
    return ImportDone(imported, rest, refusals[0] if refusals else None)


def _with_ids(chosen: argparse.Namespace, stores: Stores, lines: Sequence[Line]) -> Sequence[Line]:
    """The lines, with new secret ids for each task. Creates the file of the secret if there is none."""
    if all(line.task is None for _, line, _ in lines):
        return lines
    ids = SecretIds(callback_secrets(settings_of(chosen).callback_secret, stores.location.secrets))

    def with_ids(line: PortableRequest, new: NewJob) -> NewJob:
        return new if line.task is None else new.replace(task=ids.new_task(line.task.spec, listed=line.task.is_listed))

    return [(number, line, with_ids(line, new)) for number, line, new in lines]


async def _submit_one(stores: Stores, new: NewJob) -> str | QueueError:
    """The id of the new request, or why it is refused."""
    try:
        return (await stores.jobs.submit(new)).request_id
    except QueueError as error:
        return error


def _ranges(numbers: Sequence[int]) -> Iterator[str]:
    """Rising numbers in short: 1, 3-7."""
    first = last = numbers[0]
    for number in [*numbers[1:], -1]:
        if number != last + 1:
            yield f"{first}-{last}" if last > first else f"{first}"
            first = number
        last = number
