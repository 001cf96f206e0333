"""What an attempt calls: the wrapped application, or a host outside; with the callback URL in its place.

A host outside looks like an application from here, so that time-outs, cancelling, limits and repetitions are the same for both.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Sequence
from typing import Any
from urllib.parse import urljoin

from .backoff import exponential
from .callback_id import CallbackIds
from .errors import InvalidWebhook, OutboundBusy, OutboundError, OutboundRefused, QueueError
from .guard import parse_url
from .hosts import is_among, origin_of
from .models import ErrorType, Failure, Headers, StoredRequest
from .outbound import Outbound
from .proxy_headers import ProxyHeaders
from .replay import App, NoAnswer
from .scope import origin_of as origin_of_request
from .settings import Settings
from .taskspec import Task, TaskSpec
from .value import Value
from .version import USER_AGENT
from .wire.placeholder import fill, fill_address

MOST_REDIRECTS = 10
_NOUN = "the target"
_PATIENCE = 86400.0
"""Seconds until the head of an answer; an attempt's own time limit is shorter."""
_LONGEST_WAIT = 30.0
"""Seconds until a call that could not be made is tried again, at most."""
_FOLLOWED = frozenset({301, 302, 303, 307, 308})
_CREDENTIAL = re.compile(rb"auth|cookie|key|token|secret|passw|credential|session|signature")
"""In names of headers. Providers have their own: `xi-api-key`, `x-goog-api-key`, `x-auth-token`."""
_OF_BODY = frozenset({b"content-type", b"content-encoding", b"content-language", b"content-location"})

_LOST_SECRET = Failure(
    ErrorType.RUNNER_SERVER_ERROR, "the secret from which this request's callback URL was made is not configured any more"
)


def callback_url(base: str, callback_id: str) -> str:
    """Where a provider calls back."""
    return f"{base}/v1/callbacks/{callback_id}"


class Aim(Value, frozen=True):
    """What is called, with what."""

    app: App
    request: StoredRequest
    secret: str | None = None
    """The callback id, where the request holds it; it is not to be kept of the answer."""


class Targets:
    """Knows the wrapped application, the way out, and what a callback URL looks like."""

    def __init__(self, app: App, outbound: Outbound, ids: CallbackIds, settings: Settings) -> None:
        self._app = app
        self._outbound = outbound
        self._ids = ids
        self._settings = settings
        self._proxy = ProxyHeaders(settings.proxy_headers)

    def aim(self, request: StoredRequest, task: Task) -> Aim:
        """What an attempt at a task calls. It raises nothing: what is wrong is found out by the call."""
        spec, secret, address = task.spec, None, task.spec.target
        if spec.callback:
            secret = self._ids.callback_of(task)
            if secret is None:
                return Aim(_fails(_LOST_SECRET), request)
            url = callback_url(spec.base, secret)
            request, address = fill(request, url), fill_address(address, url)
        if spec.outside:
            call = _Outside(self._outbound, self._settings.task_targets, request, address, self._proxy)
            return Aim(call, request, secret)
        return Aim(self._app, request, secret)

    def without_proxies(self, headers: Headers) -> Headers:
        """Headers of a call without what proxies have said about its client: that is for the application alone."""
        return tuple(pair for pair in headers if not self._proxy.sets(pair[0]))

    def expect(self, request: StoredRequest) -> Task:
        """What is to be stored for a handler that asks for its callback URL."""
        base = self._settings.public_url or origin_of_request(request)
        return self._ids.new_task(TaskSpec(f"{base}{self._settings.prefix}", self._settings.callback_timeout))

    def secret_of(self, task: Task) -> str:
        """The callback id of a task that is stored. Raises `QueueError` where the secret it was made from is gone."""
        made = self._ids.callback_of(task)
        if made is None:
            raise QueueError(_LOST_SECRET.detail)
        return made


class _Outside:
    """One call of another host, in the form of an ASGI application."""

    def __init__(
        self, outbound: Outbound, hosts: Sequence[str], request: StoredRequest, address: str, proxy: ProxyHeaders
    ) -> None:
        self._outbound = outbound
        self._hosts = hosts
        self._method = request.method
        self._headers = _with_ours(request.headers)
        self._body = request.body
        self._address = address
        self._proxy = proxy

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """Call, follow redirects, and pass on the answer. Raises `NoAnswer`."""
        try:
            for _ in range(MOST_REDIRECTS + 1):
                if await self._insist(send):
                    return
        except (InvalidWebhook, OutboundRefused) as refused:
            raise _refusal(refused.detail) from None
        except OutboundError as failed:
            raise NoAnswer(Failure(ErrorType.RUNNER_CONNECTION_ERROR, f"the target: {failed.detail}")) from None
        raise _refusal(f"more than {MOST_REDIRECTS} redirects")

    async def _insist(self, send: Any) -> bool:
        """One hop. While it cannot be made, for no fault of the target, the attempt waits, within its time limit."""
        waits = 0
        while True:
            try:
                return await self._call(send)
            except OutboundBusy:  # raised before anything was sent
                waits += 1
                await asyncio.sleep(exponential(waits, longest=_LONGEST_WAIT))

    async def _call(self, send: Any) -> bool:
        """One hop; whether it was the last."""
        parsed = parse_url(self._address, _NOUN)
        if not may_call(parsed.host, self._hosts):
            raise _refusal(f"the option 'task_targets' does not allow to call {parsed.host}")
        async with self._outbound.open(self._method, self._address, self._headers, self._body, _PATIENCE, _NOUN) as answer:
            location = dict(answer.headers).get(b"location")
            if answer.status in _FOLLOWED and location is not None:
                self._follow(answer.status, _joined(self._address, location.decode("latin-1")))
                return False
            await send({"type": "http.response.start", "status": answer.status, "headers": answer.headers})
            async for chunk in answer.chunks:
                await send({"type": "http.response.body", "body": chunk, "more_body": True})
        await send({"type": "http.response.body", "body": b""})
        return True

    def _follow(self, status: int, address: str) -> None:
        """As browsers do (WHATWG Fetch standard, "HTTP-redirect fetch"): another host is not told what was for the first."""
        parse_url(address, _NOUN)
        dropped: set[bytes] = set()
        if origin_of(self._address) != origin_of(address):
            dropped = {name for name, _ in self._headers if _CREDENTIAL.search(name) or self._proxy.sets(name)}
        if (status == 303 and self._method != "HEAD") or (status in (301, 302) and self._method == "POST"):
            self._method, self._body = "GET", b""
            dropped |= _OF_BODY
        self._headers = tuple(pair for pair in self._headers if pair[0] not in dropped)
        self._address = address.partition("#")[0]


def may_call(host: str, hosts: Sequence[str]) -> bool:
    """Whether a host is among those that tasks may call."""
    return is_among(host, hosts)


def _joined(address: str, location: str) -> str:
    try:
        return urljoin(address, location)
    except ValueError:
        raise _refusal("the target redirects to what is no URL") from None


def _with_ours(headers: Headers) -> Headers:
    """What a call from us says where the task does not."""
    kept = tuple(pair for pair in headers if pair[0] != b"host")
    given = {name for name, _ in kept}
    ours = ((b"user-agent", USER_AGENT.encode()), (b"accept", b"*/*"), (b"accept-encoding", b"identity"))
    return (*kept, *(pair for pair in ours if pair[0] not in given))


def _refusal(detail: str) -> NoAnswer:
    return NoAnswer(Failure(ErrorType.RUNNER_CONNECTION_REFUSED, detail))


def _fails(failure: Failure) -> App:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        raise NoAnswer(failure)

    return app
