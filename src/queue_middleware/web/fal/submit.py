"""Reads, checks and stores fal submissions (docs/reference/protocols/fal.md, section 2)."""

from __future__ import annotations

from collections.abc import Mapping
from urllib.parse import unquote_plus

from queue_middleware.asgi.headers import MAX_HEADER_BYTES
from queue_middleware.asgi.mount import read_mount
from queue_middleware.errors import BadRequest, HeadersTooLarge, QueueError
from queue_middleware.jobs.models import Headers, NewJob, StoredRequest, SubmitResult
from queue_middleware.jobs.task_spec import TaskSpec
from queue_middleware.runtime.runtime import Runtime
from queue_middleware.tasks.placeholders import has_placeholder, may_have_placeholder
from queue_middleware.web.auth import client_of
from queue_middleware.web.idempotency import REPLAYED, IdempotencyKeys
from queue_middleware.web.path_rules import PathRules, check_length, check_query
from queue_middleware.web.preferences import NONE, Preferences, read_preferences, without_queue_preferences
from queue_middleware.web.request import BodyReader, QueueRequest
from queue_middleware.web.urls import base_url, client_address, server_address
from queue_middleware.web.waiting import WaitingRequests
from queue_middleware.worker.starts import Submission

from .links import links_of
from .params import SubmitOptions, read_options
from .responses import Links, is_over, receipt_body, submitted_body
from .routes import Route

_MAX_CACHED_PATH = 512
"""Bytes. Shorter paths are checked once."""
_MAX_CACHED_PATHS = 1024


class SubmitEndpoint:
    """Stores the submissions of one queue."""

    def __init__(self, runtime: Runtime, bodies: BodyReader, waiting: WaitingRequests) -> None:
        self._runtime = runtime
        self._bodies = bodies
        self._waiting = waiting
        self._settings = runtime.settings
        self._paths = PathRules(runtime.settings)
        self._keys = IdempotencyKeys(runtime.settings)
        self._usual_options = read_options({}, {}, runtime.settings.max_attempts)
        """The options of a submission that asks for nothing."""
        self._calls: dict[tuple[str, str], bytes] = {}
        """The paths of calls that `PathRules` accepts, by root path and target."""

    async def submit(self, request: QueueRequest[Route]) -> None:
        """Check, read and store a submission, and respond.

        Raises a `QueueError`, and then nothing is stored; `ClientDisconnected` also while the receipt waits.
        """
        links = links_of(request, self._settings)
        query: bytes = request.scope["query_string"]
        parameters: Mapping[str, str] = {}
        if query:
            query, parameters = split_query(query)
        headers = request.headers
        if headers.size > MAX_HEADER_BYTES:
            raise HeadersTooLarge(f"the headers take {headers.size} bytes; the maximum is {MAX_HEADER_BYTES}")
        if query:
            check_length(request.route.target, query)
        raw_path = self._calls.get((request.split_path.root, request.route.target)) or self._check_path(request)
        usual = not (parameters or headers.fal_headers)
        options = self._usual_options if usual else self._read_options(headers.fal_headers, parameters)
        key, preferences = None, NONE
        if headers.noted or self._keys.are_required:
            key, preferences = self._read_noted(request)
        submission = await self._store(request, raw_path, query, options, key)
        try:
            submitted = submission.result
            request.request_id = submitted.request_id
            receipt, extra = _receipt(submitted, links)
            if preferences is not NONE:
                _apply_at_once(request, preferences)
            if not preferences.wait:
                await request.respond(200, receipt, extra)
                return
        finally:
            submission.close()  # also where the receipt waits: the attempt must not wait for it
        del submission, submitted  # their claim has the body
        await request.respond(200, await self._delayed_receipt(request, preferences.wait, links) or receipt, extra)

    async def _store(
        self, request: QueueRequest[Route], raw_path: bytes, query: bytes, options: SubmitOptions, key: str | None
    ) -> Submission:
        """Read the body and store the submission. Nothing keeps the body in memory when this returns."""
        try:
            body = await self._bodies.read(request, request.headers.lengths)
            new = self._new_job(request, raw_path, query, options, body)
            if key is not None:
                new = new.replace(idempotency_key=await self._keys.make(request, key, raw_path, query, body))
            return await self._runtime.submit(new)
        finally:
            self._bodies.done(request)

    def _read_noted(self, request: QueueRequest[Route]) -> tuple[str | None, Preferences]:
        """The idempotency key and the preferences; the latter are removed from what is replayed. Raises `BadRequest`."""
        headers = request.headers
        key = self._keys.read(headers)
        self._keys.require(key, request.route.target)
        preferences = read_preferences(headers.noted)
        if preferences is not NONE:
            request.headers = headers.replace(replayed=without_queue_preferences(headers.replayed))
        return key, preferences

    async def _delayed_receipt(self, request: QueueRequest[Route], seconds: int, links: Links) -> bytes | None:
        """Wait until the request is completed. Returns the receipt with the present status.

        None if the database cannot be read: the submission is stored, so this is no error.
        """
        at_once = request.applied
        try:
            job = await self._runtime.job(request.request_id)
            await self._waiting.apply(request, job, seconds, is_over)
            return receipt_body(await self._runtime.job(request.request_id), links)
        except QueueError:
            request.applied = at_once
            return None

    def _check_path(self, request: QueueRequest[Route]) -> bytes:
        """The path of the call with its root path. Raises `UriTooLong`, `BadRequest`, `NotAllowed`."""
        root, target = request.split_path.root, request.route.target
        check_length(target, b"")
        self._paths.check(target)
        raw_path = (root + target).encode("latin-1")
        if len(raw_path) < _MAX_CACHED_PATH:
            if len(self._calls) >= _MAX_CACHED_PATHS:
                self._calls.clear()
            self._calls[root, target] = raw_path
        return raw_path

    def _read_options(self, headers: Mapping[bytes, bytes], parameters: Mapping[str, str]) -> SubmitOptions:
        """The options that a submission asks for. Raises `BadRequest`, `InvalidWebhook`."""
        options = read_options(headers, parameters, self._settings.max_attempts)
        if options.callback_timeout is not None and options.callback_timeout > self._settings.max_wait:
            most = self._settings.max_wait
            raise BadRequest(
                f"fal_callback_timeout is {options.callback_timeout:g}; the maximum is {most:.15g} seconds (max_wait)"
            )
        if options.webhook is not None:
            options = options.replace(webhook=self._runtime.check_webhook(options.webhook))
        return options

    def _new_job(
        self, request: QueueRequest[Route], raw_path: bytes, query: bytes, options: SubmitOptions, body: bytes
    ) -> NewJob:
        scope, headers = request.scope, request.headers
        method = scope["method"]
        stored = StoredRequest(
            method,
            scope.get("root_path", ""),
            raw_path,
            query,
            headers.replayed,
            client_address(scope),
            server_address(scope),
            scope.get("scheme", "http"),
            scope.get("http_version", "1.1"),
            body,
            read_mount(scope),
        )
        new = NewJob(
            stored,
            client_of(request.identity, scope),
            options.retry,
            options.priority,
            options.start_timeout,
            options.webhook,
            options.max_queue_length,
            not options.store_io,
            None,
            None,
            options.webhook_kinds,
            self._runtime.routes.of(request.route.target, method, scope),
        )
        if options.callback_timeout is not None or may_have_placeholder(body, headers.text, query, raw_path):
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


def _receipt(submitted: SubmitResult, links: Links) -> tuple[bytes, Headers]:
    """Body and headers of the response."""
    if submitted.existing is None:
        return submitted_body(submitted.request_id, submitted.position, links), ()
    return receipt_body(submitted.existing.job, links), REPLAYED


def _apply_at_once(request: QueueRequest[Route], preferences: Preferences) -> None:
    """Apply the preferences that need no waiting."""
    if preferences.respond_async:
        request.add_applied(b"respond-async")
    if preferences.wait == 0:
        request.add_applied(b"wait=0")


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
