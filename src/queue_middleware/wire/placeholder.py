"""The place in a request where the callback URL is to stand, and how it is filled (AsyncQueue contract, "Callback URLs").

It may stand in path, query, header values and body. What is put there is spelled for where it stands: percent-encoded in an
address and in a form, escaped in JSON.
"""

from __future__ import annotations

import json
from urllib.parse import quote

from queue_middleware.errors import BadRequest
from queue_middleware.models import Headers, StoredRequest

HINT = b"callback_url"
"""Without it there is no place. Nearly all requests are without it, and need no closer look."""

MOST = 100
"""Places in a request. Each grows at every attempt to a URL of some 150 bytes."""

_WORDS = (b"callback_url", b"asyncqueue_callback_url")
_PLAIN = tuple(b"{%b}" % word for word in _WORDS)
_ENCODED = tuple(
    begin + word + end for word in _WORDS for begin in (b"{", b"%7B", b"%7b") for end in (b"}", b"%7D", b"%7d")
)  # fmt: skip
"""Clients percent-encode braces in an address, and so do forms. Texts and no pattern: a body may have megabytes."""


def holds_place(request: StoredRequest) -> bool:
    """Whether the callback URL is wanted anywhere. Raises `BadRequest` where it is wanted too often."""
    places = _count(_places_of_body(request.headers), request.body)
    places += _count(_ENCODED, request.raw_path) + _count(_ENCODED, request.query)
    places += sum(_count(_PLAIN, value) for _, value in request.headers)
    if places > MOST:
        raise BadRequest(f"the place of the callback URL stands {places} times in the request; it may {MOST} times")
    return places > 0


def holds_place_in(address: str) -> bool:
    """Whether it is wanted in a URL."""
    return _count(_ENCODED, address.encode()) > 0


def fill(request: StoredRequest, url: str) -> StoredRequest:
    """The request with the URL in every place."""
    encoded = _encoded(url)
    return request.replace(
        raw_path=_put(_ENCODED, request.raw_path, encoded),
        query=_put(_ENCODED, request.query, encoded),
        headers=tuple((name, _put(_PLAIN, value, url.encode())) for name, value in request.headers),
        body=_fill_body(request, url),
    )


def fill_address(address: str, url: str) -> str:
    """A URL with the URL in every place."""
    return _put(_ENCODED, address.encode(), _encoded(url)).decode()


def _fill_body(request: StoredRequest, url: str) -> bytes:
    spelled = _encoded(url) if _is_form(request.headers) else json.dumps(url)[1:-1].encode("ascii")
    return _put(_places_of_body(request.headers), request.body, spelled)


def _places_of_body(headers: Headers) -> tuple[bytes, ...]:
    return _ENCODED if _is_form(headers) else _PLAIN


def _is_form(headers: Headers) -> bool:
    value = next((value for name, value in headers if name == b"content-type"), b"")
    return value.partition(b";")[0].strip().lower() == b"application/x-www-form-urlencoded"


def _encoded(url: str) -> bytes:
    return quote(url, safe="").encode("ascii")


def _count(places: tuple[bytes, ...], text: bytes) -> int:
    return sum([text.count(place) for place in places]) if HINT in text else 0


def _put(places: tuple[bytes, ...], text: bytes, spelled: bytes) -> bytes:
    if HINT in text:
        for place in places:
            text = text.replace(place, spelled)
    return text
