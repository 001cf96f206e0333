"""fal's queue endpoints in both URL forms (docs/reference/protocols/fal.md, sections 1, 3, 5, 6 and 13)."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable

from queue_middleware.errors import QueueError, UnknownRequest, UnknownRoute
from queue_middleware.jobs.chunks import iter_chunks
from queue_middleware.jobs.failures import STATUS, failure_body, failure_headers
from queue_middleware.jobs.ids import is_request_id
from queue_middleware.jobs.models import CancelOutcome, Headers, Job, JobResult
from queue_middleware.runtime.runtime import Runtime
from queue_middleware.web.preferences import VARY, read_preferences
from queue_middleware.web.request import BodyReader, Endpoint, QueueRequest
from queue_middleware.web.result_headers import served_headers
from queue_middleware.web.waiting import WaitingRequests

from . import responses
from .event_ids import read_resume_point
from .links import links_of
from .logs import LogCache
from .routes import CHANGING, PUBLIC, Operation, Route, find_host_route, find_route
from .status_stream import StatusStream
from .submit import SubmitEndpoint

Request = QueueRequest[Route]


class FalEndpoints:
    """Everything that belongs to fal's protocol."""

    def __init__(
        self, runtime: Runtime, bodies: BodyReader, waiting: WaitingRequests, document: Callable[[str], bytes]
    ) -> None:
        """`document` renders the OpenAPI document of all routes for the URL of the prefix."""
        self._runtime = runtime
        self._render_document = document
        self._settings = runtime.settings
        self._app = runtime.settings.queue_app
        self._waiting = waiting
        self._submit_endpoint = SubmitEndpoint(runtime, bodies, waiting)
        self._logs = LogCache(runtime.logs)
        handlers: dict[Operation, Callable[[Request], Awaitable[None]]] = {
            Operation.SUBMIT: self._submit_endpoint.submit,
            Operation.STATUS: self._status,
            Operation.STREAM: self._stream,
            Operation.RESPONSE: self._response,
            Operation.CANCEL: self._cancel,
            Operation.KEYS: self._keys,
            Operation.DOCUMENT: self._document,
        }
        self._endpoints = {
            operation: Endpoint(handler, operation in CHANGING, operation in PUBLIC, submits=operation is Operation.SUBMIT)
            for operation, handler in handlers.items()
        }

    def match(self, request: Request) -> Endpoint:
        """Find the endpoint of a request. Raises `UnknownRoute`, `MethodNotAllowed`."""
        path = request.split_path
        find = find_host_route if path.at_host else find_route
        request.route = route = find(request.scope["method"], path.rest)
        if self._app is not None and route.app:
            _check_app(self._app, route.app)
        request.body_unread = route.operation is Operation.SUBMIT
        return self._endpoints[route.operation]

    def error_response(self, request: Request, error: QueueError) -> tuple[int, bytes, Headers]:
        """Fal's shape of an error; the response names the request that was asked about."""
        route: Route | None = getattr(request, "route", None)
        if route is not None and is_request_id(route.request_id):
            request.request_id = route.request_id.lower()
        if isinstance(error, UnknownRequest):
            return 404, responses.NOT_FOUND, ()
        return error.status, *responses.error_response(error)

    async def _status(self, request: Request) -> None:
        job = await self._runtime.job(_request_id(request))
        _check_submitter(request, job)
        request.request_id = job.request_id
        seconds = read_preferences(request.scope["headers"]).wait
        if seconds is not None:
            began = responses.status_of(job)
            await self._waiting.apply(request, job, seconds, lambda job: responses.status_of(job) != began)
            job = await self._runtime.job(job.request_id)
        # Read after the job: a job that had ended by then has all its lines.
        entries = await self._logs.get(job) if responses.wants_logs(request.scope["query_string"]) else None
        body = responses.status_body(job, links_of(request, self._settings), entries)
        await request.respond(200 if responses.is_over(job) else 202, body, (VARY,))

    async def _stream(self, request: Request) -> None:
        request_id = _request_id(request)
        links = links_of(request, self._settings)
        lines = responses.wants_logs(request.scope["query_string"])
        async with self._runtime.follow(request_id, request.send, lines=lines) as follower:
            job = follower.snapshot.job
            _check_submitter(request, job)
            request.request_id = job.request_id
            resume = read_resume_point(request.scope["headers"])
            if resume.ended and responses.is_over(job):
                await request.respond_empty()  # 204 keeps `EventSource` from reconnecting
                return

            def render(job: Job, entries: str | None) -> bytes:
                return responses.status_body(job, links, entries)

            await StatusStream(request, follower, resume, render, self._runtime.logs).run()

    async def _response(self, request: Request) -> None:
        result = await self._result(request)
        request.request_id = result.job.request_id
        if result.job.failure is not None:
            failure = result.job.failure
            await request.respond(STATUS[failure.error_type], failure_body(failure), failure_headers(failure))
        else:
            await self._send_stored_response(request, result)

    async def _result(self, request: Request) -> JobResult:
        request_id = _request_id(request)
        seconds = read_preferences(request.scope["headers"]).wait
        if request.identity is not None or seconds is not None:
            job = await self._runtime.job(request_id)
            _check_submitter(request, job)  # also before there is a result: its existence is not for other submitters to learn
            if seconds is not None:
                await self._waiting.apply(request, job, seconds, responses.is_over)
        return await self._runtime.result(request_id)

    async def _send_stored_response(self, request: Request, result: JobResult) -> None:
        """Send status, headers and body as the application returned them. A chunked body is sent while it is read."""
        response = result.response
        if response is None:
            raise UnknownRequest("the result is no longer stored")
        # The first chunk is read before anything is sent: if retention has deleted the result, the response is 404. If a later
        # chunk is missing, the connection breaks off, so that no client takes a prefix for the whole.
        chunks = iter_chunks(self._runtime.response_chunk, result.job.key, response)
        chunk = await anext(chunks)
        kept = served_headers(response.headers, request.scope["headers"], external=result.external)
        headers = [pair for pair in kept if pair[0] != b"x-fal-request-id"]
        headers.append((b"x-fal-request-id", result.job.request_id.encode()))
        if request.applied:
            headers += ((b"preference-applied", request.applied), VARY)
        await request.start(response.status, headers)
        for _ in range(response.chunks):
            await request.send({"type": "http.response.body", "body": chunk, "more_body": True})
            chunk = await anext(chunks)
        await request.send({"type": "http.response.body", "body": chunk})

    async def _cancel(self, request: Request) -> None:
        request_id = _request_id(request)
        if request.identity is not None:
            _check_submitter(request, await self._runtime.job(request_id))
        outcome = await self._runtime.cancel(request_id)
        request.request_id = request_id.lower()
        if outcome is CancelOutcome.FINISHED:
            await request.respond(400, responses.ALREADY_COMPLETED)
        else:
            await request.respond(202, responses.CANCEL_REQUESTED)

    async def _keys(self, request: Request) -> None:
        keys = await self._runtime.keys()
        await request.respond(200, json.dumps(keys).encode(), ((b"cache-control", b"public, max-age=300"),))

    async def _document(self, request: Request) -> None:
        await request.respond(200, self._render_document(links_of(request, self._settings).base))


def _request_id(request: Request) -> str:
    """The id in the path. An id in another form raises `UnknownRequest`, like any id that is not stored."""
    if not is_request_id(request.route.request_id):
        raise UnknownRequest("the id is not a request id")
    return request.route.request_id


def _check_app(served: str, app: str) -> None:
    if not app.endswith(f"/{served}"):  # a namespace may precede it
        raise UnknownRoute(f"this queue serves the app {served!r}, not {app[1:200]!r}")


def _check_submitter(request: Request, job: Job) -> None:
    """A request of another submitter looks like one that does not exist."""
    if request.identity is not None and job.identity != request.identity:
        raise UnknownRequest("submitted with another identity")
