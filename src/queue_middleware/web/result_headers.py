"""Chooses the headers with which a stored response is served, so that a browser does not treat it as a page of this service.

A page of another site may send its visitor to any result, and the submitter chose the content. The body of a response, and the
headers for clients other than browsers, stay as the application returned them.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping

from queue_middleware.jobs.models import Headers

_FROM_OUTSIDE = frozenset(
    {b"content-type", b"content-length", b"content-encoding", b"content-language", b"content-disposition", b"content-range",
     b"content-digest", b"repr-digest", b"accept-ranges", b"etag", b"last-modified", b"retry-after", b"x-request-id",
     b"deprecation", b"sunset"}
)  # fmt: skip
"""Headers of an external service that are served: those that describe the content (RFC 9110 §8). Others could act in the name
of this service: set cookies, clear data, redirect, allow other origins, or make a proxy send a file (`X-Accel-Redirect`)."""
_FROM_OUTSIDE_STARTS = (b"x-fal-", b"ratelimit", b"x-ratelimit-")

_STATE = frozenset(
    {b"set-cookie", b"clear-site-data", b"service-worker-allowed", b"strict-transport-security", b"refresh", b"alt-svc",
     b"nel", b"report-to", b"reporting-endpoints"}
)  # fmt: skip
"""Headers with which a response changes what a browser stores for the whole site, or makes it leave the page."""

_NOT_SANDBOXED = b"application/pdf"
"""Browsers show PDF with a viewer of their own, which a sandbox disables; scripts in it do not reach the site."""
_SANDBOX = (b"content-security-policy", b"sandbox")
_NO_SNIFFING = (b"x-content-type-options", b"nosniff")
_VARY = (b"vary", b"sec-fetch-dest, sec-fetch-mode, sec-fetch-site")
_KEPT = re.compile(rb"max-age|public|immutable")
"""Directives of `Cache-Control` with which a cache may use the response again without revalidation."""
_SCRIPTED = re.compile(rb"html|xml|script|multipart")
"""In `Content-Type`: pages, and other types that may contain scripts or headers."""
_TAKEN_APART = re.compile(rb"\s*multipart/(?:x-mixed-replace|mixed)\s*(?:;|,|$)", re.IGNORECASE)
_NOT_TAKEN_APART = (b"content-type", b"application/octet-stream")
_ASKED = (b"sec-fetch-dest", b"sec-fetch-site", b"sec-fetch-mode")


def served_headers(headers: Headers, asked: Iterable[tuple[bytes, bytes]], *, external: bool) -> list[tuple[bytes, bytes]]:
    """The headers to serve to a request with the headers `asked`. `external`: the response is that of an external service."""
    if external:
        kept = _whole(pair for pair in headers if pair[0] in _FROM_OUTSIDE or pair[0].startswith(_FROM_OUTSIDE_STARTS))
        return [*kept, *_guards(kept)]
    kept = list(headers)
    fetch_metadata = {name: value for name, value in asked if name in _ASKED}
    if fetch_metadata and not _is_own_script(fetch_metadata):
        kept = _whole(pair for pair in kept if pair[0] not in _STATE)
        if not _is_script(fetch_metadata):
            kept += _guards(kept)
    if _may_be_cached(headers) and _acts(headers):
        kept.append(_VARY)  # a cache must not use one of the two responses in place of the other
    return kept


def _whole(headers: Iterable[tuple[bytes, bytes]]) -> list[tuple[bytes, bytes]]:
    """Replace content types whose parts some browsers treat as responses, with a `Set-Cookie` in each part."""
    return [
        _NOT_TAKEN_APART if name == b"content-type" and _TAKEN_APART.match(value) else (name, value) for name, value in headers
    ]


def _may_be_cached(headers: Headers) -> bool:
    return any(name == b"expires" or (name == b"cache-control" and _KEPT.search(value.lower())) for name, value in headers)


def _acts(headers: Headers) -> bool:
    """Whether a browser would do more with the response than show it."""
    return any(name in _STATE or (name == b"content-type" and _SCRIPTED.search(value.lower())) for name, value in headers)


def _guards(headers: Iterable[tuple[bytes, bytes]]) -> tuple[tuple[bytes, bytes], ...]:
    """A policy in addition to the application's own: browsers enforce all policies (CSP Level 3 §4.2)."""
    kinds = [value.partition(b";")[0].strip().lower() for name, value in headers if name == b"content-type"]
    return (_NO_SNIFFING,) if kinds == [_NOT_SANDBOXED] else (_NO_SNIFFING, _SANDBOX)


def _is_script(fetch_metadata: Mapping[bytes, bytes]) -> bool:
    """Whether a script reads the response, e.g. by `fetch`, so that the browser itself does nothing with it."""
    return fetch_metadata.get(b"sec-fetch-dest") == b"empty" and fetch_metadata.get(b"sec-fetch-mode") != b"navigate"


def _is_own_script(fetch_metadata: Mapping[bytes, bytes]) -> bool:
    """Whether a script of this service reads it. A browser stores cookies even of responses that a script may not read."""
    return _is_script(fetch_metadata) and fetch_metadata.get(b"sec-fetch-site") in (b"same-origin", b"none", None)
