"""Reads the preferences `wait` and `respond-async` from `Prefer` (RFC 7240).

Preferences never make a request fail: those that are unknown or malformed are ignored.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator
from operator import itemgetter

from queue_middleware.jobs.models import Headers
from queue_middleware.jobs.struct import Struct

MAX_WAIT = 60
"""Seconds. A longer `wait` is cut to this."""

VARY = (b"vary", b"prefer")
"""Header of a response that depends on the preferences (RFC 7240 §2)."""

_PREFER = b"prefer"
_name_of = itemgetter(0)
_FOR_QUEUE = frozenset({b"wait", b"respond-async"})

# The quantifiers are possessive, so that reading a value takes one pass whatever it is.
_NAME = r"[!#$%&'*+.^_`|~0-9A-Za-z-]++"
_UNCLOSED = r'"(?:[^"\\]|\\.)*+'
_WORD = rf'(?:{_NAME}|{_UNCLOSED}")'
_VALUE = rf"[ \t]*+=[ \t]*+{_WORD}?+"
_PARAMETER = rf"[ \t]*+;[ \t]*+(?:{_NAME}(?:{_VALUE})?+)?+"
_ELEMENT = re.compile(rf'(?:[^",]|{_UNCLOSED}"?+)++'.encode(), re.DOTALL)
"""One element of a comma-separated list. A quoted string that is not closed lasts until the end of the line."""
_PREFERENCE = re.compile(rf"[ \t]*+({_NAME})(?:[ \t]*+=[ \t]*+({_WORD})?+)?+(?:{_PARAMETER})*+[ \t]*+".encode(), re.DOTALL)
"""RFC 7240 §2: a name, a value if there is one, and parameters, which neither of the queue's preferences has."""


class Preferences(Struct, frozen=True):
    """What a client prefers, as far as the queue knows it."""

    wait: int | None = None
    """Seconds, at most `MAX_WAIT`; None if the client does not want to wait."""
    respond_async: bool = False


NONE = Preferences()


def read_preferences(headers: Collection[tuple[bytes, bytes]]) -> Preferences:
    """The preferences in the headers of a request, names in lower case; `NONE` without any that the queue reads.

    Of several of one name, the first counts.
    """
    if _PREFER not in map(_name_of, headers):  # nearly all requests
        return NONE
    found: dict[bytes, bytes] = {}
    for name, value in headers:
        if name == _PREFER:
            for element in _elements(value):
                if parsed := _parse(element):
                    found.setdefault(*parsed)
    # A preference of this name is for the queue even if its value is of no use.
    return NONE if _FOR_QUEUE.isdisjoint(found) else Preferences(_seconds(found.get(b"wait", b"")), b"respond-async" in found)


def without_queue_preferences(headers: Headers) -> Headers:
    """The headers without the preferences that the queue reads. Lines that contain none of them are kept as they are."""
    kept: list[tuple[bytes, bytes]] = []
    for pair in headers:
        name, value = pair
        if name != _PREFER:
            kept.append(pair)
            continue
        elements = list(_elements(value))
        others = [element for element in elements if (parsed := _parse(element)) is None or parsed[0] not in _FOR_QUEUE]
        if len(others) == len(elements):
            kept.append(pair)
        elif others:
            kept.append((name, b", ".join(element.strip() for element in others)))
    return tuple(kept)


def _elements(value: bytes) -> Iterator[bytes]:
    """The elements of one line that are not blank."""
    for match in _ELEMENT.finditer(value):
        if match[0].strip():
            yield match[0]


def _parse(element: bytes) -> tuple[bytes, bytes] | None:
    """Name, in lower case, and value, empty if there is none; None if the element is malformed."""
    match = _PREFERENCE.fullmatch(element)
    if match is None:
        return None
    value: bytes = match[2] or b""
    if value.startswith(b'"'):
        value = re.sub(rb"\\(.)", rb"\1", value[1:-1], flags=re.DOTALL)
    return match[1].lower(), value


def _seconds(value: bytes) -> int | None:
    """The value of `wait` in whole seconds; None if it is none."""
    if not value.isdigit():
        return None
    digits = value.lstrip(b"0")
    # Python refuses to convert very long numbers.
    return MAX_WAIT if len(digits) > 2 else min(int(digits or b"0"), MAX_WAIT)
