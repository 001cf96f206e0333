"""`QueueMiddleware`: a switch. Lifespan, our prefix and hosts, and everything else, which reaches the application untouched."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator
from contextlib import AbstractAsyncContextManager
from dataclasses import replace
from pathlib import Path
from typing import Unpack

from starlette.types import ASGIApp, Receive, Scope, Send

from .application import default_name, layers
from .events import Observer
from .ledger import UNWELL, Selection
from .lifespan import run_lifespan
from .models import Counts, Standing
from .replay import App
from .runtime import Runtime
from .settings import Options, Settings, isolation
from .stores.sqlite.location import database_path
from .web.access import Access, Authenticate
from .web.address import is_at_host, is_ours
from .web.cors import CrossOrigin
from .web.fal import FalQueue
from .webhooks import Attempt, DeliveryRecord, Receiver
from .wrapping import check_application, check_authenticate, check_nesting


class QueueMiddleware:
    """Wraps an ASGI application and gives it a queue under `prefix`.

    `app = QueueMiddleware(app)` around everything else is recommended; `app.add_middleware(QueueMiddleware, …)` works too, and
    then a replay does not pass through the middlewares that were added later. Options are those of `Settings`, each also read
    from the environment as `QUEUE_<NAME>`. The name of the application and the real path of the database are found here, and
    `settings` holds them. Nothing is opened before the application starts.

    `observers` hear every event. `authenticate` is asked who sends a request to the queue: from a Starlette `HTTPConnection` to
    a name, or None for a stranger, who is answered 401.

    Raises `SettingsError` for an option that is unknown or wrong.
    """

    def __init__(
        self,
        app: App,
        *,
        observers: Iterable[Observer] = (),
        authenticate: Authenticate | None = None,
        **options: Unpack[Options],
    ) -> None:
        check_application(app)
        if authenticate is not None:
            check_authenticate(authenticate)
        self.app = app
        settings = Settings.load(options)
        self._place = settings.prefix, database_path(settings.database)
        check_nesting(_places(app), self._place)
        self.settings = _identified(settings, self._place[1], app)
        self._runtime = Runtime(app, self.settings, observers, alone=settings.name is None)
        self._queue: ASGIApp = FalQueue(self._runtime, Access(self.settings.api_keys, authenticate))
        if self.settings.cors_origins:
            self._queue = CrossOrigin(self._queue, self.settings.cors_origins)
        self._prefix = self.settings.prefix
        self._hosts = frozenset(host.encode() for host in self.settings.fal_hosts)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One ASGI scope."""
        kind = scope["type"]
        if kind == "http" and (self._prefix in scope["path"]) and is_ours(scope, self._prefix):
            await self._queue(scope, receive, send)
        elif kind == "lifespan":
            await run_lifespan(self.app, self._runtime, scope, receive, send)
        elif self._hosts and is_at_host(scope, self._hosts):
            if kind == "http":
                await self._queue(scope, receive, send)
            else:
                await send({"type": "websocket.close", "code": 1000, "reason": "this host has no websockets"})
        else:
            await self.app(scope, receive, send)

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

    def running(self) -> AbstractAsyncContextManager[None]:
        """`async with queue.running():` starts the queue where no lifespan does: mounted applications, servers without it."""
        return self._runtime.running()


def _identified(settings: Settings, database: Path, app: object) -> Settings:
    """With the name of the application, and the real path of its database: neither depends on what happens later."""
    name = settings.name or default_name(app)
    if (tests := isolation()) is not None:
        database = tests.place(database, name)
    return replace(settings, name=name, database=str(database))


def _places(app: object) -> Iterator[tuple[str, Path]]:
    """Prefix and database of each queue that an application has already, or is going to be given by its framework."""
    for layer in layers(app):
        if isinstance(layer, QueueMiddleware):
            yield layer._place  # noqa: SLF001 - one of us
        for added in getattr(layer, "user_middleware", ()):
            if isinstance(kind := getattr(added, "cls", None), type) and issubclass(kind, QueueMiddleware):
                options = {name: value for name, value in added.kwargs.items() if name in Options.__annotations__}
                settings = Settings.load(options)
                yield settings.prefix, database_path(settings.database)
