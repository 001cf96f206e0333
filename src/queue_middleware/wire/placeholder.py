"""The place in a request where the callback URL is to stand, and how it is filled (AsyncQueue contract, "Callback URLs").

It may stand in path, query, header values and body. What is put there is spelled for where it stands: percent-encoded in an
address and in a form, escaped in JSON.
"""

from __future__ import annotations

import json
import re
from urllib.parse import quote

from queue_middleware.models import Headers, StoredRequest

HINT = b"callback_url"
"""Without it there is no place. Nearly all requests are without it, and need no closer look."""

_BODY = re.compile(rb"\{(?:asyncqueue_)?callback_url\}")
_ADDRESS = re.compile(rb"(?:\{|%7B)(?:asyncqueue_)?callback_url(?:\}|%7D)", re.IGNORECASE)
"""Clients percent-encode braces in an address, and so do forms."""


def holds_place(request: StoredRequest) -> bool:
    """Whether the callback URL is wanted anywhere."""
    if HINT in request.body and _place_of_body(request.headers).search(request.body):
        return True
    if _ADDRESS.search(request.raw_path + b"?" + request.query):
        return True
    return any(HINT in value and _BODY.search(value) for _, value in request.headers)


def holds_place_in(address: str) -> bool:
    """Whether it is wanted in a URL."""
    return "callback_url" in address and _ADDRESS.search(address.encode()) is not None


def fill(request: StoredRequest, url: str) -> StoredRequest:
    """The request with the URL in every place."""
    encoded = _encoded(url)
    return request.replace(
        raw_path=_put(_ADDRESS, request.raw_path, encoded),
        query=_put(_ADDRESS, request.query, encoded),
        headers=tuple((name, _put(_BODY, value, url.encode())) for name, value in request.headers),
        body=_fill_body(request, url),
    )


def fill_address(address: str, url: str) -> str:
    """A URL with the URL in every place."""
    return _put(_ADDRESS, address.encode(), _encoded(url)).decode()


def _fill_body(request: StoredRequest, url: str) -> bytes:
    if HINT not in request.body:
        return request.body
    spelled = _encoded(url) if _is_form(request.headers) else json.dumps(url)[1:-1].encode("ascii")
    return _put(_place_of_body(request.headers), request.body, spelled)


def _place_of_body(headers: Headers) -> re.Pattern[bytes]:
    return _ADDRESS if _is_form(headers) else _BODY


def _is_form(headers: Headers) -> bool:
    value = next((value for name, value in headers if name == b"content-type"), b"")
    return value.partition(b";")[0].strip().lower() == b"application/x-www-form-urlencoded"


def _encoded(url: str) -> bytes:
    return quote(url, safe="").encode("ascii")


def _put(place: re.Pattern[bytes], text: bytes, spelled: bytes) -> bytes:
    return place.sub(lambda _: spelled, text) if HINT in text.lower() else text
