"""Reads, checks and stores fal submissions (docs/reference/protocols/fal.md, section 2)."""

from __future__ import annotations

from collections.abc import Mapping
from urllib.parse import unquote_plus

from queue_middleware.asgi.headers import MAX_HEADER_BYTES, RequestHeaders, read_headers
from queue_middleware.asgi.proxy_headers import ProxyHeaders
from queue_middleware.errors import BadRequest, HeadersTooLarge
from queue_middleware.jobs.models import Headers, NewJob, StoredRequest
from queue_middleware.jobs.mount import read_mount
from queue_middleware.jobs.task_spec import TaskSpec
from queue_middleware.runtime.runtime import Runtime
from queue_middleware.tasks.placeholders import MARKER, has_placeholder
from queue_middleware.web.path_rules import PathRules, check_length, check_query
from queue_middleware.web.request import BodyReader, QueueRequest
from queue_middleware.web.urls import base_url, client_address, server_address
from queue_middleware.worker.starts import Submission

from .params import SubmitOptions, read_options
from .routes import Route


class Submitter:
    """Stores the submissions of one queue."""

    def __init__(self, runtime: Runtime, bodies: BodyReader) -> None:
        self._runtime = runtime
        self._bodies = bodies
        self._settings = runtime.settings
        self._paths = PathRules(runtime.settings)
        self._proxy = ProxyHeaders(runtime.settings.proxy_headers)

    async def submit(self, request: QueueRequest[Route]) -> Submission:
        """Check, read and store a submission. Raises a `QueueError` or `ClientDisconnected`; then nothing is stored.

        Send the response inside `with` of the returned submission.
        """
        headers: Headers = tuple(request.scope["headers"])
        query, parameters = split_query(request.scope["query_string"])
        request.body_unread = True
        read = read_headers(headers, self._proxy.is_set_by_proxies)
        if read.size > MAX_HEADER_BYTES:
            raise HeadersTooLarge(f"the headers take {read.size} bytes; the maximum is {MAX_HEADER_BYTES}")
        check_length(request.route.target, query)
        self._paths.check(request.route.target)
        options = read_options(read.fal_headers, parameters, self._settings.max_attempts)
        if options.callback_timeout is not None and options.callback_timeout > self._settings.max_wait:
            most = self._settings.max_wait
            raise BadRequest(
                f"fal_callback_timeout is {options.callback_timeout:g}; the maximum is {most:.15g} seconds (max_wait)"
            )
        if options.webhook is not None:
            options = options.replace(webhook=self._runtime.check_webhook(options.webhook))
        try:
            body = await self._bodies.read(request, headers)
            return await self._runtime.submit(self._new_job(request, read, query, options, body))
        finally:
            self._bodies.done(request)

    def _new_job(
        self, request: QueueRequest[Route], headers: RequestHeaders, query: bytes, options: SubmitOptions, body: bytes
    ) -> NewJob:
        scope = request.scope
        client = client_address(scope)
        stored = StoredRequest(
            method=scope["method"],
            root_path=scope.get("root_path", ""),
            raw_path=(request.split_path.root + request.route.target).encode("latin-1"),
            query=query,
            headers=headers.replayed,
            client=client,
            server=server_address(scope),
            scheme=scope.get("scheme", "http"),
            http_version=scope.get("http_version", "1.1"),
            body=body,
            mount=read_mount(scope),
        )
        new = NewJob(
            request=stored,
            client=request.client,
            retry=options.retry,
            priority=options.priority,
            start_timeout=options.start_timeout,
            webhook=options.webhook,
            max_queue_length=options.max_queue_length,
            unstored_response=not options.store_io,
            webhook_kinds=options.webhook_kinds,
            route=self._runtime.routes.of(request.route.target, stored.method, scope),
        )
        wanted = MARKER in body or MARKER in headers.text or MARKER in query or MARKER in stored.raw_path
        if wanted or options.callback_timeout is not None:
            return self._with_task(request, new, options)
        return new

    def _with_task(self, request: QueueRequest[Route], new: NewJob, options: SubmitOptions) -> NewJob:
        """Add a task if the request contains the callback placeholder, or if its handler may ask for a callback URL."""
        is_wanted = has_placeholder(new.request)
        if not is_wanted and options.callback_timeout is None:
            return new
        wait = self._settings.callback_timeout if options.callback_timeout is None else options.callback_timeout
        spec = TaskSpec(base_url(request.scope, self._settings), wait, callback=is_wanted)
        return new.replace(task=self._runtime.new_task(spec))


def split_query(query: bytes) -> tuple[bytes, Mapping[str, str]]:
    """Return the query for the application, byte for byte, and the `fal_*` parameters, which are for the queue.

    Raises `BadRequest`, `UriTooLong`.
    """
    if b"fal_" not in query and b"%" not in query:
        return query, {}
    check_query(query)
    forwarded: list[bytes] = []
    parameters: dict[str, str] = {}
    for part in query.split(b"&"):
        name, _, value = part.partition(b"=")
        key = unquote_plus(name.decode("latin-1"))
        if not key.startswith("fal_"):
            forwarded.append(part)
        elif key in parameters:
            raise BadRequest(f"the query parameter {key} is given more than once")
        else:
            parameters[key] = unquote_plus(value.decode("latin-1"))
    return b"&".join(forwarded), parameters
