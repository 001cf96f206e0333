"""Health of the receivers of webhooks, and the circuit breaker that pauses one that keeps failing. Pure.

Health is kept for each flow, which is the webhooks of one submitter to one host: at a relay or a tunnel, the endpoint of
one submitter may fail while those of others work. It is also kept for each host as a whole. The circuit of a host opens
when no connection to it can be made, or when the webhooks of several submitters fail one after the other; one failing
endpoint does not open it.
"""

from __future__ import annotations

import zlib
from enum import StrEnum

from queue_middleware.backoff import exponential
from queue_middleware.jobs.struct import Value

from .models import Standing

THRESHOLD = 5
"""Failures in a row that open the circuit of a flow or a host."""
SEVERAL = 3
"""Submitters whose webhooks must fail, with no success in between, before their host counts as failing."""
PROMPT = 2.0
"""Seconds within which a response is prompt."""

LEAST_PATIENCE = 3600.0
_FIRST_PAUSE = 10.0
_LONGEST_PAUSE = 300.0


class Outcome(StrEnum):
    """What an attempt shows about the receiver. An attempt that failed for a local reason shows nothing."""

    PROMPT = "prompt"
    SLOW = "slow"
    FAILED = "failed"
    """The connection was made; the response was an error or did not arrive."""
    UNREACHED = "unreached"
    """No connection was made, so the whole host has failed."""


_FAILURES = (Outcome.FAILED, Outcome.UNREACHED)

STANDING: dict[tuple[Standing, Outcome], Standing] = {
    **{(standing, Outcome.PROMPT): Standing.GOOD for standing in Standing},
    **{(standing, Outcome.SLOW): Standing.SLOW for standing in Standing},
    **{(standing, failure): Standing.FAILING for standing in Standing for failure in _FAILURES},  # until the threshold
    **{(Standing.OPEN, failure): Standing.OPEN for failure in _FAILURES},
}
"""The health after an attempt, from the health before it and the attempt's outcome."""


def outcome_of(status: int | None, seconds: float) -> Outcome:
    """The outcome of an attempt with this response, None for no response. An error such as 404 shows a working host."""
    if status is None or status >= 500 or status == 429:
        return Outcome.FAILED
    return Outcome.PROMPT if seconds <= PROMPT else Outcome.SLOW


class Health(Value, frozen=True):
    """What is stored about a flow, and about a host. Times are milliseconds since 1970."""

    standing: Standing = Standing.NEW
    failures: int = 0
    """In a row."""
    failing_since: int | None = None
    held_until: int | None = None
    """While the circuit is open: when the next probe may be sent."""


def judge(health: Health, outcome: Outcome | None, now: int, *, probe: bool) -> Health:
    """The health after an attempt. A probe without an outcome allows the next probe at once."""
    if outcome is None:
        return health.replace(held_until=now) if probe and health.standing is Standing.OPEN else health
    standing = STANDING[health.standing, outcome]
    if outcome not in _FAILURES:
        return Health(standing)
    if health.standing is Standing.OPEN and not probe:
        return health  # it was sent before the circuit opened
    failures = health.failures + 1
    since = health.failing_since or now
    if failures < THRESHOLD:
        return Health(standing, failures, since)
    return Health(Standing.OPEN, failures, since, now + round(pause_after(failures) * 1000))


def judge_host(
    health: Health, suspects: frozenset[str], outcome: Outcome | None, flow: str, now: int, *, probe: bool
) -> tuple[Health, frozenset[str]]:
    """The health of a host after an attempt of one of its flows.

    `suspects` are marks of the flows that failed since the last success. An error response shows only that this flow fails:
    until `SEVERAL` flows do, the host counts as working.
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
        return Health(), suspects  # connections succeed again
    return health, suspects


def _mark(flow: str) -> str:
    """A short hash of a flow, without spaces, so that several can be stored in one column."""
    return f"{zlib.crc32(flow.encode()):08x}"


def pause_after(failures: int) -> float:
    """Seconds until a probe of an open circuit, after so many failures in a row."""
    return exponential(failures - THRESHOLD + 1, first=_FIRST_PAUSE, longest=_LONGEST_PAUSE)


def patience(schedule: tuple[float, ...]) -> float:
    """Seconds of failing after which waiting webhooks are given up: the whole retry schedule with its longest jitter."""
    return max(sum(schedule) * 1.2, LEAST_PATIENCE)
