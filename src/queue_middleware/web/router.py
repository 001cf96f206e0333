"""Routes a request to the group of endpoints that is mounted for its address, and turns errors into responses.

This is the one place for cross-site checks, authentication, and closing connections whose body was not read. `middleware`
decides which requests are the queue's. It is raw ASGI because a client polls ten times a second: a routing layer would cost
more than the response.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple, Protocol

from starlette.types import Receive, Scope, Send

from queue_middleware.asgi.headers import read_headers
from queue_middleware.asgi.proxy_headers import ProxyHeaders
from queue_middleware.errors import QueueError
from queue_middleware.jobs.models import Headers
from queue_middleware.runtime.readiness import Readiness
from queue_middleware.runtime.runtime import Runtime

from . import openapi
from .admin_access import AdminAccess
from .asyncqueue.endpoints import PREFIX, TaskEndpoints
from .auth import Authenticator
from .cross_site import CrossSiteCheck
from .fal.endpoints import FalEndpoints
from .ops.endpoints import OpsEndpoints
from .ops.metrics import MetricsPage
from .ops.routes import is_ops_path
from .request import MAX_SUBMISSION_BYTES, BodyReader, ClientDisconnected, Endpoint, QueueRequest
from .urls import SplitPath, split_path
from .waiting import WaitingRequests

_CLOSE = (b"connection", b"close")
_MAX_REMEMBERED = 1024
"""Paths whose endpoints are remembered, because clients poll and submit to the same ones."""
_MAX_REMEMBERED_PATH = 1024
"""Characters of such a path, decoded and encoded, with its root path."""


class Endpoints(Protocol):
    """A group of routes with a shape of errors of its own."""

    def match(self, request: QueueRequest[Any]) -> Endpoint:
        """Find the endpoint, set `request.route` and `request.body_unread`. Raises `UnknownRoute`, `MethodNotAllowed`."""

    def error_response(self, request: QueueRequest[Any], error: QueueError) -> tuple[int, bytes, Headers]:
        """Status, JSON body and headers for an error of this group's routes."""


class EndpointMount(NamedTuple):
    """One row of the routing table; the first that accepts a path serves it."""

    accepts: Callable[[SplitPath], bool]
    endpoints: Endpoints


class Match(NamedTuple):
    """What is known of a request from its method and its path."""

    endpoint: Endpoint
    split_path: SplitPath
    route: Any
    body_unread: bool


class Router:
    """Everything below the prefix, and all paths of the hosts that belong to the queue."""

    def __init__(self, runtime: Runtime, access: Authenticator, readiness: Readiness) -> None:
        settings = runtime.settings
        self._runtime = runtime
        self._access = access
        self._cross_site = CrossSiteCheck(settings)
        self._is_set_by_proxies = ProxyHeaders(settings.proxy_headers).is_set_by_proxies
        self._prefix = settings.prefix
        bodies = BodyReader(settings.max_request_body, MAX_SUBMISSION_BYTES, settings.body_timeout)
        document = partial(
            openapi.document, needs_authentication=access.required, accepts_keys=access.accepts_keys, max_wait=settings.max_wait
        )
        waiting = WaitingRequests(runtime)
        self._fal = FalEndpoints(runtime, bodies, waiting, document)
        """Serves what no row of the table accepts."""
        self._mounts = (
            EndpointMount(_is_task_path, TaskEndpoints(runtime, bodies, waiting)),
            EndpointMount(_is_ops_path, OpsEndpoints(readiness, MetricsPage(runtime, AdminAccess(settings.admin)))),
        )
        self._matches: dict[tuple[str, str, str, bytes | None], Match] = {}
        """What `FalEndpoints.match` has found, by method and path. Task paths are not in it: they may contain secrets."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one HTTP request below the prefix, or to one of `fal_hosts`."""
        request: QueueRequest[Any] = QueueRequest(scope, receive, send)
        key = scope["method"], scope["path"], scope.get("root_path", ""), scope.get("raw_path")
        try:
            match = self._matches.get(key)
            if match is None:
                endpoint = self._match(request, key)
            else:
                endpoint, request.split_path, request.route, request.body_unread = match
            if endpoint.changes:
                request.headers = headers = read_headers(scope["headers"], self._is_set_by_proxies)
                if headers.is_from_browser:
                    self._cross_site.check(scope)
            if endpoint.needs_queue:
                self._runtime.check_running()
            if self._access.required and not endpoint.is_public:
                request.identity = await self._access.authenticate(scope)
            await endpoint.serve(request)
        except ClientDisconnected:
            return
        except QueueError as error:
            status, body, extra = self._endpoints(request.split_path).error_response(request, error)
            await request.respond(status, body, (*extra, _CLOSE) if request.body_unread else extra)

    def _match(self, request: QueueRequest[Any], key: tuple[str, str, str, bytes | None]) -> Endpoint:
        """Find the endpoint of a request whose path has not been seen before, or is not remembered."""
        request.split_path = path = split_path(request.scope, self._prefix)
        endpoints = self._endpoints(path)
        endpoint = endpoints.match(request)
        raw = key[3] or b""
        # Some servers leave the query in the raw path, and a query may contain a key.
        if endpoints is self._fal and len(key[1]) + len(key[2]) + len(raw) < _MAX_REMEMBERED_PATH and b"?" not in raw:
            if len(self._matches) >= _MAX_REMEMBERED:
                self._matches.clear()
            self._matches[key] = Match(endpoint, path, request.route, request.body_unread)
        return endpoint

    def _endpoints(self, path: SplitPath) -> Endpoints:
        for mount in self._mounts:
            if mount.accepts(path):
                return mount.endpoints
        return self._fal


def _is_ops_path(path: SplitPath) -> bool:
    return is_ops_path(path.rest) and not path.at_host


def _is_task_path(path: SplitPath) -> bool:
    return path.rest.startswith(PREFIX) and not path.at_host
