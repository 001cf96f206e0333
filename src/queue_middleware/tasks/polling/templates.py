"""URL templates with variables such as `{startResult.body.id}`, rendered from a provider's response.

A variable at the very beginning is a whole URL and is used as it is. Everywhere else its value is percent-encoded, so that a
response can never add a path segment, a parameter or another host. The caller of a rendered URL still has to check that its
host is allowed. The syntax is that of docs/reference/protocols/asyncqueue.md, "Provider polling".
"""

from __future__ import annotations

import re
from typing import Any
from urllib.parse import quote, urljoin

import msgspec

from queue_middleware.errors import BadRequest
from queue_middleware.jobs.models import Headers
from queue_middleware.jobs.struct import Struct
from queue_middleware.syntax.json_text import MISSING, parse_part, read_json
from queue_middleware.syntax.partial_json import is_object, read_element, read_members

MAX_LENGTH = 2048
"""Characters of a template, and of a rendered URL."""

_VARIABLE = re.compile(r"\{([^{}]*)\}")
_PATH = re.compile(r"[^.{}\s]+(\.[^.{}\s]+){0,15}")
_SCHEME = re.compile(r"[a-z][a-z0-9+.-]*:", re.IGNORECASE)
_HTTP_URL = re.compile(r"https?://([^/?#]*)", re.IGNORECASE)
_FORBIDDEN = re.compile(r"[\x00-\x1f\x7f-\x9f\\]")
_HINT = "write {startResult.body.<path>}, {startResult.headers.<name>} or {startResult.statusCode}"


class StartResponse(Struct, frozen=True):
    """The response to the call that started the work."""

    url: str
    """The URL that was called; relative URLs are resolved against it."""
    status: int
    headers: Headers
    body: bytes


class TemplateError(ValueError):
    """The response lacks a value that the template needs; the text names it."""


def check_path(name: str, path: str) -> None:
    """Raise `BadRequest` unless it is a path such as `output.0.url`. The empty path is the whole value."""
    if path and (len(path) > 256 or not _PATH.fullmatch(path)):
        raise BadRequest(f"{name} is {path[:64]!r}; it must be names and positions joined by dots, e.g. 'output.0.url'")


def read_path(value: Any, path: str) -> Any:
    """The value at a path such as `output.0.url`, or `MISSING`. A number is an index in a list and a name elsewhere."""
    for part in path.split(".") if path else ():
        if isinstance(value, msgspec.Raw):
            value = member(value, part)
        elif isinstance(value, dict) and part in value:
            value = parse_part(value[part])
        elif isinstance(value, list) and _is_position(part) and int(part[:9]) < len(value):
            value = parse_part(value[int(part[:9])])
        else:
            return MISSING
    return value


def _is_position(part: str) -> bool:
    return part.isascii() and part.isdecimal()


def members(value: Any, names: tuple[str, ...]) -> dict[str, Any] | None:
    """The members of an object that have one of these names; None if the value is not an object."""
    if isinstance(value, dict):
        return {name: parse_part(value[name]) for name in names if name in value}
    if not is_object(value):
        return None
    return {name: parse_part(found) for name, found in read_members(value, names).items()}


def member(value: msgspec.Raw, part: str) -> Any:
    """A member of an undecoded object, an element of an undecoded list, or `MISSING`."""
    if is_object(value):
        found = read_members(value, (part,)).get(part)
    else:
        found = read_element(value, int(part[:9])) if _is_position(part) else None
    return MISSING if found is None else parse_part(found)


def header(headers: Headers, name: bytes) -> str | None:
    """The first value of a header; `name` is in lower case."""
    for key, value in headers:
        if key.lower() == name:
            return value.decode("latin-1").strip()
    return None


def check_template(name: str, template: str) -> None:
    """Raise `BadRequest` for a template that cannot become an HTTP URL, or whose host is a variable."""
    if not template or len(template) > MAX_LENGTH:
        raise BadRequest(f"{name} must be a URL template of 1 to {MAX_LENGTH} characters")
    for variable in _VARIABLE.findall(template):
        if not _is_known(variable):
            raise BadRequest(f"{name}: {{{variable[:64]}}} is not a known variable; {_HINT}")
    bare = _VARIABLE.sub("\ufffc", template)
    if "{" in bare or "}" in bare:
        raise BadRequest(f"{name} has an unmatched brace; {_HINT}")
    if _FORBIDDEN.search(bare):
        raise BadRequest(f"{name} has a backslash or a control character; percent-encode it")
    _check_host(name, bare)


def _check_host(name: str, bare: str) -> None:
    """`bare` is the template with one character in place of each variable."""
    if bare.startswith("\ufffc"):
        if bare[1:2] not in ("", "/", "?", "&"):
            raise BadRequest(f"{name}: a variable at the beginning may be followed by a path or a query only")
    elif (authority := _HTTP_URL.match(bare)) is not None:
        if not authority[1] or "\ufffc" in authority[1] or "@" in authority[1]:
            raise BadRequest(f"{name} must have a literal host, without variables or a user name")
    elif bare.startswith("//") or _SCHEME.match(bare):
        raise BadRequest(f"{name} must begin with https://, with a variable, or with / for a path on the host of the targetUrl")


def _is_known(variable: str) -> bool:
    match variable.split(".", 2):
        case ["startResult", "statusCode"]:
            return True
        case ["startResult", "body" | "headers", path]:
            return _PATH.fullmatch(path) is not None
    return False


def render(template: str, start: StartResponse) -> str:
    """The absolute URL; a relative one is resolved against `start.url` (RFC 3986 §5). Raises `TemplateError`."""
    body = read_json(start.body)

    def value(variable: re.Match[str]) -> str:
        text = _as_text(variable[1], _look_up(variable[1], start, body))
        return text if variable.start() == 0 else _percent_encode(variable[1], text)

    return _resolve(start.url, _VARIABLE.sub(value, template))


def _look_up(variable: str, start: StartResponse, body: Any) -> Any:
    match variable.split(".", 2):
        case ["startResult", "body", path]:
            return read_path(body, path)
        case ["startResult", "headers", name]:
            found = header(start.headers, name.lower().encode("latin-1", "replace"))
            return MISSING if found is None else found
    return start.status


def _as_text(variable: str, found: Any) -> str:
    if isinstance(found, str) and found:
        return found
    if isinstance(found, int) and not isinstance(found, bool):
        return str(found)
    raise TemplateError(
        f"the target's response has no usable {variable.removeprefix('startResult.')}, which the poll URL needs"
    )


def _percent_encode(variable: str, text: str) -> str:
    if text in (".", ".."):
        raise TemplateError(f"{variable.removeprefix('startResult.')} in the target's response is {text!r}")
    return quote(text, safe="")


def _resolve(base: str, reference: str) -> str:
    try:
        url = urljoin(base, reference)
    except ValueError:
        url = ""
    if _HTTP_URL.match(url) is None or len(url) > MAX_LENGTH or _FORBIDDEN.search(url):
        raise TemplateError("the target's response gives no valid HTTP URL to poll")
    return url
