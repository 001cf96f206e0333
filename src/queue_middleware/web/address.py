"""Which part of a request's path is the server's root, which is our prefix, and what is left behind them."""

from __future__ import annotations

from urllib.parse import quote

from starlette.types import Scope

from queue_middleware.models import Value


class Address(Value, frozen=True):
    """A request under our prefix. All parts are percent-encoded, as they came."""

    root: str
    """In front of the prefix; what the server or a mount took for itself."""
    rest: str
    """Behind the prefix."""


def is_ours(scope: Scope, prefix: str) -> bool:
    """Whether the path is the prefix or below it. `path` holds `root_path` with most servers, and not with some."""
    path: str = scope["path"]
    root: str = scope.get("root_path", "")
    if root and path.startswith(root) and _below(path, prefix, len(root)):
        return True
    return _below(path, prefix, 0)


def _below(path: str, prefix: str, start: int) -> bool:
    end = start + len(prefix)
    return path.startswith(prefix, start) and (len(path) == end or path[end] == "/")


def split_address(scope: Scope, prefix: str) -> Address:
    """Take the address apart. Call it only where `is_ours`."""
    raw = raw_path(scope)
    root: str = scope.get("root_path", "")
    if root and scope["path"].startswith(root) and _below(scope["path"], prefix, len(root)):
        inner = _behind(raw, root)
        return Address(raw[: len(raw) - len(inner)], _behind(inner, prefix))
    return Address("", _behind(raw, prefix))


def raw_path(scope: Scope) -> str:
    """The path as it came, without the query that some servers leave in it."""
    raw: bytes | None = scope.get("raw_path")
    if raw is None:
        return quote(scope["path"], safe="/:@!$&'()*+,;=~-._")
    return raw.partition(b"?")[0].decode("latin-1")


def _behind(raw: str, start: str) -> str:
    """What follows after the characters that decode to `start`; a client may percent-encode any of them."""
    if raw.startswith(start):
        return raw[len(start) :]
    position = 0
    for _ in start.encode():
        position += 3 if raw[position : position + 1] == "%" else 1
    return raw[position:]


def host_of(scope: Scope) -> str:
    """Host and port as the client wrote them, or else those of the server."""
    for name, value in scope["headers"]:
        if name == b"host":
            host: str = value.decode("latin-1")
            return host
    name, port = scope.get("server") or ("localhost", None)
    return f"{name}:{port}" if port else str(name)
