"""Addresses with blanks: `{startResult.body.id}`, filled in from what a provider answered (AsyncQueue contract, polling).

A blank at the very beginning is a whole address and stands as it came; everywhere else its value is percent-encoded, so that
what a provider answers can never become another path, another parameter or another host. Whoever calls the address still has to
ask whether its host is allowed.
"""

from __future__ import annotations

import re
from typing import Any
from urllib.parse import quote, urljoin

import msgspec

from queue_middleware.errors import BadRequest
from queue_middleware.folded import folded_element, folded_members, is_object
from queue_middleware.json_text import MISSING, read_json, unfolded
from queue_middleware.models import Headers
from queue_middleware.value import Value

LONGEST = 2048
"""Characters of a template, and of an address that was filled in."""

_BLANK = re.compile(r"\{([^{}]*)\}")
_PATH = re.compile(r"[^.{}\s]+(\.[^.{}\s]+){0,15}")
_SCHEME = re.compile(r"[a-z][a-z0-9+.-]*:", re.IGNORECASE)
_WEB = re.compile(r"https?://([^/?#]*)", re.IGNORECASE)
_UNCLEAN = re.compile(r"[\x00-\x1f\x7f-\x9f\\]")
_KNOWN = "write {startResult.body.<path>}, {startResult.headers.<name>} or {startResult.statusCode}"


class Start(Value, frozen=True):
    """What the call that began the work was answered with."""

    url: str
    """The address that was called: what is relative is relative to it."""
    status: int
    headers: Headers
    body: bytes


class Unfillable(ValueError):
    """The answer does not have what the template asks for; the text says what is missing."""


def check_path(name: str, path: str) -> None:
    """Raise `BadRequest` for what is no path such as `output.0.url`. The empty path is the whole."""
    if path and (len(path) > 256 or not _PATH.fullmatch(path)):
        raise BadRequest(f"{name} is {path[:64]!r}; it takes names and positions with dots, e.g. 'output.0.url'")


def read_path(value: Any, path: str) -> Any:
    """What stands at `output.0.url`, or `MISSING`. A number is a position where it meets a list, and a name elsewhere."""
    for part in path.split(".") if path else ():
        if isinstance(value, msgspec.Raw):
            value = member(value, part)
        elif isinstance(value, dict) and part in value:
            value = unfolded(value[part])
        elif isinstance(value, list) and _is_position(part) and int(part[:9]) < len(value):
            value = unfolded(value[int(part[:9])])
        else:
            return MISSING
    return value


def _is_position(part: str) -> bool:
    return part.isascii() and part.isdecimal()


def members(value: Any, names: tuple[str, ...]) -> dict[str, Any] | None:
    """Those members of an object that there are; None where it is no object."""
    if isinstance(value, dict):
        return {name: unfolded(value[name]) for name in names if name in value}
    if not is_object(value):
        return None
    return {name: unfolded(found) for name, found in folded_members(value, names).items()}


def member(value: msgspec.Raw, part: str) -> Any:
    """A member of a folded object, an element of a folded list, or `MISSING`."""
    if is_object(value):
        found = folded_members(value, (part,)).get(part)
    else:
        found = folded_element(value, int(part[:9])) if _is_position(part) else None
    return MISSING if found is None else unfolded(found)


def header(headers: Headers, name: bytes) -> str | None:
    """The first value of a header, `name` in lower case."""
    for key, value in headers:
        if key.lower() == name:
            return value.decode("latin-1").strip()
    return None


def check_template(name: str, template: str) -> None:
    """Raise `BadRequest` for a template that can never become an address of the web, or whose host is a blank."""
    if not template or len(template) > LONGEST:
        raise BadRequest(f"{name} takes an address of 1 to {LONGEST} characters")
    for blank in _BLANK.findall(template):
        if not _is_known(blank):
            raise BadRequest(f"{name}: {{{blank[:64]}}} is unknown; {_KNOWN}")
    bare = _BLANK.sub("\ufffc", template)
    if "{" in bare or "}" in bare:
        raise BadRequest(f"{name} has a brace that belongs to no blank; {_KNOWN}")
    if _UNCLEAN.search(bare):
        raise BadRequest(f"{name} has a backslash or a control character")
    _check_host(name, bare)


def _check_host(name: str, bare: str) -> None:
    """`bare` has one character in the place of each blank."""
    if bare.startswith("\ufffc"):
        if bare[1:2] not in ("", "/", "?", "&"):
            raise BadRequest(f"{name}: behind a blank at the beginning only a path or a query may follow")
    elif (authority := _WEB.match(bare)) is not None:
        if not authority[1] or "\ufffc" in authority[1] or "@" in authority[1]:
            raise BadRequest(f"{name} must name its host in plain letters, without blanks or a user name")
    elif bare.startswith("//") or _SCHEME.match(bare):
        raise BadRequest(f"{name} must begin with https://, with a blank, or with / for a path on the host of the targetUrl")


def _is_known(blank: str) -> bool:
    match blank.split(".", 2):
        case ["startResult", "statusCode"]:
            return True
        case ["startResult", "body" | "headers", path]:
            return _PATH.fullmatch(path) is not None
    return False


def fill(template: str, start: Start) -> str:
    """The address, complete: a relative one is resolved against `start.url` (RFC 3986 §5). Raises `Unfillable`."""
    body = read_json(start.body)

    def value(blank: re.Match[str]) -> str:
        text = _text(blank[1], _look_up(blank[1], start, body))
        return text if blank.start() == 0 else _encoded(blank[1], text)

    return _resolved(start.url, _BLANK.sub(value, template))


def _look_up(blank: str, start: Start, body: Any) -> Any:
    match blank.split(".", 2):
        case ["startResult", "body", path]:
            return read_path(body, path)
        case ["startResult", "headers", name]:
            found = header(start.headers, name.lower().encode("latin-1", "replace"))
            return MISSING if found is None else found
    return start.status


def _text(blank: str, found: Any) -> str:
    if isinstance(found, str) and found:
        return found
    if isinstance(found, int) and not isinstance(found, bool):
        return str(found)
    raise Unfillable(f"the answer to the first call has no {blank.removeprefix('startResult.')} that could be in an address")


def _encoded(blank: str, text: str) -> str:
    if text in (".", ".."):
        raise Unfillable(f"{blank.removeprefix('startResult.')} in the answer to the first call is {text!r}")
    return quote(text, safe="")


def _resolved(base: str, address: str) -> str:
    try:
        url = urljoin(base, address)
    except ValueError:
        url = ""
    if _WEB.match(url) is None or len(url) > LONGEST or _UNCLEAN.search(url):
        raise Unfillable("the answer to the first call gives no address that could be asked")
    return url
