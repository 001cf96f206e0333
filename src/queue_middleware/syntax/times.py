"""Moments that an operator passes."""

from __future__ import annotations

from datetime import datetime

from queue_middleware.errors import BadRequest


def milliseconds_of(name: str, moment: object) -> int:
    """A datetime with a time zone in milliseconds since 1970. Raises `BadRequest`, which calls it `name`, for anything else."""
    if not isinstance(moment, datetime) or moment.tzinfo is None:
        raise BadRequest(f"{name} is {moment!r}; pass a datetime with a time zone, e.g. datetime.now(UTC)")
    return round(moment.timestamp() * 1000)
