"""fal's queue as an ASGI application: the gateway form with all its aliases (fal queue contract, sections 1.1, 2, 3, 5, 6, 13).

Raw ASGI, because a client polls ten times a second: a routing layer would cost more than the answer.
"""

from __future__ import annotations

import json
import re
from collections.abc import Awaitable, Callable
from fnmatch import translate
from typing import Any
from urllib.parse import quote, unquote

from starlette.types import Receive, Scope, Send

from queue_middleware.errors import (
    HeadersTooLarge,
    NotAllowed,
    QueueError,
    StillInProgress,
    TooLarge,
    Unavailable,
    UnknownRequest,
)
from queue_middleware.headers import replayed_headers
from queue_middleware.models import Cancelled, Headers, NewJob, Result, StoredRequest
from queue_middleware.runtime import Runtime
from queue_middleware.wire import fal
from queue_middleware.wire.failures import STATUS, failure_body, failure_headers
from queue_middleware.wire.knobs import Knobs, read_knobs

from .address import Address, split_address

_LARGEST_HEADERS = 32 * 1024
_INTAKE = 256 * 2**20
"""Bytes of submissions that may be in memory at once, on their way to the database."""
_JSON = (b"content-type", b"application/json")


class ClientGone(Exception):
    """The client closed the connection in the middle of its request."""


class FalQueue:
    """Everything under the prefix."""

    def __init__(self, runtime: Runtime) -> None:
        settings = runtime.settings
        self._runtime = runtime
        self._settings = settings
        self._paths = [re.compile(translate(pattern)) for pattern in settings.paths]
        self._intake = 0
        self._verbs: dict[fal.Verb, Callable[[_Call], Awaitable[None]]] = {
            fal.Verb.SUBMIT: self._submit,
            fal.Verb.STATUS: self._status,
            fal.Verb.RESPONSE: self._response,
            fal.Verb.CANCEL: self._cancel,
            fal.Verb.KEYS: self._keys,
        }

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one HTTP request under the prefix."""
        call = _Call(scope, receive, send)
        try:
            call.address = split_address(scope, self._settings.prefix)
            call.route = fal.find_route(scope["method"], call.address.rest)
            self._runtime.check_running()
            await self._verbs[call.route.verb](call)
        except ClientGone:
            return
        except UnknownRequest:
            await call.answer(404, fal.NOT_FOUND)
        except StillInProgress as error:
            call.request_id = call.route.request_id.lower()
            await call.answer(error.status, json.dumps({"detail": error.detail}).encode())
        except QueueError as error:
            extra = (*error.headers, (b"connection", b"close")) if call.body_is_unread else error.headers
            await call.answer(error.status, json.dumps({"detail": error.detail}).encode(), extra)

    # --- submitting

    async def _submit(self, call: _Call) -> None:
        scope = call.scope
        headers: Headers = tuple(scope["headers"])
        target = call.route.target
        query, parameters = fal.split_query(scope["query_string"])
        call.body_is_unread = True
        self._check(headers, target, query)
        knobs = read_knobs(headers, parameters, self._settings.max_attempts)
        if knobs.webhook is not None:
            self._runtime.check_webhook(knobs.webhook)
        try:
            body = await self._body(call, headers)
            call.body_is_unread = False
            receipt = await self._runtime.submit(self._new_job(call, headers, query, knobs, body))
        finally:
            self._intake -= call.size
        call.request_id = receipt.request_id
        await call.answer(200, fal.submitted_body(receipt.request_id, receipt.position, self._base(call)))

    def _new_job(self, call: _Call, headers: Headers, query: bytes, knobs: Knobs, body: bytes) -> NewJob:
        scope = call.scope
        client = _address(scope.get("client"))
        server = scope.get("server")
        return NewJob(
            request=StoredRequest(
                method=scope["method"],
                root_path=scope.get("root_path", ""),
                raw_path=(call.address.root + call.route.target).encode("latin-1"),
                query=query,
                headers=replayed_headers(headers),
                client=client,
                server=(str(server[0]), server[1]) if server and isinstance(server[1], int | None) else None,
                scheme=scope.get("scheme", "http"),
                http_version=scope.get("http_version", "1.1"),
                body=body,
            ),
            client=client[0] if client else "",
            retry=knobs.retry,
            priority=knobs.priority,
            start_timeout=knobs.start_timeout,
            webhook=knobs.webhook,
            max_queue_length=knobs.max_queue_length,
        )

    def _check(self, headers: Headers, target: str, query: bytes) -> None:
        size = sum([len(name) + len(value) + 4 for name, value in headers])
        if size > _LARGEST_HEADERS:
            raise HeadersTooLarge(f"the headers take {size} bytes, the most is {_LARGEST_HEADERS}")
        fal.check_length(target, query)
        fal.check_target(target, self._settings.prefix)
        if self._paths and not any(pattern.match(unquote(target)) for pattern in self._paths):
            raise NotAllowed(f"the path {target!r} may not be queued; the option 'paths' names those that may")

    async def _body(self, call: _Call, headers: Headers) -> bytes:
        """The whole body; refused as soon as it is known to be too large, or to be too much together with others'."""
        most = self._settings.max_request_body
        for name, value in headers:
            if name == b"content-length" and value.isdigit() and (len(value) > 15 or int(value) > most):
                raise TooLarge(f"the body has {value[:15].decode()} bytes or more, the most is {most}")
        pieces: list[bytes] = []
        while True:
            message = await call.receive()
            if message["type"] == "http.disconnect":
                raise ClientGone
            piece = message.get("body", b"")
            pieces.append(piece)
            call.size += len(piece)
            self._intake += len(piece)
            if call.size > most:
                raise TooLarge(f"the body is larger than {most} bytes")
            if self._intake > _INTAKE and self._intake > 2 * most:
                raise Unavailable("too many large submissions at once", 5)
            if not message.get("more_body", False):
                return pieces[0] if len(pieces) == 1 else b"".join(pieces)

    # --- asking

    async def _status(self, call: _Call) -> None:
        job = await self._runtime.job(call.route.request_id)
        call.request_id = job.request_id
        # Behind the job: a job that was at its end by then has all its lines.
        lines = await self._runtime.logs(job.key) if fal.wants_logs(call.scope["query_string"]) else None
        await call.answer(200 if fal.is_over(job) else 202, fal.status_body(job, self._base(call), lines))

    async def _response(self, call: _Call) -> None:
        result = await self._runtime.result(call.route.request_id)
        call.request_id = result.job.request_id
        if result.job.failure is not None:
            failure = result.job.failure
            await call.answer(STATUS[failure.error_type], failure_body(failure), failure_headers(failure))
        else:
            await self._replay_answer(call, result)

    async def _replay_answer(self, call: _Call, result: Result) -> None:
        """Status, headers and body as the application gave them; a streamed answer leaves as it is read."""
        response = result.response
        if response is None:
            raise UnknownRequest("the result is no longer kept")
        # Read before the first byte is sent: retention may have taken it, and then it is a 404.
        first = await self._runtime.output(result.job.key, 0) if response.parts else b""
        headers = [pair for pair in response.headers if pair[0] != b"x-fal-request-id"]
        headers.append((b"x-fal-request-id", result.job.request_id.encode()))
        await call.start(response.status, headers)
        if response.parts:
            await call.send({"type": "http.response.body", "body": first, "more_body": True})
        for number in range(1, response.parts):
            part = await self._runtime.output(result.job.key, number)
            await call.send({"type": "http.response.body", "body": part, "more_body": True})
        await call.send({"type": "http.response.body", "body": response.body})

    async def _cancel(self, call: _Call) -> None:
        outcome = await self._runtime.cancel(call.route.request_id)
        call.request_id = call.route.request_id.lower()
        if outcome is Cancelled.FINISHED:
            await call.answer(400, fal.ALREADY_COMPLETED)
        else:
            await call.answer(202, fal.CANCEL_REQUESTED)

    async def _keys(self, call: _Call) -> None:
        await call.answer(200, json.dumps(self._runtime.keys()).encode(), ((b"cache-control", b"public, max-age=3600"),))

    def _base(self, call: _Call) -> str:
        """The URL of the prefix, as this client sees it."""
        prefix = self._settings.prefix
        if self._settings.public_url is not None:
            return self._settings.public_url + prefix
        scope = call.scope
        root = scope.get("root_path", "")
        if root:
            root = quote(root, safe="/%:@!$&'()*+,;=~-._")
        return f"{scope.get('scheme', 'http')}://{_host(scope)}{root}{prefix}"


def _address(client: Any) -> tuple[str, int] | None:
    """Host and port; what is neither, for instance the path of a socket, is no address to replay."""
    if client and isinstance(client[0], str) and isinstance(client[1], int):
        return client[0], client[1]
    return None


def _host(scope: Scope) -> str:
    for name, value in scope["headers"]:
        if name == b"host":
            host: str = value.decode("latin-1")
            return host
    name, port = scope.get("server") or ("localhost", None)
    return f"{name}:{port}" if port else str(name)


class _Call:
    """One request to us, and how it is answered."""

    __slots__ = ("address", "body_is_unread", "receive", "request_id", "route", "scope", "send", "size", "started")

    address: Address
    route: fal.Route

    def __init__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self.scope = scope
        self.receive = receive
        self.send = send
        self.request_id = ""
        self.body_is_unread = False
        self.started = False
        self.size = 0

    async def start(self, status: int, headers: list[tuple[bytes, bytes]]) -> None:
        self.started = True
        await self.send({"type": "http.response.start", "status": status, "headers": headers})

    async def answer(self, status: int, body: bytes, extra: Headers = ()) -> None:
        if self.started:
            raise RuntimeError("an answer broke off, its end cannot be read")  # the server cuts the connection
        headers = [_JSON, (b"content-length", b"%d" % len(body)), *extra]
        if self.request_id:
            headers.append((b"x-fal-request-id", self.request_id.encode()))
        self.started = True
        await self.send({"type": "http.response.start", "status": status, "headers": headers})
        await self.send({"type": "http.response.body", "body": body})
