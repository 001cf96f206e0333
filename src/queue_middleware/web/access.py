"""Who is it? A key, or what the service's own `authenticate` says; and what belongs to whom."""

from __future__ import annotations

import hashlib
import hmac
import re
from collections.abc import Awaitable, Callable, Iterable

from starlette.requests import HTTPConnection
from starlette.types import Scope

from queue_middleware.errors import Unauthorized
from queue_middleware.models import OWNED

Authenticate = Callable[[HTTPConnection], Awaitable[str | None]]
"""From a request to the name of who sends it, or None for a stranger."""

_NAMED_KEY = re.compile(r"([A-Za-z0-9_-]{1,128}):.+")
_SCHEMES = ("key", "bearer")
_LONGEST_IDENTITY = 256


class Access:
    """Asks everybody who he is, where there is something to ask by. `api_keys` and `authenticate` may both be given."""

    def __init__(self, api_keys: Iterable[str] = (), authenticate: Authenticate | None = None) -> None:
        self._known = [(_digest(key), name_of(key)) for key in api_keys]
        self._authenticate = authenticate
        self.is_asked = bool(self._known) or authenticate is not None
        """Without it a request's id is all that is needed to see it."""

    async def identify(self, scope: Scope) -> str:
        """The name of who sends this request. Raises `Unauthorized`."""
        key = _given_key(scope)
        if key is not None and (name := self._owner_of(key)) is not None:
            return name
        if self._authenticate is not None:
            name = await self._authenticate(HTTPConnection(scope))
            if name is not None:
                return _checked(name)
        if not self._known:
            raise Unauthorized("this service does not know the sender of this request; sign in as its other routes want it")
        if key is None:
            raise Unauthorized("a key is needed: send 'Authorization: Key …', 'Authorization: Bearer …' or 'X-API-Key: …'")
        raise Unauthorized("invalid key credentials")

    def _owner_of(self, key: str) -> str | None:
        """All keys are looked at: how long it takes tells nothing about them."""
        given = _digest(key)
        names = [name for known, name in self._known if hmac.compare_digest(known, given)]
        return names[0] if names else None


def client_of(identity: str | None, address: str) -> str:
    """Whom the per-client limit counts, and whom a job belongs to: see `models.NewJob.client`."""
    return address if identity is None else OWNED + identity


def name_of(key: str) -> str:
    """Whose key it is: what stands in front of its colon, as fal's keys have it; of others a piece of their hash."""
    named = _NAMED_KEY.fullmatch(key)
    return named[1] if named else f"key-{_digest(key).hex()[:16]}"


def _given_key(scope: Scope) -> str | None:
    for name, value in scope["headers"]:
        if name == b"authorization":
            scheme, _, key = value.decode("latin-1").partition(" ")
            if scheme.lower() in _SCHEMES:
                return str(key.strip())
        elif name == b"x-api-key":
            return str(value.decode("latin-1").strip())
    return None


def _digest(key: str) -> bytes:
    return hashlib.sha256(key.encode()).digest()


def _checked(name: str) -> str:
    if not isinstance(name, str) or not 0 < len(name) <= _LONGEST_IDENTITY:
        raise TypeError(f"authenticate returned {type(name).__name__}; it returns a name of 1 to 256 characters, or None")
    return name
