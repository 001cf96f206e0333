"""The URLs under which one client finds its requests, in the form that the client used."""

from __future__ import annotations

from functools import lru_cache

from queue_middleware.asgi.scope import origin
from queue_middleware.settings import Settings
from queue_middleware.web.request import QueueRequest
from queue_middleware.web.urls import host_of

from .responses import Links
from .routes import Route

_MAX_CACHED_PATH = 512
"""Characters of root path and app. The links of shorter ones are cached, because clients poll under the same ones."""


def links_of(request: QueueRequest[Route], settings: Settings) -> Links:
    """The links for the client of a request. Raises `BadRequest` for an invalid host."""
    scope, app, public = request.scope, request.route.app, settings.public_url
    root_path = scope.get("root_path", "")
    if request.split_path.at_host:
        # The host is the one that the client used; only the scheme is better known from `public_url`.
        scheme = scope.get("scheme", "http") if public is None else public.partition(":")[0]
        return Links(origin(scheme, host_of(scope), root_path) + app, response_end="")
    if public is not None:
        return _below(public + settings.prefix, app)
    links = _links if len(root_path) + len(app) < _MAX_CACHED_PATH else _links.__wrapped__
    return links(scope.get("scheme", "http"), host_of(scope), root_path, settings.prefix, app)


@lru_cache(maxsize=256)
def _links(scheme: str, host: str, root_path: str, prefix: str, app: str) -> Links:
    return _below(origin(scheme, host, root_path) + prefix, app)


def _below(base: str, app: str) -> Links:
    """The links below the URL of the prefix."""
    return Links(f"{base}/run{app}", response_end="") if app else Links(base)
