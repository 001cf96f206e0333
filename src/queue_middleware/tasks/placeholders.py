"""Finds the placeholder of the callback URL in a request and substitutes the URL for it.

The placeholder may stand in the path, the query, header values and the body. The URL is encoded for its position:
percent-encoded in a URL and in a form, escaped in JSON (docs/reference/protocols/asyncqueue.md, "Callback URLs").
"""

from __future__ import annotations

import json
from urllib.parse import quote

from queue_middleware.errors import BadRequest
from queue_middleware.jobs.models import Headers, StoredRequest

MARKER = b"callback_url"
"""Part of every placeholder. Nearly all requests are without it and need no closer look."""

_UNDERSCORE = ord("_")
"""In `MARKER`. Many texts have none, and searching for one byte is much faster."""

MAX_PLACEHOLDERS = 100
"""Placeholders in one request. At each attempt each of them grows to a URL of about 150 bytes."""

_NAMES = (b"callback_url", b"asyncqueue_callback_url")
_PLAIN = tuple(b"{%b}" % name for name in _NAMES)
_PERCENT_ENCODED = tuple(
    begin + name + end for name in _NAMES for begin in (b"{", b"%7B", b"%7b") for end in (b"}", b"%7D", b"%7d")
)  # fmt: skip
"""Clients percent-encode braces in a URL, and so do forms. Strings are faster than a pattern in a body of megabytes."""


def may_have_placeholder(*texts: bytes) -> bool:
    """A quick check: without `MARKER` in any of the texts, there is no placeholder in them."""
    for text in texts:  # noqa: SIM110 - a generator would cost more than the search
        if _UNDERSCORE in text and MARKER in text:
            return True
    return False


def has_placeholder(request: StoredRequest) -> bool:
    """Whether the request has a placeholder anywhere. Raises `BadRequest` if it has too many."""
    count = _count(_body_placeholders(request.headers), request.body)
    count += _count(_PERCENT_ENCODED, request.raw_path) + _count(_PERCENT_ENCODED, request.query)
    count += sum(_count(_PLAIN, value) for _, value in request.headers)
    if count > MAX_PLACEHOLDERS:
        raise BadRequest(f"the request has {count} placeholders of the callback URL; at most {MAX_PLACEHOLDERS} are allowed")
    return count > 0


def has_placeholder_in_url(url: str) -> bool:
    """Whether a URL has a placeholder."""
    return _count(_PERCENT_ENCODED, url.encode()) > 0


def substitute(request: StoredRequest, callback_url: str) -> StoredRequest:
    """The request with the callback URL in place of every placeholder."""
    encoded = _percent_encode(callback_url)
    return request.replace(
        raw_path=_replace(_PERCENT_ENCODED, request.raw_path, encoded),
        query=_replace(_PERCENT_ENCODED, request.query, encoded),
        headers=tuple((name, _replace(_PLAIN, value, callback_url.encode())) for name, value in request.headers),
        body=_substitute_in_body(request, callback_url),
    )


def substitute_in_url(url: str, callback_url: str) -> str:
    """A URL with the callback URL in place of every placeholder."""
    return _replace(_PERCENT_ENCODED, url.encode(), _percent_encode(callback_url)).decode()


def _substitute_in_body(request: StoredRequest, callback_url: str) -> bytes:
    is_form = _is_form(request.headers)
    encoded = _percent_encode(callback_url) if is_form else json.dumps(callback_url)[1:-1].encode("ascii")
    return _replace(_body_placeholders(request.headers), request.body, encoded)


def _body_placeholders(headers: Headers) -> tuple[bytes, ...]:
    return _PERCENT_ENCODED if _is_form(headers) else _PLAIN


def _is_form(headers: Headers) -> bool:
    value = next((value for name, value in headers if name == b"content-type"), b"")
    return value.partition(b";")[0].strip().lower() == b"application/x-www-form-urlencoded"


def _percent_encode(url: str) -> bytes:
    return quote(url, safe="").encode("ascii")


def _count(placeholders: tuple[bytes, ...], text: bytes) -> int:
    return sum([text.count(placeholder) for placeholder in placeholders]) if MARKER in text else 0


def _replace(placeholders: tuple[bytes, ...], text: bytes, encoded: bytes) -> bytes:
    if MARKER in text:
        for placeholder in placeholders:
            text = text.replace(placeholder, encoded)
    return text
