"""The processes that run a queue, as operators see them."""

from __future__ import annotations

from .struct import Struct


class Usage(Struct, frozen=True):
    """What a process is busy with."""

    running: int
    """Occupied slots."""
    stuck: int
    """Attempts that were ended and whose code still runs, in a slot or without one."""
    streams: int = 0
    """Open status streams."""


class ProcessRecord(Struct, frozen=True):
    """One process that runs on the database."""

    owner: str
    """A random name, new for each start; the claims of the process have it."""
    host: str
    pid: int
    version: str
    """Of this package."""
    concurrency: int
    """The number of its slots."""
    started_at: int
    seen_at: int
    """When it last reported, by its own clock; it does so four times in each lease."""
    running: int
    """Occupied slots."""
    stuck: int
    """Attempts that were ended and whose code still runs, in a slot or without one."""
    streams: int
    """Open status streams."""
