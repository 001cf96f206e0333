"""Splits the path of a request into the server's root path, the queue's prefix and the rest; builds the URLs of the queue."""

from __future__ import annotations

import re
import sys
from functools import lru_cache
from typing import Any
from urllib.parse import quote

from starlette.types import Scope

from queue_middleware.asgi.scope import origin
from queue_middleware.errors import BadRequest
from queue_middleware.jobs.struct import Struct
from queue_middleware.settings import Settings
from queue_middleware.syntax.hosts import canonical_authority

_HOST = re.compile(rb"(.*?)((?::[0-9]*)?)", re.DOTALL)
_NAME_AND_PORT = re.compile(rb"(?:[A-Za-z0-9._~!$&'()*+,;=%-]+|\[[A-Za-z0-9._~:%-]+\])(?::[0-9]{0,5})?")
"""RFC 9112 §3.2, RFC 3986 §3.2.2."""
_MOST_LAYERS = 64
"""Middlewares that are unwrapped at most; one may wrap itself."""
_LONGEST_HOST = 300
"""Characters. A name has 253 at most (RFC 1035 §2.3.4)."""


class SplitPath(Struct, frozen=True):
    """The path of a request to the queue, split in two. Both parts are percent-encoded as the client sent them."""

    private = frozenset({"rest"})  # it may contain the secret id of a callback

    root: str
    """The path before the prefix, which the server or a mount has consumed."""
    rest: str
    """The path after the prefix; without a prefix the path after `root`."""
    at_host: bool = False
    """Whether the request was sent to one of `fal_hosts`, where all paths belong to the queue."""


def is_ours(scope: Scope, prefix: str, root: str = "") -> bool:
    """Whether the path is the prefix or below it. `root`: the application's root path, used if the server gives none."""
    root = scope.get("root_path") or root
    return _start(scope["path"], root, prefix) is not None if root else _below(scope["path"], prefix, 0)


def declared_root(app: object) -> str:
    """The `root_path` of `FastAPI(root_path=…)`, also inside middlewares; FastAPI adds it to the scope by itself.

    Only that of FastAPI is read: in Flask and Quart `root_path` is a folder.
    """
    fastapi = sys.modules.get("fastapi")
    for _ in range(_MOST_LAYERS):
        if app is None or fastapi is None:
            break
        if isinstance(app, fastapi.FastAPI):
            return str(app.root_path)
        app = getattr(app, "app", None)
    return ""


def is_at_host(scope: Scope, hosts: frozenset[bytes]) -> bool:
    """Whether the request is for one of these hosts: lower case, with a port, or without one for any port."""
    for name, value in scope["headers"]:
        if name == b"host":
            return len(value) <= _LONGEST_HOST and not hosts.isdisjoint(_spellings(value))
    return False


@lru_cache(maxsize=256)
def _spellings(host: bytes) -> tuple[bytes, ...]:
    """The canonical form of a host without its port, and with it."""
    spelled = canonical_authority(host.decode("latin-1"))
    name, port = _HOST.fullmatch(spelled.encode("latin-1", "replace")).groups()  # type: ignore[union-attr]  # it matches everything
    return name, name + port


def split_path(scope: Scope, prefix: str) -> SplitPath:
    """Split the path. A request that is not below the prefix was sent to one of `fal_hosts`."""
    path, root, raw = scope["path"], scope.get("root_path", ""), raw_path(scope)
    start = _start(path, root, prefix)
    at_host = start is None
    if start is None:
        prefix = ""
        start = _start(path, root, "") or 0
    inner = _behind(raw, path[:start])
    return SplitPath(raw[: len(raw) - len(inner)], _behind(inner, prefix), at_host)


def _start(path: str, root: str, prefix: str) -> int | None:
    """Where the prefix begins in the path. With most servers, but not all, `path` contains `root_path`."""
    if root and path.startswith(root):
        if _below(path, prefix, len(root)):
            return len(root)
        # Some servers put a root that ends with a slash in front of the path as it is, some do not double the slash.
        if root[-1] == "/" and _below(path, prefix, len(root) - 1):
            return len(root) - 1
        # As in Starlette: the path contains the root, and the rest belongs to the application, even if the root looks like the
        # prefix.
        if root[-1] == "/" or path[len(root) : len(root) + 1] in ("", "/"):
            return None
    return 0 if _below(path, prefix, 0) else None


def _below(path: str, prefix: str, start: int) -> bool:
    end = start + len(prefix)
    return path.startswith(prefix, start) and (len(path) == end or path[end] == "/")


def raw_path(scope: Scope) -> str:
    """The path as the client sent it, without the query that some servers leave in it."""
    raw: bytes | None = scope.get("raw_path")
    if raw is None:
        return quote(scope["path"], safe="/:@!$&'()*+,;=~-._")
    return raw.partition(b"?")[0].decode("latin-1")


def _behind(raw: str, start: str) -> str:
    """The part of `raw` after the characters that decode to `start`; a client may percent-encode any of them."""
    if raw.startswith(start):
        return raw[len(start) :]
    position = 0
    for _ in start.encode():
        position += 3 if raw[position : position + 1] == "%" else 1
    return raw[position:]


def host_of(scope: Scope) -> str:
    """Host and port as the client sent them, or else those of the server. Raises `BadRequest` for an invalid host."""
    for name, value in scope["headers"]:
        if name == b"host" and value:
            return _read_host(value if len(value) <= _LONGEST_HOST else b"/")
    name, port = scope.get("server") or ("localhost", None)
    return f"{name}:{port}" if port else str(name)


@lru_cache(maxsize=256)
def _read_host(value: bytes) -> str:
    """Checked strictly, because the host becomes part of callback URLs, which are substituted into requests."""
    if _NAME_AND_PORT.fullmatch(value) is None:
        raise BadRequest("the header Host is not a host, with a port or without")
    return value.decode("ascii")


def base_url(scope: Scope, settings: Settings) -> str:
    """The URL of the prefix as this client sees it. Raises `BadRequest` as `host_of` does."""
    base = settings.public_url or origin(scope.get("scheme", "http"), host_of(scope), scope.get("root_path", ""))
    return base + settings.prefix


def client_address(scope: Scope) -> tuple[str, int] | None:
    """Host and port for the replay; None if the server gives something else, e.g. the path of a socket."""
    client: Any = scope.get("client")
    if client and isinstance(client[0], str) and isinstance(client[1], int):
        return client if type(client) is tuple and len(client) == 2 else (client[0], client[1])
    return None


def server_address(scope: Scope) -> tuple[str, int | None] | None:
    """Host and port of the server, which may have no port."""
    server: Any = scope.get("server")
    if not server or not (server[1] is None or isinstance(server[1], int)):
        return None
    as_given = type(server) is tuple and len(server) == 2 and type(server[0]) is str
    return server if as_given else (str(server[0]), server[1])
