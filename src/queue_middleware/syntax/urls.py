"""Encodes URLs as browsers do (WHATWG URL standard), before they are stored and called. Pure.

Only characters that must be encoded change: by the percent-encode sets of path and query, host names by UTS 46 (within
IDNA 2008), and `.` and `..` in the path. `%xx` is not changed, and the fragment, which is never sent, is dropped. Characters
that a browser would silently remove or convert (tabs, newlines, backslashes, surrounding spaces) are refused instead: they are
a mistake or an attack.
"""

from __future__ import annotations

import re

import idna

from queue_middleware.errors import InvalidWebhook

MAX_URL = 2048
"""Characters of an encoded URL."""

_FORBIDDEN = re.compile(r"[\x00-\x1f\x7f-\x9f\\]")
_PARTS = re.compile(r"(https?)://([^/?#]*)([^?#]*)(\?[^#]*)?", re.IGNORECASE)
_SURROGATE = re.compile("[\ud800-\udfff]")
_IN_PATH = re.compile(r"""[^\x21-\x7e]|["#<>?^`{}]""")
"""Characters that are encoded in a path: the `path percent-encode set`."""
_IN_QUERY = re.compile(r"""[^\x21-\x7e]|["#<>']""")
"""Characters that are encoded in a query: the `special-query percent-encode set`."""
_PLAIN = re.compile(
    r"(https?://[a-z0-9.-]+(?::[0-9]{1,5})?)"
    r"((?:/(?!\.|%2)[!$-.0-;=@-\[\]_a-z|~]*)+(?:\?[!$-&(-;=?-\[\]-~]*)?)?"
)
_CURRENT = frozenset({".", "%2e"})
_PARENT = frozenset({"..", ".%2e", "%2e.", "%2e%2e"})


def split_plain(url: str) -> tuple[str, str] | None:
    """The origin and the request target of a URL that is encoded already; None for a URL that needs a closer look.

    Only the origin of such a URL can be wrong, so what was found out about an origin is true for all its plain URLs.
    """
    parts = _PLAIN.fullmatch(url)
    return None if parts is None or len(url) > MAX_URL else (parts[1], parts[2] or "/")


def encode_url(url: str, field: str) -> str:
    """Encode an `http` or `https` URL. Raises `InvalidWebhook`, whose message names it by `field`."""
    if split_plain(url) is not None:
        return url
    if _FORBIDDEN.search(url):
        raise InvalidWebhook(f"{field} contains a backslash or a control character")
    if url != url.strip():
        raise InvalidWebhook(f"{field} begins or ends with a space")
    parts = _PARTS.match(url)
    if parts is None:
        raise InvalidWebhook(f"{field} must begin with https://")
    scheme, authority, path, query = parts.groups(default="")
    encoded = f"{scheme}://{_encoded_authority(authority, field)}{_encoded_path(path)}{_encoded(_IN_QUERY, query)}"
    if len(encoded) > MAX_URL:
        raise InvalidWebhook(f"{field} is longer than {MAX_URL} characters")
    return encoded


def request_target(encoded: str) -> bytes:
    """The request target of an encoded URL: path and query."""
    parts = _PARTS.match(encoded)
    path, query = (parts[3] or "/", parts[4] or "") if parts else ("/", "")
    return f"{path}{query}".encode("ascii")


def _encoded_authority(authority: str, field: str) -> str:
    if "@" in authority:
        raise InvalidWebhook(f"{field} must not contain a user name or password")
    if " " in authority:
        raise InvalidWebhook(f"{field} has no valid host name: it contains a space")
    if authority.isascii():
        return authority
    host, colon, port = authority.partition(":")
    try:
        name = idna.encode(host, uts46=True, std3_rules=False).decode("ascii")
    except UnicodeError:
        raise InvalidWebhook(f"{field} has no valid host name") from None
    return f"{name}{colon}{port}"


def _encoded_path(path: str) -> str:
    encoded = _encoded(_IN_PATH, path)
    return _remove_dot_segments(encoded) if "/." in encoded or "/%2" in encoded else encoded


def _remove_dot_segments(path: str) -> str:
    kept: list[str] = []
    segments = path.split("/")[1:]
    for place, segment in enumerate(segments):
        dots = segment.lower()
        if dots in _PARENT:
            del kept[-1:]
        elif dots not in _CURRENT:
            kept.append(segment)
            continue
        if place == len(segments) - 1:
            kept.append("")
    return "/" + "/".join(kept)


def _encoded(outside: re.Pattern[str], text: str) -> str:
    return outside.sub(lambda found: "".join(f"%{byte:02X}" for byte in _utf8(found[0])), text)


def _utf8(text: str) -> bytes:
    return _SURROGATE.sub("\ufffd", text).encode()
