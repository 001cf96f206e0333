"""Decides who may use the routes of operators. Access to the queue's other routes neither gives nor needs it."""

from __future__ import annotations

import hashlib
import hmac
import time
from collections.abc import Callable
from typing import Literal

from starlette.requests import HTTPConnection
from starlette.types import Scope

from queue_middleware.errors import Unauthorized, UnknownRoute
from queue_middleware.jobs.audit import is_operator
from queue_middleware.jobs.struct import Struct
from queue_middleware.secret_parsers import Admins

from .auth import address_of
from .rate_limit import LookupLimiter

MAX_WRONG_TOKENS = 10
"""Of one address in a minute."""
TOKEN_HOLDER = "admin"  # noqa: S105 - a name
"""The name of an operator with the token."""


class NoOperator(Unauthorized):
    """The token of operators is missing or wrong. API keys do not take its place."""

    @property
    def headers(self) -> tuple[tuple[bytes, bytes], ...]:
        """`WWW-Authenticate` with the only scheme that is accepted."""
        return ((b"www-authenticate", b"Bearer"),)


class Admin(Struct, frozen=True):
    """An operator, as a function that is passed as `admin` returns it."""

    name: str
    """1 to 256 printable characters; the acts of the operator are recorded under it."""
    level: Literal["read", "operate"] = "operate"
    reveal: bool = False
    """Whether this operator may see bodies and secrets of requests."""


class AdminAccess:
    """The operators of one queue. `admin` is the option: a token, a function, or None if there are none."""

    def __init__(self, admin: str | Admins | None, clock: Callable[[], float] = time.monotonic) -> None:
        self._token = _digest(admin.encode("ascii")) if isinstance(admin, str) else None
        self._find = None if isinstance(admin, str) else admin
        self._wrong_tokens = LookupLimiter(clock, MAX_WRONG_TOKENS)

    async def identify(self, scope: Scope) -> Admin:
        """The operator that sent a request.

        Raises `UnknownRoute` if the option is not set, or if the function does not know the sender, because the routes exist
        for operators only. Raises `Unauthorized` for a missing or wrong token, and `RateLimited` for many wrong ones from one
        address.
        """
        if self._token is not None:
            self._check_token(scope)
            return Admin(TOKEN_HOLDER, reveal=True)
        found = None if self._find is None else await self._find(HTTPConnection(scope))
        if found is None:
            raise UnknownRoute("there is no such route")
        return _checked(found)

    def _check_token(self, scope: Scope) -> None:
        given = _bearer(scope)
        if given is None:
            raise NoOperator("the token of operators is needed: send 'Authorization: Bearer <token>'")
        if not hmac.compare_digest(self._token or b"", _digest(given)):
            self._wrong_tokens.count(address_of(scope))
            raise NoOperator("this is not the token of operators")


def _bearer(scope: Scope) -> bytes | None:
    """The first bearer token of a request."""
    for name, value in scope["headers"]:
        scheme, _, token = value.partition(b" ")
        if name == b"authorization" and scheme.lower() == b"bearer":
            return bytes(token.strip())
    return None


def _digest(token: bytes) -> bytes:
    """Of a fixed length, so that the time of the comparison does not depend on the token."""
    return hashlib.sha256(token).digest()


def _checked(found: object) -> Admin:
    admin = Admin(found) if isinstance(found, str) else found
    if not isinstance(admin, Admin) or admin.level not in ("read", "operate"):
        raise TypeError(f"admin returned {type(found).__name__}; it returns a name, an Admin, or None")
    if not is_operator(admin.name):
        raise TypeError("admin returned a name that cannot be recorded; a name has 1 to 256 printable characters")
    return admin
