"""ASGI entry point: passes the lifespan, the queue's routes, and everything else (unchanged) to the part that serves it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping
from contextlib import AbstractAsyncContextManager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Generic, Self, Unpack

from starlette.types import ASGIApp, Receive, Scope, Send

from .asgi.application import default_name, layers
from .asgi.argument_checks import check_application, check_async, check_nesting, check_route_of
from .asgi.attach import Attachment, attached_queue
from .asgi.lifespan import run_lifespan
from .asgi.mount import process_objects
from .asgi.replay import App
from .events import Observer
from .jobs.routes import RouteOf
from .runtime.operator_methods import OperatorMethods
from .runtime.readiness import Ready
from .runtime.runtime import Runtime
from .settings import Options, Settings
from .stores import locate
from .testing.isolation import isolation
from .web.auth import Authenticate, Authenticator
from .web.cors import CORSMiddleware
from .web.router import Router
from .web.urls import declared_root, is_at_host, is_ours

if TYPE_CHECKING:
    # With a default, so that a bare `QueueMiddleware` is a complete type in strict mypy; in `typing` from Python 3.13 on.
    from typing_extensions import TypeVar

    AppT = TypeVar("AppT", bound=App, default=Any)
else:
    from typing import TypeVar

    AppT = TypeVar("AppT", bound=App)


_NOTHING = object()


class _Dispatch:
    """Dispatch data of a middleware, kept apart because the middleware's `__getattr__` makes attribute access slow."""

    __slots__ = ("around", "has_surroundings", "hosts", "inner", "outer", "prefix", "queue", "root")

    def __init__(self, app: App, settings: Settings) -> None:
        self.inner = app
        """Receives the requests that are not for the queue."""
        self.outer = app
        """Receives the replays."""
        self.prefix = settings.prefix
        self.root = declared_root(app)
        self.hosts = frozenset(host.encode() for host in settings.fal_hosts)
        self.around: dict[str, Any] = {}
        self.has_surroundings = False
        self.queue: ASGIApp

    def read_surroundings(self, scope: Scope) -> None:
        """Remember the scope entries of the applications around the queue, which a replay does not pass through."""
        self.around |= process_objects(scope)
        self.has_surroundings = scope["type"] != "lifespan"  # which does not pass through routers

    def replay(self, scope: Scope, receive: Receive, send: Send) -> Awaitable[Any]:
        """Call the application with a stored request."""
        scope.update(self.around)
        return self.outer(scope, receive, send)

    def add_root(self, scope: Scope) -> None:
        """Give a request for the queue the root path that the application itself would add."""
        if not scope.get("root_path"):
            scope["root_path"] = self.root


class QueueMiddleware(OperatorMethods, Generic[AppT]):
    """Wraps an ASGI application and gives it a queue under `prefix`.

    There are three ways to add the queue. `app = QueueMiddleware(app)`, outside everything else, is recommended.
    `QueueMiddleware.attach(app)` puts the queue into the application's object. `app.add_middleware(QueueMiddleware, …)` works
    too, but a replay then does not pass through the middlewares that were added later.

    The keyword arguments are the options of `Settings`; each is also read from the environment as `QUEUE_<NAME>`.
    `observers` receive every event. `authenticate` is called for each request to the queue, with a Starlette `HTTPConnection`.
    It returns the name of the client, or None for an unknown client, which gets a 401. `route_of` is called for each
    submission, with the ASGI scope of the queued call; it returns the route (docs/reference/options.md, "Routes of requests").
    `ready` is called for each check whether this process is ready, and returns whether the application is.
    The constructor determines the name of the application and the real path of the database, and stores both in `settings`.
    It opens nothing: the queue starts with the application.

    The attribute `app` is the application. Attributes that the middleware does not have are read, set and deleted there, so
    `app.state`, `app.dependency_overrides` and `@app.get(…)` work as before the wrapping. Deleting an attribute that was set
    through the middleware restores its previous value. Names with two underscores at both ends are not forwarded.

    Raises `SettingsError` for an option that is unknown or wrong. `_clock`, in Unix seconds, is for tests that move time.
    """

    app: AppT
    identifies_clients: bool
    """Whether `api_keys` or `authenticate` is set, so that unknown clients are refused."""

    def __init__(
        self,
        app: AppT,
        *,
        observers: Iterable[Observer] = (),
        authenticate: Authenticate | None = None,
        route_of: RouteOf | None = None,
        ready: Ready | None = None,
        _clock: Callable[[], float] | None = None,
        **options: Unpack[Options],
    ) -> None:
        check_application(app)
        if authenticate is not None:
            check_async("authenticate", authenticate, "authenticate(connection)")
        if ready is not None:
            check_async("ready", ready, "ready()")
        if route_of is not None:
            check_route_of(route_of)
        settings = Settings.load(options)
        if settings.admin is not None and not isinstance(settings.admin, str):
            check_async("admin", settings.admin, "admin(connection)")
        self._place = settings.prefix, locate(settings.database).name
        check_nesting(_queues_of(app), self._place)
        self.settings = _identified(settings, self._place[1], app)
        self._dispatch = dispatch = _Dispatch(app, self.settings)
        exclusive = settings.name is None
        self._runtime = Runtime(
            dispatch.replay, self.settings, observers, wrapped=app, exclusive=exclusive, clock=_clock, route_of=route_of
        )
        authenticator = Authenticator(self.settings.api_keys, authenticate)
        self.identifies_clients = authenticator.required
        self._queue = Router(self._runtime, authenticator, self._runtime.readiness(ready))
        origins = self.settings.cors_origins
        dispatch.queue = CORSMiddleware(self._queue, origins) if origins else self._queue
        self._replaced: dict[str, Any] = {}
        self.app = app

    @classmethod
    def attach(
        cls,
        app: AppT,
        *,
        observers: Iterable[Observer] = (),
        authenticate: Authenticate | None = None,
        route_of: RouteOf | None = None,
        ready: Ready | None = None,
        **options: Unpack[Options],
    ) -> Self:
        """Put a queue into a FastAPI, Starlette or Quart application, and return the queue. You still serve the application.

        The queue is outside all middlewares, even those that are added later. Call this once, before the application starts.
        The returned object has the operator's methods, such as `counts()`. Raises `SettingsError` for other applications.
        """
        attachment = Attachment(app)
        queue = cls(app, observers=observers, authenticate=authenticate, route_of=route_of, ready=ready, **options)
        queue._dispatch.inner, queue._dispatch.outer = attachment.inside, attachment.outside
        attachment.put(queue)
        return queue

    def __getattr__(self, name: str) -> Any:
        """Forward an attribute that the middleware does not have to the application."""
        where = ""
        if "app" in self.__dict__ and not _is_special(name):
            try:
                return getattr(self.app, name)
            except AttributeError:
                where = f", nor has the {type(self.app).__name__!r} in it"
        raise AttributeError(f"{type(self).__name__!r} has no attribute {name!r}{where}", name=name, obj=self)

    def __setattr__(self, name: str, value: Any) -> None:
        if self._is_of_app(name):
            self._replaced.setdefault(name, getattr(self.app, "__dict__", {}).get(name, _NOTHING))
            setattr(self.app, name, value)
        else:
            super().__setattr__(name, value)

    def __delattr__(self, name: str) -> None:
        if not self._is_of_app(name):
            super().__delattr__(name)
        elif (replaced := self._replaced.pop(name, _NOTHING)) is _NOTHING:
            delattr(self.app, name)
        else:
            # pytest's `monkeypatch` finds nothing in `__dict__`, and therefore deletes in order to restore.
            setattr(self.app, name, replaced)

    def _is_of_app(self, name: str) -> bool:
        """Whether the attribute belongs to the application; none does before the constructor has set `app`."""
        own = self.__dict__
        return "app" in own and name not in own and not hasattr(type(self), name) and not _is_special(name)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one ASGI scope."""
        kind, dispatch = scope["type"], self._dispatch
        if not dispatch.has_surroundings:
            dispatch.read_surroundings(scope)
        if kind == "http" and (dispatch.prefix in scope["path"]) and is_ours(scope, dispatch.prefix, dispatch.root):
            if dispatch.root:
                dispatch.add_root(scope)
            await dispatch.queue(scope, receive, send)
        elif kind == "lifespan":
            await run_lifespan(dispatch.inner, self._runtime, scope, receive, send)
        elif dispatch.hosts and is_at_host(scope, dispatch.hosts):
            if kind == "http":
                if dispatch.root:
                    dispatch.add_root(scope)
                await dispatch.queue(scope, receive, send)
            else:
                await send({"type": "websocket.close", "code": 1000, "reason": "this host serves no websockets"})
        else:
            await dispatch.inner(scope, receive, send)

    def running(
        self, state: Mapping[str, Any] | None = None, *, parent: App | None = None
    ) -> AbstractAsyncContextManager[None]:
        """Run the queue inside `async with queue.running():`, where no lifespan starts it, e.g. in a mounted application.

        `state` is what your lifespan yields; each replay gets a shallow copy as `request.state`. `parent` is the application in
        which the queue is mounted. With `parent`, `request.app` and `url_for` work in replays even before the first request.
        """
        if parent is not None:
            router = getattr(parent, "router", None)
            self._dispatch.around |= {"app": parent} if router is None else {"app": parent, "router": router}
        return self._runtime.running(state)


def _is_special(name: str) -> bool:
    """Whether the name belongs to Python's own protocols: `__wrapped__`, `__getstate__`, `__signature__`."""
    return name.startswith("__") and name.endswith("__")


def _identified(settings: Settings, database: str, app: object) -> Settings:
    """The settings with the application's name and the real path of its database."""
    name = settings.name or default_name(app)
    if (tests := isolation()) is not None:
        database = str(tests.place(Path(database), name))
    return replace(settings, name=name, database=database)


def _queues_of(app: object) -> Iterator[tuple[str, str]]:
    """Prefix and database of each queue that an application has already, or that its framework will add to it."""
    for layer in layers(app):
        queue = layer if isinstance(layer, QueueMiddleware) else attached_queue(layer)
        if isinstance(queue, QueueMiddleware):
            yield queue._place  # noqa: SLF001 - the same class
        for added in getattr(layer, "user_middleware", ()):
            if isinstance(kind := getattr(added, "cls", None), type) and issubclass(kind, QueueMiddleware):
                options = {name: value for name, value in added.kwargs.items() if name in Options.__annotations__}
                settings = Settings.load(options)
                yield settings.prefix, locate(settings.database).name
