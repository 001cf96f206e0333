"""How a host is treated that webhooks go to: the law of its standing, and how attempts are shared out between hosts. Pure.

A host that fails is left alone, and probed now and then; a host of which nothing is known, or nothing good, cannot take the
places of those that are well. So whatever one receiver does, the others get theirs.
"""

from __future__ import annotations

from collections.abc import Iterable
from enum import StrEnum

from .backoff import exponential
from .models import Standing
from .value import Value
from .webhooks import Room

THRESHOLD = 5
"""Failures in a row after which a host is left alone."""
PROMPT = 2.0
"""Seconds within which an answer is prompt."""
AT_ONCE: dict[Standing, int] = {
    Standing.NEW: 1,
    Standing.GOOD: 16,
    Standing.SLOW: 4,
    Standing.FAILING: 1,
    Standing.OPEN: 1,
}
"""Attempts at one host at once, of one process. A probe is the only one over all processes."""
MOST_AT_ONCE = max(AT_ONCE.values())

LEAST_PATIENCE = 3600.0
_FIRST_PAUSE = 10.0
_LONGEST_PAUSE = 300.0


class Outcome(StrEnum):
    """What an attempt says about the host. One that never reached it says nothing."""

    PROMPT = "prompt"
    SLOW = "slow"
    FAILED = "failed"


STANDING: dict[tuple[Standing, Outcome], Standing] = {
    **{(standing, Outcome.PROMPT): Standing.GOOD for standing in Standing},
    **{(standing, Outcome.SLOW): Standing.SLOW for standing in Standing},
    (Standing.NEW, Outcome.FAILED): Standing.FAILING,
    (Standing.GOOD, Outcome.FAILED): Standing.FAILING,
    (Standing.SLOW, Outcome.FAILED): Standing.FAILING,
    (Standing.FAILING, Outcome.FAILED): Standing.FAILING,  # until the threshold
    (Standing.OPEN, Outcome.FAILED): Standing.OPEN,
}


def outcome_of(status: int | None, seconds: float) -> Outcome:
    """What an answer, or None for no answer, says about the host. A refusal such as 404 says that it is there."""
    if status is None or status >= 500 or status == 429:
        return Outcome.FAILED
    return Outcome.PROMPT if seconds <= PROMPT else Outcome.SLOW


class Health(Value, frozen=True):
    """What is kept of a host. Times in milliseconds since 1970."""

    standing: Standing = Standing.NEW
    failures: int = 0
    """In a row."""
    failing_since: int | None = None
    held_until: int | None = None


def judge(health: Health, outcome: Outcome | None, now: int, *, probe: bool) -> Health:
    """What is known after an attempt. A probe that said nothing makes room for another."""
    if outcome is None:
        return health.replace(held_until=now) if probe and health.standing is Standing.OPEN else health
    standing = STANDING[health.standing, outcome]
    if outcome is not Outcome.FAILED:
        return Health(standing)
    if health.standing is Standing.OPEN and not probe:
        return health  # it was on its way when the others failed
    failures = health.failures + 1
    since = health.failing_since or now
    if failures < THRESHOLD:
        return Health(standing, failures, since)
    return Health(Standing.OPEN, failures, since, now + round(pause_after(failures) * 1000))


def pause_after(failures: int) -> float:
    """Seconds for which a host is left alone after so many failures in a row."""
    return exponential(failures - THRESHOLD + 1, first=_FIRST_PAUSE, longest=_LONGEST_PAUSE)


def patience(schedule: tuple[float, ...]) -> float:
    """Seconds that webhooks wait for a host that is left alone: as all attempts may take, each wait a fifth longer."""
    return max(sum(schedule) * 1.2, LEAST_PATIENCE)


class Waiting(Value, frozen=True):
    """A host that has something due."""

    host: str
    standing: Standing
    due: int
    """How many; counted until they are more than `MOST_AT_ONCE`."""


class Shares(Value, frozen=True):
    """Who gets how many, and who would have had more."""

    of_host: dict[str, int]
    full: bool
    held_back: frozenset[str]


def share(room: Room, waiting: Iterable[Waiting]) -> Shares:
    """Give each host what it may have, in the order in which they come, until the room is used up."""
    left, strangers = room.limit, room.strangers
    shares: dict[str, int] = {}
    held_back: set[str] = set()
    full = False
    for one in waiting:
        good = one.standing is Standing.GOOD
        allowed = AT_ONCE[one.standing] - room.busy.get(one.host, 0)
        fits = left if good else min(left, strangers)
        count = max(0, min(allowed, fits, one.due))
        full = full or fits < min(allowed, one.due)
        if allowed < one.due and one.standing is not Standing.OPEN:
            held_back.add(one.host)
        if count:
            shares[one.host] = count
            left -= count
            strangers -= 0 if good else count
    return Shares(shares, full, frozenset(held_back))
