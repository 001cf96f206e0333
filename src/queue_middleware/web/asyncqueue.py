"""AsyncQueue's routes below `{prefix}/v1` (AsyncQueue contract): tasks, and what arrives for those that wait."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from functools import partial
from urllib.parse import parse_qsl

from starlette.types import Scope

from queue_middleware.errors import AlreadyEnded, BadRequest, Forbidden, NotAllowed, QueueError, UnknownRequest
from queue_middleware.models import PART, Cancelled, Headers, StoredResponse
from queue_middleware.pieces import pieces_of
from queue_middleware.runtime import Runtime
from queue_middleware.states import FINAL
from queue_middleware.tasks import SecretId, TaskRecord, TaskStatus
from queue_middleware.wire import asyncqueue as wire
from queue_middleware.wire.fal import check_query
from queue_middleware.wire.providers import providers_body
from queue_middleware.wire.taskresults import measure, spell
from queue_middleware.wire.taskroutes import CHANGING, OPEN, TaskRoute, TaskVerb, find_task_route

from .access import Access, address_of
from .call import Call, ClientGone
from .commissions import Commissions
from .cross_site import CrossSiteCheck
from .guesses import Guesses
from .intake import CALLBACKS, Intake

BELOW = "/v1/"
LONGEST_POLL = 25.0
"""Seconds; some servers and proxies wait no longer than 30."""
_NO_TASK = "Task not found"
_NO_CALLBACK = "Invalid or expired callback ID"
_NO_SIGNAL = "Invalid or expired signal token"


class TaskQueue:
    """Everything below `/v1`."""

    def __init__(self, runtime: Runtime, access: Access, cross_site: CrossSiteCheck, intake: Intake) -> None:
        self._runtime = runtime
        self._access = access
        self._cross_site = cross_site
        self._intake = intake
        self._callbacks = Intake(runtime.settings.max_request_body, CALLBACKS, runtime.settings.body_timeout)
        self._commissions = Commissions(runtime)
        self._guesses: Guesses | None = None
        self._verbs: dict[TaskVerb, Callable[[Call, TaskRoute], Awaitable[None]]] = {
            TaskVerb.CREATE: self._create,
            TaskVerb.LIST: self._list,
            TaskVerb.READ: self._read,
            TaskVerb.CANCEL: self._cancel,
            TaskVerb.CALLBACK: self._callback,
            TaskVerb.SIGNAL: self._signal,
            TaskVerb.PROVIDERS: self._providers,
        }

    async def serve(self, call: Call) -> None:
        """Answer a request whose path below the prefix begins with `BELOW`."""
        call.body_is_unread = call.scope["method"] == "POST"
        _hide_path(call.scope)
        try:
            route = find_task_route(call.scope["method"], call.address.rest.removeprefix("/v1"))
            if route.verb in CHANGING:
                self._cross_site.check(call.scope)
            self._runtime.check_running()
            if self._access.is_asked and route.verb not in OPEN:
                call.identity = await self._access.identify(call.scope)
            await self._verbs[route.verb](call, route)
        except ClientGone:
            return
        except QueueError as error:
            headers = (*error.headers, (b"connection", b"close")) if call.body_is_unread else error.headers
            await call.answer(error.status, wire.error_body(error.detail), headers)

    # --- tasks

    async def _create(self, call: Call, route: TaskRoute) -> None:
        try:
            body = await self._intake.read(call, _headers(call))
            submission, created = await self._commissions.take(call, body)
        finally:
            self._intake.done(call)
        with submission:
            call.request_id = created.record.job.request_id
            await call.answer(201, wire.created_body(*created))

    async def _list(self, call: Call, route: TaskRoute) -> None:
        if call.identity is None:
            raise NotAllowed("tasks can be listed where the service knows whose they are: with 'api_keys' or 'authenticate'")
        asked = _parameters(call)
        status = asked.get("status") or None
        if status is not None and status not in set(TaskStatus):
            raise BadRequest(f"status is {status[:64]!r}; it takes {', '.join(TaskStatus)}")
        limit = _whole(asked, "limit", 20, 1, wire.LARGEST_PAGE)
        offset = _whole(asked, "offset", 0, 0, 2**53)
        page = await self._runtime.tasks(call.client, TaskStatus(status) if status else None, limit=limit, offset=offset)
        await call.answer(200, wire.page_body(page, limit, offset))

    async def _read(self, call: Call, route: TaskRoute) -> None:
        seconds = _whole(_parameters(call), "wait", 0, 0, 10**6)
        record = await self._mine(call, route)
        if seconds and record.job.state not in FINAL:
            record = await self._changed(call, record, min(seconds, LONGEST_POLL))
        await self._answer_with(call, record)

    async def _changed(self, call: Call, record: TaskRecord, seconds: float) -> TaskRecord:
        """The task once it is called something else than now, or after so many seconds, or when the process is to end."""
        task_id = record.job.request_id
        try:
            async with asyncio.timeout(seconds), self._runtime.follow(task_id, call.send) as follower:
                began = record = await self._runtime.task(task_id)
                while record.status is began.status and record.job.state not in FINAL:
                    await follower.news(seconds)
                    if follower.ended:
                        break
                    record = await self._runtime.task(task_id)
        except TimeoutError:
            return await self._runtime.task(task_id)
        return record

    async def _cancel(self, call: Call, route: TaskRoute) -> None:
        record = await self._mine(call, route)
        if await self._runtime.cancel(record.job.request_id) is Cancelled.FINISHED:
            raise AlreadyEnded(f"the task has already ended: {record.status}")
        await self._answer_with(call, await self._runtime.task(record.job.request_id))

    async def _mine(self, call: Call, route: TaskRoute) -> TaskRecord:
        """The task of a route. Raises `UnknownRequest`, `Forbidden`."""
        try:
            record = await self._runtime.task(route.id)
        except UnknownRequest:
            raise UnknownRequest(_NO_TASK) from None
        if call.identity is not None and record.job.identity != call.identity:
            raise Forbidden("this task is somebody else's")
        call.request_id = record.job.request_id
        return record

    async def _answer_with(self, call: Call, record: TaskRecord) -> None:
        response = record.response
        if response is None or (response.parts == 0 and len(response.body) <= PART):
            await call.answer(200, wire.task_body(record))
        else:
            await self._answer_in_pieces(call, record, response)

    async def _answer_in_pieces(self, call: Call, record: TaskRecord, response: StoredResponse) -> None:
        """A long result is read twice, and never in memory: how long its JSON is has to be known before it is sent."""
        pieces = partial(pieces_of, self._runtime.output, record.job.key, response)
        spelling = await measure(pieces(), response.size)
        before, after = wire.task_frame(record, spelling)
        await call.start_json(200, len(before) + spelling.length + len(after))
        await call.send({"type": "http.response.body", "body": before, "more_body": True})
        async for piece in spell(pieces(), spelling):
            await call.send({"type": "http.response.body", "body": piece, "more_body": True})
        await call.send({"type": "http.response.body", "body": after})

    # --- from outside

    async def _callback(self, call: Call, route: TaskRoute) -> None:
        reception = self._runtime.reception
        try:
            # Before its body: a stranger's takes no room here.
            await reception.find(SecretId.CALLBACK, route.id)
            body = await self._callbacks.read(call, _headers(call))
            await reception.callback(route.id, _headers(call), body)
        except UnknownRequest:
            self._count_guess(call)
            raise UnknownRequest(_NO_CALLBACK) from None
        finally:
            self._callbacks.done(call)
        await call.answer(200, b'{"ok": true}')

    async def _signal(self, call: Call, route: TaskRoute) -> None:
        reception = self._runtime.reception
        try:
            await reception.find(SecretId.SIGNAL, route.id)
            body = await self._callbacks.read(call, _headers(call))
            waiter = await reception.signal(route.id, body)
        except UnknownRequest:
            self._count_guess(call)
            raise UnknownRequest(_NO_SIGNAL) from None
        finally:
            self._callbacks.done(call)
        await call.answer(200, json.dumps({"ok": True, "task": {"id": waiter.request_id}}).encode())

    def _count_guess(self, call: Call) -> None:
        if self._guesses is None:
            self._guesses = Guesses()
        self._guesses.count(address_of(call.scope))

    async def _providers(self, call: Call, route: TaskRoute) -> None:
        await call.answer(200, providers_body())


def _headers(call: Call) -> Headers:
    return tuple(call.scope["headers"])


def _hide_path(scope: Scope) -> None:
    """Servers write the path of the scope to their access logs when the answer begins, and an id in it is a secret.

    Whatever the answer is going to be: a provider may look at the address with GET first, or call while we are stopping.
    """
    for word in ("callbacks", "signals"):
        before, found, _ = scope["path"].partition(f"/v1/{word}/")
        if found:
            scope["path"] = f"{before}{found}hidden"
            scope["raw_path"] = scope["path"].encode()


def _parameters(call: Call) -> dict[str, str]:
    query: bytes = call.scope["query_string"]
    check_query(query)
    return dict(parse_qsl(query.decode("latin-1"), keep_blank_values=True))


def _whole(asked: dict[str, str], name: str, default: int, least: int, most: int) -> int:
    text = asked.get(name, "")
    if not text:
        return default
    if not (text.isascii() and text.isdigit() and len(text) <= 20) or not least <= int(text) <= most:
        raise BadRequest(f"{name} is {text[:64]!r}; it takes a whole number from {least} to {most}")
    return int(text)
