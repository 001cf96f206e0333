"""Checks the arguments of `QueueMiddleware` at construction, without calling any. Each check raises `SettingsError`."""

from __future__ import annotations

import inspect
from collections.abc import Iterable
from functools import partial
from typing import Any

from queue_middleware.errors import SettingsError


def check_application(app: object) -> None:
    """Raise `SettingsError` for an object that is recognizably not an ASGI application."""
    if not callable(app):
        raise SettingsError(f"{app!r} is not an ASGI application; pass the application object, e.g. QueueMiddleware(app)")
    if _takes(app, 3):
        return
    if _takes(app, 2):
        raise SettingsError(
            f"{_kind(app)} is a WSGI application; wrap it first, with a2wsgi: QueueMiddleware(a2wsgi.WSGIMiddleware(app))"
        )
    raise SettingsError(f"{_kind(app)} is not an ASGI application: it does not take scope, receive and send")


def _takes(app: Any, arguments: int) -> bool:
    try:
        inspect.signature(app, follow_wrapped=False).bind(*range(arguments))
    except ValueError:
        return True  # the signature is unknown
    except TypeError:
        return False
    return True


def _kind(app: object) -> str:
    return getattr(app, "__qualname__", None) or type(app).__qualname__


def check_nesting(inner: Iterable[tuple[str, str]], outer: tuple[str, str]) -> None:
    """Raise `SettingsError` if the application already has a queue with the same prefix or the same database.

    With the same prefix the inner queue could not be reached; with the same database each would execute the requests of the
    other.
    """
    for prefix, database in inner:
        same = f"prefix {prefix}" if prefix == outer[0] else f"database {database}" if database == outer[1] else None
        if same is not None:
            raise SettingsError(
                f"the application already has a queue with the same {same}; wrap it once, or give each queue "
                "its own prefix and its own database"
            )


def check_route_of(route_of: object) -> None:
    """Raise `SettingsError` for a `route_of` that cannot be called with a scope."""
    is_async = any(inspect.iscoroutinefunction(it) for it in (route_of, getattr(route_of, "__call__", None)))  # noqa: B004
    if not callable(route_of) or is_async or not _takes(route_of, 1):
        raise SettingsError(f"route_of: {route_of!r} is not a plain function of one argument; write 'def route_of(scope)'")


def check_async(option: str, function: object, signature: str) -> None:
    """Raise `SettingsError` for a function that cannot be awaited. `option` and `signature` are for the message."""
    plain = function
    while isinstance(plain, partial):
        plain = plain.func
    if not callable(plain):
        raise SettingsError(f"{option}: {plain!r} is not a function; write 'async def {signature}'")
    if inspect.iscoroutinefunction(plain):
        return
    if not (inspect.isfunction(plain) or inspect.ismethod(plain)):
        plain = getattr(type(plain), "__call__", plain)  # noqa: B004 - a callable object
    if (inspect.isfunction(plain) or inspect.ismethod(plain)) and not inspect.iscoroutinefunction(plain):
        raise SettingsError(
            f"{option}: {_kind(function)} is not async; write 'async def', and call blocking code with asyncio.to_thread"
        )
