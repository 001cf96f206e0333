"""Pauses: the operator holds the start of jobs, of all routes or of one."""

from __future__ import annotations

from collections.abc import Iterable

from .struct import Struct

ALL_ROUTES = "*"
"""The route of a pause of all jobs."""


class Pause(Struct, frozen=True):
    """Jobs of a route do not start. They can be submitted, and keep their positions; running ones go on."""

    route: str
    """A template as in `NewJob.route`, with every method; or `ALL_ROUTES`."""
    operator: str
    reason: str
    paused_at: int
    paused_until: int | None = None
    """When it ends by itself; None: not before it is resumed."""


def paused_routes(pauses: Iterable[Pause], now: int) -> frozenset[str]:
    """The routes whose jobs do not start now; `ALL_ROUTES` among them if none do."""
    return frozenset(pause.route for pause in pauses if pause.paused_until is None or pause.paused_until > now)


def next_end(pauses: Iterable[Pause], now: int) -> int | None:
    """When the next pause ends by itself; None if none does."""
    return min(
        (pause.paused_until for pause in pauses if pause.paused_until is not None and pause.paused_until > now), default=None
    )
