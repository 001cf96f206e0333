"""`QueueMiddleware`: a switch. Lifespan, our prefix and hosts, and everything else, which reaches the application untouched."""

from __future__ import annotations

from collections.abc import Awaitable, Collection, Iterable, Iterator, Mapping
from contextlib import AbstractAsyncContextManager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Generic, Self, Unpack

from starlette.types import ASGIApp, Receive, Scope, Send

from .application import default_name, layers
from .attach import Attachment, attached_queue
from .counts import Counts
from .events import Observer
from .ledger import UNWELL, Selection
from .lifespan import run_lifespan
from .models import Standing
from .mount import process_objects
from .replay import App
from .runtime import Runtime
from .settings import Options, Settings, isolation
from .stores.sqlite.location import database_path
from .web.access import Access, Authenticate
from .web.address import declared_root, is_at_host, is_ours
from .web.cors import CrossOrigin
from .web.router import Router
from .webhooks import Attempt, DeliveryRecord, Receiver
from .wrapping import check_application, check_authenticate, check_nesting

if TYPE_CHECKING:
    # With a default, so that a bare `QueueMiddleware` is a whole type for users' strict mypy; `typing` has it from 3.13 on.
    from typing_extensions import TypeVar

    AppT = TypeVar("AppT", bound=App, default=Any)
else:
    from typing import TypeVar

    AppT = TypeVar("AppT", bound=App)


_NOTHING = object()


class _Dispatch:
    """Where scopes go. Apart from the middleware, whose `__getattr__` makes Python slow to read its attributes."""

    __slots__ = ("around", "has_looked", "hosts", "inner", "outer", "prefix", "queue", "root")

    def __init__(self, app: App, settings: Settings) -> None:
        self.inner = app
        """What requests go to that are not the queue's."""
        self.outer = app
        """What replays go to."""
        self.prefix = settings.prefix
        self.root = declared_root(app)
        self.hosts = frozenset(host.encode() for host in settings.fal_hosts)
        self.around: dict[str, Any] = {}
        self.has_looked = False
        self.queue: ASGIApp

    def look_around(self, scope: Scope) -> None:
        """Remember what stands in front of the queue, which a replay does not pass through."""
        self.around |= process_objects(scope)
        self.has_looked = scope["type"] != "lifespan"  # which does not pass through routers

    def replay(self, scope: Scope, receive: Receive, send: Send) -> Awaitable[Any]:
        """Call the application with a stored request."""
        scope.update(self.around)
        return self.outer(scope, receive, send)

    async def serve(self, scope: Scope, receive: Receive, send: Send) -> None:
        """A request that is the queue's."""
        if self.root and not scope.get("root_path"):
            scope["root_path"] = self.root  # as the application does when it is called
        await self.queue(scope, receive, send)


class QueueMiddleware(Generic[AppT]):
    """Wraps an ASGI application and gives it a queue under `prefix`.

    `app = QueueMiddleware(app)` around everything else is recommended. `QueueMiddleware.attach(app)` puts the queue into the
    application's object instead. `app.add_middleware(QueueMiddleware, …)` works too, but a replay then does not pass through
    the middlewares that were added later. Options are those of `Settings`, each also read from the environment as
    `QUEUE_<NAME>`. The name of the application and the real path of the database are found here, and `settings` holds them.
    Nothing is opened before the application starts.

    `observers` receive every event. `authenticate` is called for each request to the queue, with a Starlette `HTTPConnection`,
    and returns the name of the client, or None for a stranger, which is answered 401.

    `app` is the application itself. Attributes that the middleware does not have are read, set and deleted there, so
    `app.state`, `app.dependency_overrides` and `@app.get(…)` work after the wrapping as before. Deleting what was set here
    restores what was there. Names with two underscores at both ends are never passed on: the class stays `QueueMiddleware`.

    Raises `SettingsError` for an option that is unknown or wrong.
    """

    app: AppT

    def __init__(
        self,
        app: AppT,
        *,
        observers: Iterable[Observer] = (),
        authenticate: Authenticate | None = None,
        **options: Unpack[Options],
    ) -> None:
        check_application(app)
        if authenticate is not None:
            check_authenticate(authenticate)
        settings = Settings.load(options)
        self._place = settings.prefix, database_path(settings.database)
        check_nesting(_places(app), self._place)
        self.settings = _identified(settings, self._place[1], app)
        self._dispatch = dispatch = _Dispatch(app, self.settings)
        self._runtime = Runtime(dispatch.replay, self.settings, observers, wrapped=app, alone=settings.name is None)
        self._queue = Router(self._runtime, Access(self.settings.api_keys, authenticate))
        origins = self.settings.cors_origins
        dispatch.queue = CrossOrigin(self._queue, origins) if origins else self._queue
        self._replaced: dict[str, Any] = {}
        self.app = app

    @classmethod
    def attach(
        cls,
        app: AppT,
        *,
        observers: Iterable[Observer] = (),
        authenticate: Authenticate | None = None,
        **options: Unpack[Options],
    ) -> Self:
        """Put a queue into a FastAPI, Starlette or Quart application, which stays the object to serve.

        It is outside all middlewares, also those that are added later. Call it once, before the application is started. Returns
        the queue, for `counts()`, `redeliver()`, `running()` and so on. Raises `SettingsError` for other applications.
        """
        attachment = Attachment(app)
        queue = cls(app, observers=observers, authenticate=authenticate, **options)
        queue._dispatch.inner, queue._dispatch.outer = attachment.inside, attachment.outside
        attachment.put(queue)
        return queue

    def __getattr__(self, name: str) -> Any:
        """Called for what is not found here."""
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
            # pytest's `monkeypatch` looks into `__dict__`, finds nothing there, and deletes in order to restore.
            setattr(self.app, name, replaced)

    def _is_of_app(self, name: str) -> bool:
        """Whether it is the application's; while the middleware is still being made nothing is."""
        own = self.__dict__
        return "app" in own and name not in own and not hasattr(type(self), name) and not _is_special(name)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One ASGI scope."""
        kind, dispatch = scope["type"], self._dispatch
        if not dispatch.has_looked:
            dispatch.look_around(scope)
        if kind == "http" and (dispatch.prefix in scope["path"]) and is_ours(scope, dispatch.prefix, dispatch.root):
            await dispatch.serve(scope, receive, send)
        elif kind == "lifespan":
            await run_lifespan(dispatch.inner, self._runtime, scope, receive, send)
        elif dispatch.hosts and is_at_host(scope, dispatch.hosts):
            if kind == "http":
                await dispatch.serve(scope, receive, send)
            else:
                await send({"type": "websocket.close", "code": 1000, "reason": "this host has no websockets"})
        else:
            await dispatch.inner(scope, receive, send)

    # --- for operators; while the queue runs, otherwise they raise `NotRunning`

    async def counts(self) -> Counts:
        """How many requests, webhooks and receivers are in each state that has any."""
        return await self._runtime.counts()

    async def deliveries(self, *, after: int = 0, limit: int = 100, **which: Unpack[Selection]) -> list[DeliveryRecord]:
        """Webhooks by `request_id`, `delivery_id`, `host`, `since`, `until`, `dead_only`, oldest first.

        The next page begins `after` the last id of this one.
        """
        return await self._runtime.ledger.deliveries(after=after, limit=limit, **which)

    async def delivery_attempts(self, delivery_id: int) -> list[Attempt]:
        """What came of each attempt to deliver a webhook, with the beginning of the answer. Not for the submitter's eyes."""
        return await self._runtime.ledger.attempts(delivery_id)

    async def receivers(self, standings: Collection[Standing] = UNWELL) -> list[Receiver]:
        """The hosts that webhooks go to and that are not well, or those of other standings; at most 1,000."""
        return await self._runtime.ledger.receivers(standings)

    async def redeliver(self, **which: Unpack[Selection]) -> int:
        """Deliver webhooks again, selected as by `deliveries`; how many. Each begins its schedule anew, under the same id.

        One request or delivery that is named is delivered again whatever became of it; of all others only those that were
        given up, unless `dead_only=False` is said. Raises `BadRequest` where nothing is selected, and `UnknownRequest`.
        """
        return await self._runtime.ledger.redeliver(**which)

    def running(
        self, state: Mapping[str, Any] | None = None, *, parent: App | None = None
    ) -> AbstractAsyncContextManager[None]:
        """`async with queue.running():` starts the queue where no lifespan does: mounted applications, servers without it.

        `state` is what your lifespan yields: each replay finds a shallow copy in `request.state`. `parent` is the application
        in which the queue is mounted: with it replays find `request.app` and `url_for` also before the first request.
        """
        if parent is not None:
            router = getattr(parent, "router", None)
            self._dispatch.around |= {"app": parent} if router is None else {"app": parent, "router": router}
        return self._runtime.running(state)


def _is_special(name: str) -> bool:
    """Whether Python itself asks for it: `__wrapped__`, `__getstate__`, `__signature__`."""
    return name.startswith("__") and name.endswith("__")


def _identified(settings: Settings, database: Path, app: object) -> Settings:
    """With the name of the application, and the real path of its database: neither depends on what happens later."""
    name = settings.name or default_name(app)
    if (tests := isolation()) is not None:
        database = tests.place(database, name)
    return replace(settings, name=name, database=str(database))


def _places(app: object) -> Iterator[tuple[str, Path]]:
    """Prefix and database of each queue that an application has already, or is going to be given by its framework."""
    for layer in layers(app):
        queue = layer if isinstance(layer, QueueMiddleware) else attached_queue(layer)
        if isinstance(queue, QueueMiddleware):
            yield queue._place  # noqa: SLF001 - one of us
        for added in getattr(layer, "user_middleware", ()):
            if isinstance(kind := getattr(added, "cls", None), type) and issubclass(kind, QueueMiddleware):
                options = {name: value for name, value in added.kwargs.items() if name in Options.__annotations__}
                settings = Settings.load(options)
                yield settings.prefix, database_path(settings.database)
