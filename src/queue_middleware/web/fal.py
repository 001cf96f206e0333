"""fal's queue as an ASGI application, in all its forms and aliases (fal queue contract, sections 1, 3, 5, 6, 13).

Raw ASGI, because a client polls ten times a second: a routing layer would cost more than the answer.
"""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable

from starlette.types import Receive, Scope, Send

from queue_middleware.errors import QueueError, UnknownRequest, UnknownRoute
from queue_middleware.models import Cancelled, Job, Result
from queue_middleware.pieces import pieces_of
from queue_middleware.request_id import is_request_id
from queue_middleware.runtime import Runtime
from queue_middleware.scope import origin
from queue_middleware.wire import fal, openapi
from queue_middleware.wire.event_ids import read_heard
from queue_middleware.wire.failures import STATUS, failure_body, failure_headers, refusal
from queue_middleware.wire.links import Links
from queue_middleware.wire.routes import CHANGING, OF_ONE_REQUEST, OPEN, Verb, find_host_route, find_route

from .access import Access
from .address import base_url, host_of, split_address
from .asyncqueue import BELOW, TaskQueue
from .call import Call, ClientGone
from .cross_site import CrossSiteCheck
from .intake import SUBMISSIONS, Intake
from .logtexts import LogTexts
from .result_headers import served_headers
from .streams import StatusStream
from .submission import Submissions


class FalQueue:
    """Everything under the prefix, and at the root of the hosts that are the queue's."""

    def __init__(self, runtime: Runtime, access: Access) -> None:
        self._runtime = runtime
        self._access = access
        self._cross_site = CrossSiteCheck(runtime.settings)
        self._settings = settings = runtime.settings
        intake = Intake(settings.max_request_body, SUBMISSIONS, settings.body_timeout)
        self._tasks = TaskQueue(runtime, access, self._cross_site, intake)
        self._app = settings.queue_app
        self._submissions = Submissions(runtime, intake)
        self._logs = LogTexts(runtime.logs)
        self._verbs: dict[Verb, Callable[[Call], Awaitable[None]]] = {
            Verb.SUBMIT: self._submit,
            Verb.STATUS: self._status,
            Verb.STREAM: self._stream,
            Verb.RESPONSE: self._response,
            Verb.CANCEL: self._cancel,
            Verb.KEYS: self._keys,
            Verb.DOCUMENT: self._document,
        }

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one HTTP request under the prefix, or to one of `fal_hosts`."""
        call = Call(scope, receive, send)
        try:
            call.address = address = split_address(scope, self._settings.prefix)
            if address.rest.startswith(BELOW) and not address.at_host:
                return await self._tasks.serve(call)
            call.route = (find_host_route if address.at_host else find_route)(scope["method"], address.rest)
            if self._app is not None and call.route.app:
                self._check_app(self._app, call.route.app)
            call.body_is_unread = call.route.verb is Verb.SUBMIT
            if call.route.verb in CHANGING:
                self._cross_site.check(scope)
            self._runtime.check_running()
            if self._access.is_asked and call.route.verb not in OPEN:
                call.identity = await self._access.identify(scope)
            if call.route.verb in OF_ONE_REQUEST and not is_request_id(call.route.request_id):
                raise UnknownRequest("an id of another form is unknown like any other")
            await self._verbs[call.route.verb](call)
        except ClientGone:
            return None
        except UnknownRequest:
            call.name_request()
            await call.answer(404, fal.NOT_FOUND)
        except QueueError as error:
            call.name_request()
            body, headers = refusal(error)
            await call.answer(error.status, body, (*headers, (b"connection", b"close")) if call.body_is_unread else headers)

    async def _submit(self, call: Call) -> None:
        links = self._links(call)  # may be refused, and then nothing is stored
        with await self._submissions.take(call) as receipt:
            call.request_id = receipt.request_id
            await call.answer(200, fal.submitted_body(receipt.request_id, receipt.position, links))

    async def _status(self, call: Call) -> None:
        job = await self._runtime.job(call.route.request_id)
        _check_owner(call, job)
        call.request_id = job.request_id
        # Behind the job: a job that was at its end by then has all its lines.
        entries = await self._logs.of(job) if fal.wants_logs(call.scope["query_string"]) else None
        await call.answer(200 if fal.is_over(job) else 202, fal.status_body(job, self._links(call), entries))

    async def _stream(self, call: Call) -> None:
        links = self._links(call)
        lines = fal.wants_logs(call.scope["query_string"])
        async with self._runtime.follow(call.route.request_id, call.send, lines=lines) as follower:
            _check_owner(call, follower.glance.job)
            call.request_id = follower.glance.job.request_id
            heard = read_heard(call.scope["headers"])
            if heard.end and fal.is_over(follower.glance.job):
                await call.answer_nothing()  # with which `EventSource` does not come again
                return

            def spell(job: Job, entries: str | None) -> bytes:
                return fal.status_body(job, links, entries)

            await StatusStream(call, follower, heard, spell, self._runtime.logs).run()

    async def _response(self, call: Call) -> None:
        result = await self._result(call)
        call.request_id = result.job.request_id
        if result.job.failure is not None:
            failure = result.job.failure
            await call.answer(STATUS[failure.error_type], failure_body(failure), failure_headers(failure))
        else:
            await self._replay_answer(call, result)

    async def _result(self, call: Call) -> Result:
        if call.identity is not None:  # also before there is one: whose it is comes first
            _check_owner(call, await self._runtime.job(call.route.request_id))
        return await self._runtime.result(call.route.request_id)

    async def _replay_answer(self, call: Call, result: Result) -> None:
        """Status, headers and body as the application gave them; a streamed answer leaves as it is read."""
        response = result.response
        if response is None:
            raise UnknownRequest("the result is no longer kept")
        # Read before the first byte is sent: retention may have taken it, and then it is a 404. What is taken later breaks off
        # the connection, so that no client takes a part for the whole.
        pieces = pieces_of(self._runtime.output, result.job.key, response)
        piece = await anext(pieces)
        kept = served_headers(response.headers, call.scope["headers"], external=result.external)
        headers = [pair for pair in kept if pair[0] != b"x-fal-request-id"]
        headers.append((b"x-fal-request-id", result.job.request_id.encode()))
        await call.start(response.status, headers)
        for _ in range(response.parts):
            await call.send({"type": "http.response.body", "body": piece, "more_body": True})
            piece = await anext(pieces)
        await call.send({"type": "http.response.body", "body": piece})

    async def _cancel(self, call: Call) -> None:
        if call.identity is not None:
            _check_owner(call, await self._runtime.job(call.route.request_id))
        outcome = await self._runtime.cancel(call.route.request_id)
        call.request_id = call.route.request_id.lower()
        if outcome is Cancelled.FINISHED:
            await call.answer(400, fal.ALREADY_COMPLETED)
        else:
            await call.answer(202, fal.CANCEL_REQUESTED)

    async def _keys(self, call: Call) -> None:
        keys = await self._runtime.keys()
        await call.answer(200, json.dumps(keys).encode(), ((b"cache-control", b"public, max-age=300"),))

    async def _document(self, call: Call) -> None:
        access, longest = self._access, self._settings.max_wait
        await call.answer(200, openapi.document(self._links(call).base, access.is_asked, access.takes_keys, longest))

    def _check_app(self, served: str, app: str) -> None:
        if not app.endswith(f"/{served}"):  # a namespace may stand in front
            raise UnknownRoute(f"this queue is that of the app {served!r}, not of {app[1:200]!r}")

    def _links(self, call: Call) -> Links:
        """The URLs that this client is given, in the form in which he came."""
        scope, app, public = call.scope, call.route.app, self._settings.public_url
        if call.address.at_host:
            # The host is the one that he insists on; what `public_url` knows better is only the scheme.
            scheme = scope.get("scheme", "http") if public is None else public.partition(":")[0]
            return Links(origin(scheme, host_of(scope), scope.get("root_path", "")) + app, response_end="")
        base = base_url(scope, self._settings)
        return Links(f"{base}/run{app}", response_end="") if app else Links(base)


def _check_owner(call: Call, job: Job) -> None:
    """Foreign and unknown ones look the same."""
    if call.identity is not None and job.identity != call.identity:
        raise UnknownRequest("somebody else's")
