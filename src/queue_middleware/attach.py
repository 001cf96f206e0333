"""A queue inside an application's own object, which keeps its class: for tools that look for a `FastAPI` instance.

Starlette and FastAPI build their stack of middlewares when they are first called, so a queue put around that stack is outside
every middleware, whenever it is added. Quart calls its `asgi_app`, which exists to be wrapped.
"""

from __future__ import annotations

from typing import Any

from starlette.applications import Starlette

from .errors import SettingsError
from .replay import App

_KEY = "queue_middleware.attached"
_MARK = "_queue_middleware"
"""Attribute of an application that has a queue inside, which is its value."""


def attached_queue(app: object) -> object:
    """The queue that `attach` has put into this application; None where there is none."""
    return getattr(app, "__dict__", {}).get(_MARK)


class Attachment:
    """The two sides of a queue inside an application. Raises `SettingsError` where it cannot be put there."""

    def __init__(self, app: Any) -> None:
        if isinstance(app, type) or getattr(app, _MARK, None) is not None:
            what = "a class" if isinstance(app, type) else "an application that has a queue already"
            raise SettingsError(f"attach() was given {what}; call it once, with the application object")
        if not (isinstance(app, Starlette) or callable(getattr(app, "asgi_app", None))):
            raise SettingsError(
                f"attach() does not know how to put a queue into {_named(app)}: it can be a Starlette, FastAPI or Quart "
                "application. Write 'app = QueueMiddleware(app)' for any other, and give that to the server"
            )
        if isinstance(app, Starlette) and app.middleware_stack is not None:
            raise SettingsError("attach() came too late: the application has been started already. Call it where it is made")
        self._app = app
        self._inside: App | None = None

    async def outside(self, scope: Any, receive: Any, send: Any) -> None:
        """Call the whole application, as a server does, but past the queue: what a replay calls."""
        scope[_KEY] = self
        await self._app(scope, receive, send)

    async def inside(self, scope: Any, receive: Any, send: Any) -> None:
        """Call what the queue was put around."""
        if self._inside is None:
            raise RuntimeError("the attached application has not been called yet")
        await self._inside(scope, receive, send)

    def put(self, queue: App) -> None:
        """Put the queue in its place. Until then nothing about the application has changed."""

        async def entry(scope: Any, receive: Any, send: Any) -> None:
            await (self.inside if scope.get(_KEY) is self else queue)(scope, receive, send)

        app = self._app
        if isinstance(app, Starlette):
            build = app.build_middleware_stack

            def build_with_queue() -> App:
                # Called again by tools that add middlewares to a running application.
                self._inside = build()
                return entry

            app.build_middleware_stack = build_with_queue  # type: ignore[method-assign]
        else:
            self._inside = app.asgi_app
            app.asgi_app = entry
        setattr(app, _MARK, queue)


def _named(app: Any) -> str:
    """Its class, or what is more telling of a function."""
    return f"{app.__qualname__}()" if hasattr(app, "__qualname__") else f"an object of the class {type(app).__qualname__}"
