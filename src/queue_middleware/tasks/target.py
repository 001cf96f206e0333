"""Resolves what an attempt calls: the wrapped application or an external host, with the callback URL substituted.

An external host is presented as an ASGI application, so that timeouts, cancellation, limits and retries are the same for both.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Sequence
from typing import Any
from urllib.parse import urljoin

from queue_middleware.asgi.headers import TRACE_HEADERS, without_trace
from queue_middleware.asgi.proxy_headers import ProxyHeaders
from queue_middleware.asgi.replay import App, NoResponse
from queue_middleware.asgi.scope import SCOPE_KEY, request_origin
from queue_middleware.backoff import exponential
from queue_middleware.errors import InvalidWebhook, OutboundBusy, OutboundError, OutboundRefused, QueueError
from queue_middleware.instrumentation import CallKind, CallWork, Instruments, inside
from queue_middleware.jobs.models import ErrorType, Failure, Headers, StoredRequest
from queue_middleware.jobs.struct import Struct
from queue_middleware.jobs.task_spec import Task, TaskSpec
from queue_middleware.outbound.client import HTTPClient
from queue_middleware.outbound.guard import parse_url
from queue_middleware.settings import Settings
from queue_middleware.syntax.hosts import matches_any, origin_of
from queue_middleware.webhooks.formats.user_agent import USER_AGENT

from .placeholders import substitute, substitute_in_url
from .secret_ids import SecretIds

MAX_REDIRECTS = 10
_URL_LABEL = "the target"
"""Names the URL in the texts of errors."""
_HEAD_TIMEOUT = 86400.0
"""Seconds until the head of a response; the time limit of an attempt is shorter."""
_MAX_BUSY_DELAY = 30.0
"""The longest wait, in seconds, before a call that could not be started is tried again."""
_FOLLOWED_STATUSES = frozenset({301, 302, 303, 307, 308})
_CREDENTIAL = re.compile(rb"auth|cookie|key|token|secret|passw|credential|session|signature")
"""Parts of the names of headers with credentials. Providers have names of their own: `xi-api-key`, `x-goog-api-key`."""
_BODY_HEADERS = frozenset({b"content-type", b"content-encoding", b"content-language", b"content-location"})

_SECRET_MISSING = Failure(
    ErrorType.RUNNER_SERVER_ERROR, "the secret that this request's callback URL was made from is no longer in callback_secret"
)


def callback_url(base: str, callback_id: str) -> str:
    """The callback URL that a provider calls."""
    return f"{base}/v1/callbacks/{callback_id}"


class ResolvedTarget(Struct, frozen=True):
    """What an attempt calls, and with which request."""

    app: App
    request: StoredRequest
    callback_id: str | None = None
    """The callback id, if the request holds it; it has to be removed from the response before that is stored."""


class TargetResolver:
    """Resolves targets, and builds the callback URLs that their requests hold."""

    def __init__(
        self, app: App, outbound: HTTPClient, secret_ids: SecretIds, settings: Settings, instruments: Instruments | None = None
    ) -> None:
        self._app = app
        self._instruments = instruments
        self._outbound = outbound
        self._secret_ids = secret_ids
        self._settings = settings
        self._proxy_headers = ProxyHeaders(settings.proxy_headers)

    def resolve(self, request: StoredRequest, task: Task) -> ResolvedTarget:
        """What an attempt of a task calls. Raises nothing: a target that cannot be called fails when it is called."""
        spec, callback_id, target = task.spec, None, task.spec.target
        if spec.callback:
            callback_id = self._secret_ids.callback_id_of(task)
            if callback_id is None:
                return ResolvedTarget(_failing_app(_SECRET_MISSING), request)
            url = callback_url(spec.base_url, callback_id)
            request, target = substitute(request, url), substitute_in_url(target, url)
        if spec.is_external:
            if not self._settings.trace_outbound:
                request = request.replace(headers=without_trace(request.headers))
            hosts = self._settings.task_targets
            call = _ExternalTarget(
                self._outbound, hosts, request, target, self._proxy_headers, self._instruments, spec.provider
            )
            return ResolvedTarget(call, request, callback_id)
        return ResolvedTarget(self._app, request, callback_id)

    def without_proxy_headers(self, headers: Headers) -> Headers:
        """The headers without those that proxies set about the client: they are for the wrapped application only."""
        return tuple(pair for pair in headers if not self._proxy_headers.is_set_by_proxies(pair[0]))

    def new_callback_task(self, request: StoredRequest) -> Task:
        """The task that is stored for a handler that asks for its callback URL."""
        base = self._settings.public_url or request_origin(request)
        return self._secret_ids.new_task(TaskSpec(f"{base}{self._settings.prefix}", self._settings.callback_timeout))

    def callback_id_of(self, task: Task) -> str:
        """The callback id of a stored task. Raises `QueueError` if the secret that it was derived from is gone."""
        callback_id = self._secret_ids.callback_id_of(task)
        if callback_id is None:
            raise QueueError(_SECRET_MISSING.detail)
        return callback_id


class _ExternalTarget:
    """One call of an external host, in the form of an ASGI application."""

    def __init__(
        self,
        outbound: HTTPClient,
        hosts: Sequence[str],
        request: StoredRequest,
        url: str,
        proxy_headers: ProxyHeaders,
        instruments: Instruments | None,
        provider: str | None,
    ) -> None:
        self._outbound = outbound
        self._hosts = hosts
        self._method = request.method
        self._headers = _with_defaults(request.headers)
        self._body = request.body
        self._url = url
        self._proxy_headers = proxy_headers
        self._instruments = instruments
        self._provider = provider
        self._named = origin_of(url)

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """Call, follow redirects, and pass the response on. Raises `NoResponse`."""
        try:
            for hop in range(1, MAX_REDIRECTS + 2):
                if await self._call_when_free(send, self._work(scope[SCOPE_KEY], hop)):
                    return
        except (InvalidWebhook, OutboundRefused) as refused:
            raise _refusal(refused.detail) from None
        except OutboundError as failed:
            raise NoResponse(Failure(ErrorType.RUNNER_CONNECTION_ERROR, f"the target: {failed.detail}")) from None
        raise _refusal(f"more than {MAX_REDIRECTS} redirects")

    def _work(self, request_id: str, hop: int) -> CallWork:
        origin, label = origin_of(self._url), self._provider or ""
        work = CallWork(CallKind.TARGET, request_id, self._method, origin, hop, self._headers, label=label)
        work.is_named = origin == self._named
        return work

    async def _call_when_free(self, send: Any, work: CallWork) -> bool:
        """Make one hop once a connection is free, within the attempt's time limit. Returns whether it was the last."""
        waits = 0
        while True:
            try:
                with inside(self._instruments, work):
                    return await self._call(send, work)
            except OutboundBusy:  # raised before anything was sent
                waits += 1
                await asyncio.sleep(exponential(waits, longest=_MAX_BUSY_DELAY))

    async def _call(self, send: Any, work: CallWork) -> bool:
        """Make one hop. Returns whether it was the last."""
        parsed = parse_url(self._url, _URL_LABEL)
        if not is_allowed_target(parsed.host, self._hosts):
            raise _refusal(f"{parsed.host} is not in task_targets")
        async with self._outbound.stream(
            self._method, self._url, work.headers, self._body, _HEAD_TIMEOUT, _URL_LABEL
        ) as response:
            work.status = response.status
            location = dict(response.headers).get(b"location")
            if response.status in _FOLLOWED_STATUSES and location is not None:
                self._redirect(response.status, _join(self._url, location.decode("latin-1")))
                return False
            await send({"type": "http.response.start", "status": response.status, "headers": response.headers})
            async for chunk in response.chunks:
                await send({"type": "http.response.body", "body": chunk, "more_body": True})
        await send({"type": "http.response.body", "body": b""})
        return True

    def _redirect(self, status: int, url: str) -> None:
        """Prepare the next hop as browsers do (WHATWG Fetch standard, "HTTP-redirect fetch").

        Another origin receives no credentials, no headers of proxies and no trace context.
        """
        parse_url(url, _URL_LABEL)
        dropped: set[bytes] = set()
        if origin_of(self._url) != origin_of(url):
            dropped = {name for name, _ in self._headers if self._stays_at_origin(name)}
        if (status == 303 and self._method != "HEAD") or (status in (301, 302) and self._method == "POST"):
            self._method, self._body = "GET", b""
            dropped |= _BODY_HEADERS
        self._headers = tuple(pair for pair in self._headers if pair[0] not in dropped)
        self._url = url.partition("#")[0]

    def _stays_at_origin(self, name: bytes) -> bool:
        return name in TRACE_HEADERS or _CREDENTIAL.search(name) is not None or self._proxy_headers.is_set_by_proxies(name)


def is_allowed_target(host: str, hosts: Sequence[str]) -> bool:
    """Whether tasks may call this host."""
    return matches_any(host, hosts)


def _join(url: str, location: str) -> str:
    try:
        return urljoin(url, location)
    except ValueError:
        raise _refusal("the target redirects to a Location that is not a valid URL") from None


def _with_defaults(headers: Headers) -> Headers:
    """The task's headers, completed with those that every call has."""
    kept = tuple(pair for pair in headers if pair[0] != b"host")
    present = {name for name, _ in kept}
    defaults = ((b"user-agent", USER_AGENT.encode()), (b"accept", b"*/*"), (b"accept-encoding", b"identity"))
    return (*kept, *(pair for pair in defaults if pair[0] not in present))


def _refusal(detail: str) -> NoResponse:
    return NoResponse(Failure(ErrorType.RUNNER_CONNECTION_REFUSED, detail))


def _failing_app(failure: Failure) -> App:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        raise NoResponse(failure)

    return app
