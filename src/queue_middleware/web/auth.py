"""Authenticates clients by API keys or the operator's `authenticate`, and identifies clients for limits."""

from __future__ import annotations

import hashlib
import hmac
import re
from collections.abc import Awaitable, Callable, Iterable
from functools import lru_cache
from ipaddress import ip_address

from starlette.requests import HTTPConnection
from starlette.types import Scope

from queue_middleware.errors import BadRequest, Unauthorized
from queue_middleware.jobs.models import IDENTITY_PREFIX

Authenticate = Callable[[HTTPConnection], Awaitable[str | None]]
"""Returns the submitter identity of a request, or None if it is unknown."""

_NAMED_KEY = re.compile(r"([A-Za-z0-9_-]{1,128}):.+")
_SCHEMES = ("key", "bearer")
_MOST_KEYS = 8
"""Keys of one request that are checked. Each is hashed and compared with all known keys."""
_LONGEST_IDENTITY = 256
_LONGEST_ADDRESS = 64
"""Characters; an IPv6 address with a zone and a port has fewer."""
_UNSTORABLE = re.compile(r"[\0\ud800-\udfff]")
_WITH_PORT = re.compile(r"\[([0-9A-Fa-f:.]+)\](?::[0-9]*)?|([0-9.]+):[0-9]*")


class Authenticator:
    """Authenticates clients, if it is configured. `api_keys` and `authenticate` may be combined."""

    def __init__(self, api_keys: Iterable[str] = (), authenticate: Authenticate | None = None) -> None:
        self._known = [(_digest(key), name_of(key)) for key in api_keys]
        self._authenticate = authenticate
        self.accepts_keys = bool(self._known)
        self.required = self.accepts_keys or authenticate is not None
        """If False, knowing a request's id is enough to read it."""

    async def authenticate(self, scope: Scope) -> str:
        """The identity of the client: of any key that is known, in whichever header, or else the result of `authenticate`.

        Raises `Unauthorized`, and `BadRequest` for known keys of two identities.
        """
        keys = _given_keys(scope)
        names = {name for key in keys if (name := self._owner_of(key)) is not None}
        if len(names) > 1:
            raise BadRequest(f"the request has keys of several clients ({', '.join(sorted(names))}); send one of them")
        if names:
            return names.pop()
        if self._authenticate is not None:
            name = await self._authenticate(HTTPConnection(scope))
            if name is not None:
                return _checked(name)
        if not self._known:
            raise Unauthorized("this service does not know the sender of this request; sign in as for its other routes")
        if not keys:
            forms = "'Authorization: Key <key>', 'Authorization: Bearer <key>' or 'X-API-Key: <key>'"
            raise Unauthorized(f"a key is needed: send {forms}")
        raise Unauthorized("invalid key credentials")

    def _owner_of(self, key: str) -> str | None:
        """Compare with every key, so that timing reveals nothing about them."""
        given = _digest(key)
        names = [name for known, name in self._known if hmac.compare_digest(known, given)]
        return names[0] if names else None


def client_of(identity: str | None, scope: Scope) -> str:
    """The client that limits count a request for and that a job belongs to, in the form of `NewJob.client`."""
    return address_of(scope) if identity is None else IDENTITY_PREFIX + identity


def address_of(scope: Scope) -> str:
    """The client's IP address in canonical form; empty if the server gives no IP address, e.g. for a Unix domain socket.

    Servers behind proxies take it from a header, so it may be any text. An IP address is never used as an identity.
    """
    client = scope.get("client")
    if not client or not isinstance(client[0], str) or len(client[0]) > _LONGEST_ADDRESS:
        return ""
    return _canonical(client[0])


@lru_cache(maxsize=1024)
def _canonical(text: str) -> str:
    # Some proxies append the port.
    bare = _WITH_PORT.fullmatch(text)
    try:
        address = ip_address((bare[1] or bare[2]) if bare else text)
    except ValueError:
        return ""
    mapped = getattr(address, "ipv4_mapped", None)
    return str(mapped or address)


def name_of(key: str) -> str:
    """The identity that a key stands for: the part before its colon, as in fal's keys, or else a part of the key's hash."""
    named = _NAMED_KEY.fullmatch(key)
    return named[1] if named else f"key-{_digest(key).hex()[:16]}"


def _given_keys(scope: Scope) -> list[str]:
    """All keys in both headers, because `Authorization` may be meant for the application or for a proxy in front of it."""
    keys: list[str] = []
    for name, value in scope["headers"]:
        if name == b"authorization":
            scheme, _, key = value.decode("latin-1").partition(" ")
            if scheme.lower() in _SCHEMES:
                keys.append(key.strip())
        elif name == b"x-api-key":
            keys.append(value.decode("latin-1").strip())
    return keys[:_MOST_KEYS]


def _digest(key: str) -> bytes:
    return hashlib.sha256(key.encode()).digest()


def _checked(name: str) -> str:
    if not isinstance(name, str) or not 0 < len(name) <= _LONGEST_IDENTITY:
        raise TypeError(f"authenticate returned {type(name).__name__}; it returns a name of 1 to 256 characters, or None")
    if _UNSTORABLE.search(name):
        raise TypeError("authenticate returned a name with NUL or half of a surrogate pair, which cannot be stored")
    return name
