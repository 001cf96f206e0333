"""Health of the receivers of webhooks, and the circuit breaker that pauses one that keeps failing. Pure.

Health is kept for each flow, which is the webhooks of one submitter to one host: at a relay or a tunnel, the endpoint of
one submitter may fail while those of others work. It is also kept for each host as a whole. The circuit of a host opens
after `FAILURE_THRESHOLD` attempts in a row that could not connect, or after as many failures in a row while the webhooks of
several submitters fail; one failing endpoint does not open it.
"""

from __future__ import annotations

import zlib
from enum import StrEnum

from queue_middleware.backoff import exponential
from queue_middleware.jobs.struct import Struct

from .models import ReceiverHealth

FAILURE_THRESHOLD = 5
"""Failures in a row that open the circuit of a flow or a host."""
MIN_FAILING_FLOWS = 3
"""Submitters whose webhooks must fail, with no success in between, before their host counts as failing."""
PROMPT_SECONDS = 2.0
"""Seconds within which a response is prompt."""

MIN_GIVE_UP_AFTER = 3600.0
_FIRST_PAUSE = 10.0
_LONGEST_PAUSE = 300.0


class AttemptOutcome(StrEnum):
    """What an attempt shows about the receiver. An attempt that failed for a local reason shows nothing."""

    PROMPT = "prompt"
    SLOW = "slow"
    FAILED = "failed"
    """The connection was made; the response was an error or did not arrive."""
    UNREACHED = "unreached"
    """No connection was made, so the whole host has failed."""


_FAILURES = (AttemptOutcome.FAILED, AttemptOutcome.UNREACHED)

HEALTH_TRANSITIONS: dict[tuple[ReceiverHealth, AttemptOutcome], ReceiverHealth] = {
    **{(health, AttemptOutcome.PROMPT): ReceiverHealth.HEALTHY for health in ReceiverHealth},
    **{(health, AttemptOutcome.SLOW): ReceiverHealth.SLOW for health in ReceiverHealth},
    **{(health, failure): ReceiverHealth.FAILING for health in ReceiverHealth for failure in _FAILURES},
    **{(ReceiverHealth.OPEN, failure): ReceiverHealth.OPEN for failure in _FAILURES},
}
"""The health after an attempt, from the health before it and the attempt's outcome, before the threshold is applied.

`next_health` opens the circuit when `FAILURE_THRESHOLD` is reached.
"""


def attempt_outcome(status: int | None, seconds: float) -> AttemptOutcome:
    """The outcome of an attempt with this response, None for no response. An error such as 404 shows a working host."""
    if status is None or status >= 500 or status == 429:
        return AttemptOutcome.FAILED
    return AttemptOutcome.PROMPT if seconds <= PROMPT_SECONDS else AttemptOutcome.SLOW


class HealthRecord(Struct, frozen=True):
    """What is stored about a flow, and about a host. Times are milliseconds since 1970."""

    health: ReceiverHealth = ReceiverHealth.NEW
    failures: int = 0
    """In a row."""
    failing_since: int | None = None
    open_until: int | None = None
    """While the circuit is open: when the next probe may be sent."""


def next_health(health: HealthRecord, outcome: AttemptOutcome | None, now: int, *, probe: bool) -> HealthRecord:
    """The health after an attempt. A probe without an outcome allows the next probe at once."""
    if outcome is None:
        return health.replace(open_until=now) if probe and health.health is ReceiverHealth.OPEN else health
    following = HEALTH_TRANSITIONS[health.health, outcome]
    if outcome not in _FAILURES:
        return HealthRecord(following)
    if health.health is ReceiverHealth.OPEN and not probe:
        return health  # it was sent before the circuit opened
    failures = health.failures + 1
    since = health.failing_since or now
    if failures < FAILURE_THRESHOLD:
        return HealthRecord(following, failures, since)
    return HealthRecord(ReceiverHealth.OPEN, failures, since, now + round(pause_after(failures) * 1000))


def next_host_health(
    health: HealthRecord, suspects: frozenset[str], outcome: AttemptOutcome | None, flow: str, now: int, *, probe: bool
) -> tuple[HealthRecord, frozenset[str]]:
    """The health of a host after an attempt of one of its flows.

    `suspects` are marks of the flows that failed since the last success. An error response shows only that this flow fails:
    until `MIN_FAILING_FLOWS` flows do, the host counts as working.
    """
    if outcome is None:
        return next_health(health, None, now, probe=probe), suspects
    if outcome not in _FAILURES:
        return next_health(health, outcome, now, probe=probe), frozenset()
    if len(suspects) < MIN_FAILING_FLOWS:
        suspects |= {_mark(flow)}
    if outcome is AttemptOutcome.UNREACHED or len(suspects) >= MIN_FAILING_FLOWS:
        return next_health(health, AttemptOutcome.FAILED, now, probe=probe), suspects
    if health.health in (ReceiverHealth.FAILING, ReceiverHealth.OPEN):
        return HealthRecord(), suspects  # connections succeed again
    return health, suspects


def _mark(flow: str) -> str:
    """A short hash of a flow, without spaces, so that several can be stored in one column."""
    return f"{zlib.crc32(flow.encode()):08x}"


def pause_after(failures: int) -> float:
    """Seconds until a probe of an open circuit, after so many failures in a row."""
    return exponential(failures - FAILURE_THRESHOLD + 1, first=_FIRST_PAUSE, longest=_LONGEST_PAUSE)


def give_up_after(schedule: tuple[float, ...]) -> float:
    """Seconds of failing after which waiting webhooks are given up: the whole retry schedule with its longest jitter."""
    return max(sum(schedule) * 1.2, MIN_GIVE_UP_AFTER)
