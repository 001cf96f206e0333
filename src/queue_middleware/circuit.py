"""How receivers of webhooks are treated: the health of each, and how attempts are shared out between them. Pure.

What is judged is a flow, the webhooks of one submitter to one host: at a relay or a tunnel the endpoint of one submitter may
fail while those of others are well. A flow that fails is left alone, and probed now and then; one of which nothing is known, or
nothing good, cannot take the places of those that are well. A host is left alone as a whole where no connection to it is made,
or where the webhooks of several submitters fail one after the other. So whatever one receiver does, the others get theirs.
"""

from __future__ import annotations

import zlib
from collections import Counter
from collections.abc import Iterable
from enum import StrEnum

from .backoff import exponential
from .value import Value
from .webhooks import Room, Standing

THRESHOLD = 5
"""Failures in a row after which a flow, or a host, is left alone."""
SEVERAL = 3
"""Submitters whose webhooks have to fail, with no success in between, before that says something about their host."""
PROMPT = 2.0
"""Seconds within which an answer is prompt."""
AT_ONCE: dict[Standing, int] = {
    Standing.NEW: 1,
    Standing.GOOD: 16,
    Standing.SLOW: 4,
    Standing.FAILING: 1,
    Standing.OPEN: 1,
}
"""Attempts of one flow at once, of one process. A probe is the only one over all processes."""
MOST_AT_ONCE = max(AT_ONCE.values())
HOST_AT_ONCE: dict[Standing, int] = {
    Standing.NEW: 8,
    Standing.GOOD: 32,
    Standing.SLOW: 8,
    Standing.FAILING: 1,
    Standing.OPEN: 1,
}
"""Attempts at one host at once, of one process: twice what one flow gets, so one that hangs leaves places to others."""

LEAST_PATIENCE = 3600.0
_FIRST_PAUSE = 10.0
_LONGEST_PAUSE = 300.0


class Outcome(StrEnum):
    """What an attempt says about the receiver. One that was not made, for a reason of ours, says nothing."""

    PROMPT = "prompt"
    SLOW = "slow"
    FAILED = "failed"
    """The connection was made; the answer was an error, or none came."""
    UNREACHED = "unreached"
    """No connection was made, so all of the host has failed."""


_FAILURES = (Outcome.FAILED, Outcome.UNREACHED)

STANDING: dict[tuple[Standing, Outcome], Standing] = {
    **{(standing, Outcome.PROMPT): Standing.GOOD for standing in Standing},
    **{(standing, Outcome.SLOW): Standing.SLOW for standing in Standing},
    **{(standing, failure): Standing.FAILING for standing in Standing for failure in _FAILURES},  # until the threshold
    **{(Standing.OPEN, failure): Standing.OPEN for failure in _FAILURES},
}


def outcome_of(status: int | None, seconds: float) -> Outcome:
    """What an answer, or None for no answer, says about the host. A refusal such as 404 says that it is there."""
    if status is None or status >= 500 or status == 429:
        return Outcome.FAILED
    return Outcome.PROMPT if seconds <= PROMPT else Outcome.SLOW


class Health(Value, frozen=True):
    """What is kept of a flow, and of a host. Times in milliseconds since 1970."""

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
    if outcome not in _FAILURES:
        return Health(standing)
    if health.standing is Standing.OPEN and not probe:
        return health  # it was on its way when the others failed
    failures = health.failures + 1
    since = health.failing_since or now
    if failures < THRESHOLD:
        return Health(standing, failures, since)
    return Health(Standing.OPEN, failures, since, now + round(pause_after(failures) * 1000))


def judge_host(
    health: Health, suspects: frozenset[str], outcome: Outcome | None, flow: str, now: int, *, probe: bool
) -> tuple[Health, frozenset[str]]:
    """What is known of a host after an attempt of a flow; `suspects` are marks of flows that failed since the last success.

    An answer that is an error says only that this flow fails: until several do, the host counts as one that is there.
    """
    if outcome is None:
        return judge(health, None, now, probe=probe), suspects
    if outcome not in _FAILURES:
        return judge(health, outcome, now, probe=probe), frozenset()
    if len(suspects) < SEVERAL:
        suspects |= {_mark(flow)}
    if outcome is Outcome.UNREACHED or len(suspects) >= SEVERAL:
        return judge(health, Outcome.FAILED, now, probe=probe), suspects
    if health.standing in (Standing.FAILING, Standing.OPEN):
        return Health(), suspects  # connections are made again
    return health, suspects


def _mark(flow: str) -> str:
    """Short, and without what it may be confused with where several stand side by side."""
    return f"{zlib.crc32(flow.encode()):08x}"


def pause_after(failures: int) -> float:
    """Seconds for which a host is left alone after so many failures in a row."""
    return exponential(failures - THRESHOLD + 1, first=_FIRST_PAUSE, longest=_LONGEST_PAUSE)


def patience(schedule: tuple[float, ...]) -> float:
    """Seconds that webhooks wait for a host that is left alone: as all attempts may take, each wait a fifth longer."""
    return max(sum(schedule) * 1.2, LEAST_PATIENCE)


class Waiting(Value, frozen=True):
    """A flow that has something due."""

    flow: str
    standing: Standing
    due: int
    """How many; counted until they are more than `MOST_AT_ONCE`."""
    host: str = ""
    of_host: Standing = Standing.GOOD
    """The standing of its host as a whole."""


class Shares(Value, frozen=True):
    """Which flow gets how many, and which hosts would have had more."""

    of_flow: dict[str, int]
    full: bool
    held_back: frozenset[str]


def share(room: Room, waiting: Iterable[Waiting]) -> Shares:
    """Give each flow what it and its host may have, in the order in which they come, until the room is used up."""
    left, strangers = room.limit, room.strangers
    shares: dict[str, int] = {}
    held_back: set[str] = set()
    full = False
    at_host = Counter[str]()
    for flow, count in room.busy.items():
        at_host[host_of_flow(flow)] += count
    for one in waiting:
        good = one.standing is Standing.GOOD
        allowed = min(AT_ONCE[one.standing] - room.busy.get(one.flow, 0), HOST_AT_ONCE[one.of_host] - at_host[one.host])
        fits = left if good else min(left, strangers)
        count = max(0, min(allowed, fits, one.due))
        full = full or fits < min(allowed, one.due)
        if allowed < one.due and Standing.OPEN not in (one.standing, one.of_host):
            held_back.add(one.host)
        if count:
            shares[one.flow] = count
            at_host[one.host] += count
            left -= count
            strangers -= 0 if good else count
    return Shares(shares, full, frozenset(held_back))


def host_of_flow(flow: str) -> str:
    """A flow is named by its host, a space, and its submitter."""
    return flow.partition(" ")[0]
