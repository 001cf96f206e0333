"""Submissions: judged before their body is read, bounded in memory until they are stored (fal queue contract, section 2)."""

from __future__ import annotations

import re
from fnmatch import translate
from urllib.parse import unquote

from queue_middleware.errors import BadRequest, HeadersTooLarge, NotAllowed
from queue_middleware.headers import LARGEST_BLOCK, RequestHeaders, read_headers
from queue_middleware.models import Headers, NewJob, StoredRequest
from queue_middleware.mount import read_mount
from queue_middleware.proxy_headers import ProxyHeaders
from queue_middleware.runtime import Runtime
from queue_middleware.settings import Settings
from queue_middleware.starts import Submission
from queue_middleware.taskspec import TaskSpec
from queue_middleware.wire import fal
from queue_middleware.wire.knobs import Knobs, read_knobs
from queue_middleware.wire.placeholder import HINT, holds_place

from .address import base_url, client_address, server_address
from .call import Call
from .intake import Intake


class PathRules:
    """Which paths may be queued."""

    def __init__(self, settings: Settings) -> None:
        self._prefix = settings.prefix
        self._patterns = [re.compile(translate(pattern)) for pattern in settings.paths]

    def check(self, target: str) -> None:
        """Judge a percent-encoded path. Raises `BadRequest`, `NotAllowed`."""
        fal.check_target(target, self._prefix)
        if self._patterns and not any(pattern.match(unquote(target)) for pattern in self._patterns):
            raise NotAllowed(f"the path {target!r} may not be queued; the option 'paths' names those that may")


class Submissions:
    """From a call to a stored job."""

    def __init__(self, runtime: Runtime, intake: Intake) -> None:
        self._runtime = runtime
        self._intake = intake
        self._settings = runtime.settings
        self._paths = PathRules(runtime.settings)
        self._proxy = ProxyHeaders(runtime.settings.proxy_headers)

    async def take(self, call: Call) -> Submission:
        """Judge, read and store. Raises what is wrong with it, or `ClientGone`; then nothing was stored.

        To be answered inside of `with` the submission.
        """
        headers: Headers = tuple(call.scope["headers"])
        query, parameters = fal.split_query(call.scope["query_string"])
        call.body_is_unread = True
        read = read_headers(headers, self._proxy.sets)
        if read.size > LARGEST_BLOCK:
            raise HeadersTooLarge(f"the headers take {read.size} bytes, the most is {LARGEST_BLOCK}")
        fal.check_length(call.route.target, query)
        self._paths.check(call.route.target)
        knobs = read_knobs(read.said, parameters, self._settings.max_attempts)
        if knobs.callback_timeout is not None and knobs.callback_timeout > self._settings.max_wait:
            most = self._settings.max_wait
            raise BadRequest(
                f"fal_callback_timeout is {knobs.callback_timeout:g}; it takes at most {most:.15g} seconds (max_wait)"
            )
        if knobs.webhook is not None:
            knobs = knobs.replace(webhook=self._runtime.check_webhook(knobs.webhook))
        try:
            body = await self._intake.read(call, headers)
            return await self._runtime.submit(self._new_job(call, read, query, knobs, body))
        finally:
            self._intake.done(call)

    def _new_job(self, call: Call, headers: RequestHeaders, query: bytes, knobs: Knobs, body: bytes) -> NewJob:
        scope = call.scope
        client = client_address(scope)
        request = StoredRequest(
            method=scope["method"],
            root_path=scope.get("root_path", ""),
            raw_path=(call.address.root + call.route.target).encode("latin-1"),
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
            request=request,
            client=call.client,
            retry=knobs.retry,
            priority=knobs.priority,
            start_timeout=knobs.start_timeout,
            webhook=knobs.webhook,
            max_queue_length=knobs.max_queue_length,
            short_lived=not knobs.store_io,
            events=knobs.events,
        )
        wanted = HINT in body or HINT in headers.values or HINT in query or HINT in request.raw_path
        if wanted or knobs.callback_timeout is not None:
            return self._with_task(call, new, knobs)
        return new

    def _with_task(self, call: Call, new: NewJob, knobs: Knobs) -> NewJob:
        """Where the callback URL is wanted, the job will wait for its callback; perhaps also where its handler asks."""
        is_wanted = holds_place(new.request)
        if not is_wanted and knobs.callback_timeout is None:
            return new
        wait = self._settings.callback_timeout if knobs.callback_timeout is None else knobs.callback_timeout
        spec = TaskSpec(base_url(call.scope, self._settings), wait, callback=is_wanted)
        return new.replace(task=self._runtime.new_task(spec))
