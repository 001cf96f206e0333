"""Exchanges the templates of paths between the processes of a database: each learns only from the calls that it replays."""

from __future__ import annotations

from queue_middleware.jobs.routes import RouteTemplates
from queue_middleware.jobs.store import JobStore


async def exchange_routes(routes: RouteTemplates, store: JobStore) -> None:
    """Store what was learned here, and learn what others have stored if a path had no template. Otherwise do nothing."""
    if routes.unshared:
        learned = sorted(routes.unshared)
        await store.keep_routes(learned)
        routes.unshared.difference_update(learned)
    if routes.has_missed:
        routes.remember(await store.routes())
