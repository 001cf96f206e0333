"""Puts a queue inside an application object, which keeps its class, for tools that look for a `FastAPI` instance.

Starlette and FastAPI build their middleware stack when they are first called, so a queue put around that stack is outside
every middleware, even those added later. Quart calls its `asgi_app`, which is meant to be wrapped.
"""

from __future__ import annotations

from typing import Any

from starlette.applications import Starlette

from queue_middleware.errors import SettingsError

from .replay import App

_KEY = "queue_middleware.attached"
_MARK = "_queue_middleware"
"""Attribute of an application that holds the attached queue."""


def attached_queue(app: object) -> object:
    """The queue that `attach` has put into this application, or None."""
    return getattr(app, "__dict__", {}).get(_MARK)


class Attachment:
    """Connects a queue and the application around it. Raises `SettingsError` if the application does not allow that."""

    def __init__(self, app: Any) -> None:
        if isinstance(app, type) or getattr(app, _MARK, None) is not None:
            what = "a class" if isinstance(app, type) else "an application that already has a queue"
            raise SettingsError(f"attach() was given {what}; call it once, with the application object")
        if not (isinstance(app, Starlette) or callable(getattr(app, "asgi_app", None))):
            raise SettingsError(
                f"attach() cannot put a queue into {_named(app)}; it takes a Starlette, FastAPI or Quart "
                "application. For any other write 'app = QueueMiddleware(app)' and serve that"
            )
        if isinstance(app, Starlette) and app.middleware_stack is not None:
            raise SettingsError(
                "attach() was called too late: the application has already been started; call it right after creating it"
            )
        self._app = app
        self._inside: App | None = None

    async def outside(self, scope: Any, receive: Any, send: Any) -> None:
        """Call the whole application as a server does, but bypass the queue. Replays call this."""
        scope[_KEY] = self
        await self._app(scope, receive, send)

    async def inside(self, scope: Any, receive: Any, send: Any) -> None:
        """Call what the queue was put around."""
        if self._inside is None:
            raise RuntimeError("the attached application has not been called yet")
        await self._inside(scope, receive, send)

    def put(self, queue: App) -> None:
        """Put the queue into the application, which is unchanged until then."""

        async def entry(scope: Any, receive: Any, send: Any) -> None:
            await (self.inside if scope.get(_KEY) is self else queue)(scope, receive, send)

        app = self._app
        if isinstance(app, Starlette):
            build = app.build_middleware_stack

            def build_with_queue() -> App:
                # Tools that add middlewares to a running application call this again.
                self._inside = build()
                return entry

            app.build_middleware_stack = build_with_queue  # type: ignore[method-assign]
        else:
            self._inside = app.asgi_app
            app.asgi_app = entry
        setattr(app, _MARK, queue)


def _named(app: Any) -> str:
    """Its class, or its own name if it is a function."""
    return f"{app.__qualname__}()" if hasattr(app, "__qualname__") else f"an object of the class {type(app).__qualname__}"
