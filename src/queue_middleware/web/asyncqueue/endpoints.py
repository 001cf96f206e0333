"""AsyncQueue's endpoints below `{prefix}/v1`: tasks, callbacks and signals (docs/reference/protocols/asyncqueue.md)."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable
from functools import partial
from urllib.parse import parse_qsl

from starlette.types import Scope

from queue_middleware.asgi.headers import content_lengths
from queue_middleware.errors import AlreadyEnded, BadRequest, Forbidden, NotAllowed, QueueError, UnknownRequest
from queue_middleware.jobs.chunks import iter_chunks
from queue_middleware.jobs.models import CHUNK_SIZE, CancelOutcome, Headers, StoredResponse
from queue_middleware.runtime.runtime import Runtime
from queue_middleware.tasks.models import SecretIdKind, TaskRecord, TaskStatus
from queue_middleware.tasks.polling.providers import providers_body
from queue_middleware.tasks.representation import created_body, error_body, page_body, split_task_body, task_body
from queue_middleware.tasks.results import measure, serialize
from queue_middleware.tasks.status import has_other_status
from queue_middleware.web.auth import address_of
from queue_middleware.web.idempotency import REPLAYED
from queue_middleware.web.path_rules import check_query
from queue_middleware.web.preferences import VARY, read_preferences
from queue_middleware.web.rate_limit import LookupLimiter
from queue_middleware.web.request import MAX_CALLBACK_BYTES, BodyReader, Endpoint, QueueRequest
from queue_middleware.web.waiting import WaitingRequests

from .create_task import CREATED, TaskCreator
from .routes import CHANGING, PUBLIC, TaskOperation, TaskRoute, find_task_route

PREFIX = "/v1/"
MAX_PAGE = 100
"""Tasks on one page of a list."""
MAX_POLL_SECONDS = 25
"""Some servers and proxies wait no longer than 30."""
_NO_TASK = "Task not found"
_NO_CALLBACK = "Invalid or expired callback ID"
_NO_SIGNAL = "Invalid or expired signal token"

Request = QueueRequest[TaskRoute]


class TaskEndpoints:
    """Everything below `/v1`."""

    def __init__(self, runtime: Runtime, bodies: BodyReader, waiting: WaitingRequests) -> None:
        self._runtime = runtime
        self._waiting = waiting
        self._bodies = bodies
        self._callback_bodies = BodyReader(runtime.settings.max_request_body, MAX_CALLBACK_BYTES, runtime.settings.body_timeout)
        self._creator = TaskCreator(runtime)
        self._limiter = LookupLimiter()
        handlers: dict[TaskOperation, Callable[[Request], Awaitable[None]]] = {
            TaskOperation.CREATE: self._create,
            TaskOperation.LIST: self._list,
            TaskOperation.READ: self._read,
            TaskOperation.CANCEL: self._cancel,
            TaskOperation.CALLBACK: self._callback,
            TaskOperation.SIGNAL: self._signal,
            TaskOperation.PROVIDERS: self._providers,
        }
        self._endpoints = {
            operation: Endpoint(handler, operation in CHANGING, operation in PUBLIC, submits=operation is TaskOperation.CREATE)
            for operation, handler in handlers.items()
        }

    def match(self, request: Request) -> Endpoint:
        """Find the endpoint of a request whose path below the prefix begins with `PREFIX`.

        Raises `UnknownRoute`, `MethodNotAllowed`.
        """
        method = request.scope["method"]
        request.body_unread = method == "POST"
        _hide_path(request.scope)
        request.route = route = find_task_route(method, request.split_path.rest.removeprefix("/v1"))
        return self._endpoints[route.operation]

    def error_response(self, request: Request, error: QueueError) -> tuple[int, bytes, Headers]:
        """AsyncQueue's shape of an error."""
        return error.status, error_body(error.detail), error.headers

    # --- tasks

    async def _create(self, request: Request) -> None:
        try:
            body = await self._bodies.read(request, request.headers.lengths)
            submission, created = await self._creator.create(request, body)
        finally:
            self._bodies.done(request)
        with submission:
            request.request_id = created.record.job.request_id
            replayed = REPLAYED if created.is_replayed else ()
            await request.respond(CREATED, created_body(created.record, created.secrets), replayed)

    async def _list(self, request: Request) -> None:
        if request.identity is None:
            raise NotAllowed("listing tasks needs authentication; set the option 'api_keys' or pass 'authenticate'")
        parameters = _parameters(request)
        status = parameters.get("status") or None
        if status is not None and status not in set(TaskStatus):
            raise BadRequest(f"status is {status[:64]!r}; expected one of {', '.join(TaskStatus)}")
        limit = _integer(parameters, "limit", 20, 1, MAX_PAGE)
        offset = _integer(parameters, "offset", 0, 0, 2**53)
        page = await self._runtime.tasks(request.client, TaskStatus(status) if status else None, limit=limit, offset=offset)
        await request.respond(200, page_body(page, limit, offset))

    async def _read(self, request: Request) -> None:
        parameter = min(_integer(_parameters(request), "wait", 0, 0, 10**6), MAX_POLL_SECONDS)
        preferred = read_preferences(request.scope["headers"]).wait
        record = await self._own_task(request)
        if preferred is not None or parameter:
            is_awaited = partial(has_other_status, record.spec, record.job)
            if preferred is not None:
                await self._waiting.apply(request, record.job, preferred, is_awaited)
            else:
                await self._waiting.wait(request, record.job, parameter, is_awaited)
            record = await self._runtime.task(record.job.request_id)
        await self._respond_with(request, record, (VARY,))

    async def _cancel(self, request: Request) -> None:
        record = await self._own_task(request)
        if await self._runtime.cancel(record.job.request_id) is CancelOutcome.FINISHED:
            raise AlreadyEnded(f"the task has already ended: {record.status}")
        await self._respond_with(request, await self._runtime.task(record.job.request_id))

    async def _own_task(self, request: Request) -> TaskRecord:
        """The task that the path names. Raises `UnknownRequest`, `Forbidden`."""
        try:
            record = await self._runtime.task(request.route.id)
        except UnknownRequest:
            raise UnknownRequest(_NO_TASK) from None
        if request.identity is not None and record.job.identity != request.identity:
            raise Forbidden("this task belongs to another submitter")
        request.request_id = record.job.request_id
        return record

    async def _respond_with(self, request: Request, record: TaskRecord, extra: Headers = ()) -> None:
        response = record.response
        if response is None or (response.chunks == 0 and len(response.body) <= CHUNK_SIZE):
            await request.respond(200, task_body(record), extra)
        else:
            await self._respond_in_chunks(request, record, response, extra)

    async def _respond_in_chunks(self, request: Request, record: TaskRecord, response: StoredResponse, extra: Headers) -> None:
        """Read a long result twice instead of holding it in memory: the length of its JSON is sent before the JSON."""
        chunks = partial(iter_chunks, self._runtime.response_chunk, record.job.key, response)
        encoding = await measure(chunks(), response.size)
        before, after = split_task_body(record, encoding)
        await request.start_json(200, len(before) + encoding.length + len(after), extra)
        await request.send({"type": "http.response.body", "body": before, "more_body": True})
        async for chunk in serialize(chunks(), encoding):
            await request.send({"type": "http.response.body", "body": chunk, "more_body": True})
        await request.send({"type": "http.response.body", "body": after})

    # --- callbacks and signals

    async def _callback(self, request: Request) -> None:
        callbacks = self._runtime.callbacks
        headers: Headers = tuple(request.scope["headers"])
        try:
            # Looked up before the body is read: a body for an unknown id takes no memory.
            await callbacks.find_job(SecretIdKind.CALLBACK, request.route.id)
            body = await self._callback_bodies.read(request, content_lengths(headers))
            await callbacks.receive_callback(request.route.id, headers, body)
        except UnknownRequest:
            self._limiter.count(address_of(request.scope))
            raise UnknownRequest(_NO_CALLBACK) from None
        finally:
            self._callback_bodies.done(request)
        await request.respond(200, b'{"ok": true}')

    async def _signal(self, request: Request) -> None:
        callbacks = self._runtime.callbacks
        try:
            await callbacks.find_job(SecretIdKind.SIGNAL, request.route.id)
            body = await self._callback_bodies.read(request, request.headers.lengths)
            job = await callbacks.receive_signal(request.route.id, tuple(request.scope["headers"]), body)
        except UnknownRequest:
            self._limiter.count(address_of(request.scope))
            raise UnknownRequest(_NO_SIGNAL) from None
        finally:
            self._callback_bodies.done(request)
        await request.respond(200, json.dumps({"ok": True, "task": {"id": job.request_id}}).encode())

    async def _providers(self, request: Request) -> None:
        await request.respond(200, providers_body())


def _hide_path(scope: Scope) -> None:
    """Remove secret ids from the path of the scope, which servers write to their access logs when the response starts.

    Done before any check: a provider may probe the URL with GET first, or call it during shutdown.
    """
    for name in ("callbacks", "signals"):
        before, found, _ = scope["path"].partition(f"/v1/{name}/")
        if found:
            scope["path"] = f"{before}{found}hidden"
            scope["raw_path"] = scope["path"].encode()


def _parameters(request: Request) -> dict[str, str]:
    query: bytes = request.scope["query_string"]
    check_query(query)
    return dict(parse_qsl(query.decode("latin-1"), keep_blank_values=True))


def _integer(parameters: dict[str, str], name: str, default: int, least: int, most: int) -> int:
    text = parameters.get(name, "")
    if not text:
        return default
    if not (text.isascii() and text.isdigit() and len(text) <= 20) or not least <= int(text) <= most:
        raise BadRequest(f"{name} is {text[:64]!r}; expected a whole number from {least} to {most}")
    return int(text)
