"""Refuses requests that a page of another site makes a browser send, because the browser adds the visitor's cookies to them.

Browsers send where a request comes from, and a page cannot change it: `Sec-Fetch-Site` (W3C Fetch Metadata Request Headers)
and `Origin` (WHATWG Fetch standard, section "Origin header"). Other clients send neither and are never refused here.
"""

from __future__ import annotations

import re
from collections.abc import Collection

from starlette.types import Scope

from queue_middleware.errors import CrossSite
from queue_middleware.settings import Settings

_NOT_CROSS = frozenset({b"same-origin", b"same-site", b"none"})
"""`none`: the visitor's own action, such as the address bar or a bookmark. Values of later standards are refused."""
_ORIGIN = re.compile(rb"https?://(\[[^\]]*\]|[^:/]+)(:[0-9]*)?")
_HOST = re.compile(rb"(\[[^\]]*\]|[^:]*)(:[0-9]*)?")


def is_cross_site(site: bytes | None, origin: bytes | None, allowed: Collection[bytes], own: Collection[bytes]) -> bool:
    """Whether a page of another site made a browser send this.

    `site` and `origin`: `Sec-Fetch-Site` and `Origin`, None where they are missing. `allowed`: origins, or `*`. `own`: names of
    the service's hosts. Ports and schemes do not count: cookies do not distinguish them, and proxies that end TLS change them.
    """
    if b"*" in allowed:
        return False
    if origin is not None and (origin.lower() in allowed or _host_of_origin(origin) in own):
        return False
    if site is not None:
        return site.lower() not in _NOT_CROSS
    return origin is not None


class CrossSiteCheck:
    """Checks requests to one queue: `cors_origins` are allowed, and `public_url` and `fal_hosts` name hosts of its own."""

    def __init__(self, settings: Settings) -> None:
        self._allowed = frozenset(origin.encode() for origin in settings.cors_origins)
        hosts = [host.encode() for host in settings.fal_hosts]
        if settings.public_url is not None:
            hosts.append(settings.public_url.encode().partition(b"://")[2].partition(b"/")[0])
        self._own = frozenset(map(_host_name, hosts))

    def check(self, scope: Scope) -> None:
        """Raise `CrossSite` for a request of another site that is not allowed."""
        site = origin = None
        for name, value in scope["headers"]:
            if name == b"origin":
                origin = value
            elif name == b"sec-fetch-site":
                site = value
        if site is None and origin is None:
            return
        # A browser that compared the sites itself knows better than a host header, which a proxy may have rewritten.
        own = self._own if site is not None else self._own | _hosts_of(scope)
        if is_cross_site(site, origin, self._allowed, own):
            page = f"a page of {origin.decode('latin-1')[:200]!r}" if origin is not None else "a page of another site"
            raise CrossSite(f"{page} made a browser send this; the option 'cors_origins' names the origins that may")


def _hosts_of(scope: Scope) -> set[bytes]:
    """The names of the hosts that the request was sent to."""
    named = [value for name, value in scope["headers"] if name in (b"host", b"x-forwarded-host")]
    return {_host_name(host) for value in named for host in value.split(b",")}


def _host_of_origin(origin: bytes) -> bytes | None:
    """The name of the host of an origin; None for an origin without one, such as `null` or a browser extension."""
    match = _ORIGIN.fullmatch(origin.lower())
    return match[1].removesuffix(b".") if match else None


def _host_name(host: bytes) -> bytes:
    """A host in lower case, without its port."""
    match = _HOST.fullmatch(host.strip().lower())
    return match[1].removesuffix(b".") if match else b""
